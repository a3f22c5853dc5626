//! Heads as a server gets them: what we accepted and rewrote, we accept again, with the same framing.

use std::net::IpAddr;

use keygate_gateway::http1::fields::{Field, Name};
use keygate_gateway::http1::head::{self, Limits};
use keygate_gateway::http1::rewrite::{self, Lines};
use keygate_gateway::policy::forward;

use super::{LIMITS, request_head};

/// Our own lines on top of what was received.
const REWRITTEN: Limits = Limits { size: 32 << 10, headers: 80 };
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const REQUEST_ID: &str = "0199a5f0-0000-7000-8000-000000000000";

/// A head that was rewritten frames as it did, goes where it did, and says of its client only what we say. The first byte
/// says whether the peer is a trusted proxy, whether it spoke TLS, and whether it may have another protocol.
///
/// # Panics
/// When it does not.
pub fn rewritten_head(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let (trusted, tls, upgrade) = (flags & 1 == 1, flags & 2 == 2, flags & 4 == 4);
    let mut fields = Vec::new();
    let Ok(Some(head)) = head::parse(data, LIMITS, &mut fields) else { return };
    let received = &data[..head.len];
    // It is answered, never forwarded.
    if &received[head.method.clone()] == b"CONNECT" {
        return;
    }
    let lines = Lines { head: received, fields: &fields };
    let proxies = if trusted { vec!["10.0.0.0/8".parse().expect("a network")] } else { Vec::new() };
    let origin = forward::origin(PEER, tls, &lines, &proxies);
    let id = origin.request_id.clone().unwrap_or_else(|| REQUEST_ID.to_owned());
    let mut out = Vec::new();
    rewrite::request(&mut out, &head, &lines, &origin, &id, "127.0.0.1:3000", upgrade);

    let mut sent = Vec::new();
    let again = head::parse(&out, REWRITTEN, &mut sent).expect("we refuse what we wrote").expect("it is whole");
    assert_eq!(again.len, out.len(), "it ends before its end");
    assert_eq!((again.framing, again.http10, &again.origin_form), (head.framing, false, &None));
    assert_eq!(&out[again.method.clone()], &received[head.method.clone()]);
    assert_eq!(&out[again.target.clone()], &received[head.path()]);
    lines_are_kept(received, &fields, &out, &sent);
    only_we_say_who_asks(&out, &sent, trusted);
    if out.len() <= LIMITS.size && sent.len() <= LIMITS.headers {
        request_head(&out);
    }
}

/// What is received and sent is the same line, in the same order; what frames and routes is there.
fn lines_are_kept(received: &[u8], fields: &[Field], out: &[u8], sent: &[Field]) {
    let mut kept = fields.iter().map(|field| field.line(received));
    for field in sent.iter().filter(|field| !is_ours(field.name(out))) {
        // A host that nobody named, and the upgrade, are said by us; what frames, in our words.
        let said = [&b"host: 127.0.0.1:3000\r\n"[..], b"connection: upgrade\r\n"].contains(&field.line(out))
            || matches!(field.name, Name::ContentLength | Name::TransferEncoding);
        assert!(said || kept.any(|line| line == field.line(out)), "a line is changed, moved or made up");
    }
    for name in [Name::Host, Name::ContentLength, Name::TransferEncoding] {
        let values = |bytes: &[u8], fields: &[Field]| -> Vec<Vec<u8>> {
            fields.iter().filter(|field| field.name == name).map(|field| field.value(bytes).to_vec()).collect()
        };
        let (before, after) = (values(received, fields), values(out, sent));
        let same = match name {
            Name::Host => before == after || before.is_empty(),
            // One way to write it, which means the same: that it frames as before has been seen.
            Name::ContentLength => before.len() == after.len() && !after.iter().any(|n| n.len() > 1 && n[0] == b'0'),
            _ => before.len() == after.len() && after.iter().all(|coding| coding == b"chunked"),
        };
        assert!(same, "{name:?}: {before:?} is {after:?}");
    }
    assert!(!sent.iter().any(|field| field.name == Name::HopByHop), "it is between neighbours");
}

/// Whether it is one of the lines that a proxy adds.
fn is_ours(name: &[u8]) -> bool {
    [&b"x-real-ip"[..], b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id", b"x-forwarded-host"].contains(&name)
}

/// Whether a server, or CGI between it and us, could take it for what a proxy says.
fn claims(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase().replace('_', "-");
    let names = ["x-real-ip", "x-request-id", "forwarded", "x-original-url", "x-rewrite-url", "proxy"];
    name.starts_with("x-forwarded-") || names.contains(&name.as_str())
}

fn only_we_say_who_asks(out: &[u8], sent: &[Field], trusted: bool) {
    let of = |wanted: &[u8]| -> Vec<&[u8]> {
        sent.iter().filter(|field| field.name(out) == wanted).map(|field| field.value(out)).collect()
    };
    for field in sent.iter().filter(|field| !is_ours(field.name(out))) {
        assert!(!claims(field.name(out)), "forged: {}", field.line(out).escape_ascii());
    }
    for name in [&b"x-real-ip"[..], b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id"] {
        assert_eq!(of(name).len(), 1, "{}", name.escape_ascii());
    }
    assert!(of(b"x-forwarded-host").len() <= 1);
    if !trusted {
        assert_eq!((of(b"x-real-ip"), of(b"x-forwarded-for")), (vec![&b"10.0.0.2"[..]], vec![&b"10.0.0.2"[..]]));
        assert_eq!(of(b"x-request-id"), [REQUEST_ID.as_bytes()]);
    }
    assert!(of(b"x-forwarded-for")[0].ends_with(b"10.0.0.2"), "the peer is the last");
}
