use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Mutex;

/// Below the ports that Linux gives to outgoing connections (from 32768), so that no client takes one meanwhile.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port that nobody listens on, on IPv4 and IPv6, and that no other test was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no panic while held");
    // Another test process begins elsewhere.
    let offset = std::process::id() as usize * 97 % RANGE.len();
    let port = RANGE
        .cycle()
        .skip(offset)
        .take(RANGE.len())
        .find(|port| !given.contains(port) && is_free(*port))
        .expect("a free port");
    given.insert(port);
    port
}

/// Asks by connecting: a listener of our own, to see whether it can be had, might still be there in a child that
/// another thread is just starting when the port is used.
fn is_free(port: u16) -> bool {
    [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].into_iter().all(|ip| {
        TcpStream::connect((ip, port))
            .is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable))
    })
}
