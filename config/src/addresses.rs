//! Whether everything that the file has bound can be bound, side by side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use crate::Diagnostic;
use crate::model::{Address, Config};
use crate::place::At;
use crate::signer::SignerAddress;

/// `sun_path` of Linux, without the NUL behind it.
const SOCKET_PATH: usize = 107;
/// The signer binds its socket under this name first, and renames it then.
const SIGNER_SUFFIX: usize = ".new".len();

/// An address, and whose it is.
struct Claim<'a> {
    owner: String,
    address: SocketAddr,
    span: &'a Range<usize>,
}

pub(crate) fn addresses(config: &Config, found: &mut Vec<Diagnostic>) {
    let mut claims: Vec<Claim<'_>> = Vec::new();
    for (name, listener) in &config.listeners {
        for bind in &listener.bind {
            let claim = Claim { owner: format!("listener {name:?}"), address: bind.value, span: &bind.span };
            claim_tcp(claim, &mut claims, found);
        }
    }
    let admin = &config.admin.listen;
    if let Address::Tcp(address) = admin.value {
        if address.port() == 0 {
            found.push(Diagnostic::error("an admin listener needs a port that can be found").at(&admin.span));
        }
        let claim = |address| Claim { owner: "the admin listener".into(), address, span: &admin.span };
        // Unlike a listener's, its "[::]" takes IPv4 as well.
        let both = address.ip() == IpAddr::from([0u16; 8]);
        let v4 = both.then(|| claim((Ipv4Addr::UNSPECIFIED, address.port()).into()));
        let before = claims.len();
        claim_tcp(claim(address), &mut claims, found);
        // One finding is enough.
        if let Some(v4) = v4.filter(|_| claims.len() > before) {
            claim_tcp(v4, &mut claims, found);
        }
    }
    for listen in config.signer.iter().flat_map(|signer| signer.listen.as_slice()) {
        if let Some(address) = listen.tcp() {
            claim_tcp(Claim { owner: "the signer".into(), address, span: &listen.span }, &mut claims, found);
        }
    }
    sockets(config, found);
}

/// Adds a claim that can be had beside the others; says why of one that cannot.
fn claim_tcp<'a>(claim: Claim<'a>, claims: &mut Vec<Claim<'a>>, found: &mut Vec<Diagnostic>) {
    let Claim { address, span, .. } = &claim;
    let broadcast = address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
    if broadcast || address.ip().is_multicast() {
        found.push(Diagnostic::error(format!("{address} is no address that clients connect to")).at(span));
    } else if address.ip() != address.ip().to_canonical() {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        found.push(
            Diagnostic::error(format!("{address} is an IPv4 address in IPv6"))
                .at(span)
                .help(format!("write it as \"{canonical}\"")),
        );
    } else if let Some(other) = claims.iter().find(|other| overlap(*address, other.address)) {
        let what = if other.address == *address {
            format!("{address} is bound twice")
        } else {
            format!("{address} and {} cannot both be bound", other.address)
        };
        found.push(Diagnostic::error(what).at(span).label(format!("{} has {} already", other.owner, other.address)));
    } else {
        claims.push(claim);
    }
}

/// Whether the kernel refuses one while there is the other. IPv4 and IPv6 are apart: listeners bind IPv6 only.
#[must_use]
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address| match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let same = a.ip() == b.ip() && scope(a) == scope(b);
    a.port() == b.port()
        && a.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && (same || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Unix sockets: paths that fit.
fn sockets(config: &Config, found: &mut Vec<Diagnostic>) {
    let admin = match &config.admin.listen {
        At { span, value: Address::Unix(path) } if !config.listeners.is_empty() => Some((path, span, SOCKET_PATH)),
        _ => None,
    };
    let signer = config.signer.iter().flat_map(|signer| signer.listen.as_slice());
    let signer = signer.filter_map(|listen| match &listen.value {
        SignerAddress::Unix(path) => Some((path, &listen.span, SOCKET_PATH - SIGNER_SUFFIX)),
        _ => None,
    });
    for (path, span, longest) in admin.into_iter().chain(signer) {
        let length = path.as_os_str().as_bytes().len();
        if length > longest {
            let what = format!("a socket's path has {longest} bytes at most; {} has {length}", path.display());
            let what = Diagnostic::error(what);
            // The default stands nowhere in the file.
            found.push(if span.is_empty() { what } else { what.at(span) });
        }
    }
}
