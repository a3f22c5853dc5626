//! What an upstream is told about the client, and what a client may not claim.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;
pub use keygate_config::is_forged;

use super::Fields;

/// `X-Request-Id`.
pub const X_REQUEST_ID: &str = "x-request-id";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_REAL_IP: &str = "x-real-ip";

/// Who is really asking, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address: the peer's, or what trusted proxies say.
    pub client: IpAddr,
    /// Whether the client spoke https.
    pub https: bool,
    /// A request id that a trusted proxy gave: visible ASCII.
    pub request_id: Option<String>,
    trusted: bool,
    peer: IpAddr,
}

/// Reads who is asking. `peer` is the other end of the connection; what it claims counts only when it is trusted.
///
/// The client is the last address of `X-Forwarded-For` that is no trusted proxy: what stands before it, anybody may
/// have written.
#[must_use]
pub fn origin(peer: IpAddr, tls: bool, fields: &impl Fields, trusted_proxies: &[IpNet]) -> Origin {
    let peer = peer.to_canonical();
    let is_trusted = |ip: &IpAddr| trusted_proxies.iter().any(|net| net.contains(ip));
    let mut origin = Origin { client: peer, https: tls, request_id: None, trusted: is_trusted(&peer), peer };
    if !origin.trusted {
        return origin;
    }
    let lines: Vec<&[u8]> = fields.all(X_FORWARDED_FOR).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b',')) {
        let Some(ip) = std::str::from_utf8(entry).ok().and_then(|text| forwarded_ip(text.trim())) else {
            break;
        };
        origin.client = ip;
        if !is_trusted(&ip) {
            break;
        }
    }
    match fields.all(X_FORWARDED_PROTO).next() {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => origin.https = true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => origin.https = false,
        _ => {}
    }
    let request_id = fields.all(X_REQUEST_ID).next().filter(|id| is_request_id(id));
    origin.request_id = request_id.map(|id| String::from_utf8_lossy(id).into_owned());
    origin
}

/// An address as `X-Forwarded-For` entries write it: some proxies add a port.
fn forwarded_ip(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse()
        .or_else(|_| text.trim_matches(['[', ']']).parse())
        .or_else(|_| text.parse().map(|addr: std::net::SocketAddr| addr.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

/// The host of an authority or a `Host` line: lower case, without port, brackets, and a root's dot.
#[must_use]
pub fn host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => authority,
    };
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// The request headers an upstream gets in place of the client's, when [`is_forged`] ones are gone.
pub fn headers(
    origin: &Origin,
    host: Option<&[u8]>,
    request_id: &str,
    received: &impl Fields,
    mut put: impl FnMut(&'static str, &[u8]),
) {
    // The longest has 45 bytes.
    let mut text = [0; 48];
    let mut ip = |ip: IpAddr| {
        let mut rest = &mut text[..];
        write!(rest, "{ip}").expect("an address has at most 45 bytes");
        let length = 48 - rest.len();
        (text, length)
    };
    let (client, length) = ip(origin.client);
    put(X_REAL_IP, &client[..length]);
    let (peer, length) = ip(origin.peer);
    if origin.trusted {
        let mut forwarded_for = Vec::new();
        for line in received.all(X_FORWARDED_FOR) {
            forwarded_for.extend_from_slice(line);
            forwarded_for.extend_from_slice(b", ");
        }
        forwarded_for.extend_from_slice(&peer[..length]);
        put(X_FORWARDED_FOR, &forwarded_for);
    } else {
        put(X_FORWARDED_FOR, &peer[..length]);
    }
    put(X_FORWARDED_PROTO, if origin.https { b"https" } else { b"http" });
    put(X_REQUEST_ID, request_id.as_bytes());
    let received_host = received.all(X_FORWARDED_HOST).next().filter(|_| origin.trusted);
    if let Some(host) = received_host.or(host) {
        put(X_FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn sent(origin: &Origin, host: Option<&[u8]>, id: &str, received: &HeaderMap) -> Vec<(String, String)> {
        let mut sent = Vec::new();
        headers(origin, host, id, received, |name, value| {
            sent.push((name.to_owned(), String::from_utf8(value.to_vec()).unwrap()));
        });
        sent
    }

    fn value(headers: &[(String, String)], name: &str) -> String {
        headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let received = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("x-request-id", "mine"),
        ]);
        let origin = origin(ip("203.0.113.9"), false, &received, &trusted());
        assert_eq!((origin.client, origin.https, origin.request_id.clone()), (ip("203.0.113.9"), false, None));
        let sent = sent(&origin, Some(b"api.test"), "fresh", &received);
        assert_eq!(value(&sent, "x-forwarded-for"), "203.0.113.9");
        assert_eq!(value(&sent, "x-real-ip"), "203.0.113.9");
        assert_eq!(value(&sent, "x-forwarded-proto"), "http");
        assert_eq!(value(&sent, "x-forwarded-host"), "api.test");
        assert_eq!(value(&sent, "x-request-id"), "fresh");
    }

    #[test]
    fn a_trusted_proxy_is() {
        let received = map(&[
            ("x-forwarded-for", "6.6.6.6, 198.51.100.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "abc-123"),
        ]);
        let origin = origin(ip("::ffff:10.0.0.2"), false, &received, &trusted());
        assert_eq!((origin.client, origin.https), (ip("198.51.100.7"), true));
        assert_eq!(origin.request_id, Some("abc-123".to_owned()));
        let sent = sent(&origin, None, "abc-123", &received);
        assert_eq!(value(&sent, "x-forwarded-for"), "6.6.6.6, 198.51.100.7, 10.1.1.1, 10.0.0.2");
        assert_eq!(value(&sent, "x-real-ip"), "198.51.100.7");
        assert_eq!(value(&sent, "x-forwarded-proto"), "https");
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        // As a peer on a socket for both, and as what a proxy with such a socket writes.
        let received = map(&[("x-forwarded-for", "::ffff:198.51.100.7, [::ffff:10.1.1.1]:443, ::ffff:10.0.0.3")]);
        let trusting = origin(ip("::ffff:10.0.0.2"), false, &received, &trusted());
        assert_eq!(trusting.client, ip("198.51.100.7"));
        let stranger = origin(ip("::ffff:203.0.113.9"), false, &received, &trusted());
        assert_eq!(stranger.client, ip("203.0.113.9"));
        let sent = sent(&stranger, None, "fresh", &received);
        assert_eq!(value(&sent, "x-forwarded-for"), "203.0.113.9");
        // "Everybody" in IPv6 is nobody in IPv4.
        let v6 = ["::/0".parse().unwrap()];
        assert_eq!(origin(ip("::ffff:10.0.0.2"), false, &received, &v6).client, ip("10.0.0.2"));
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain_of_trust() {
        let client = |line: &str| origin(ip("10.0.0.2"), true, &map(&[("x-forwarded-for", line)]), &trusted()).client;
        assert_eq!(client("6.6.6.6, unknown, 10.1.1.1"), ip("10.1.1.1"));
        assert_eq!(client("[2001:db8::1]:443"), ip("2001:db8::1"));
        assert_eq!(client("198.51.100.7:1234"), ip("198.51.100.7"));
        assert_eq!(client(""), ip("10.0.0.2"));
    }
}
