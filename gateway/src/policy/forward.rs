//! What an upstream is told about the client, and what a client may not claim.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

/// `X-Request-Id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who is really asking, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address: the peer's, or what trusted proxies say.
    pub client: IpAddr,
    /// Whether the client spoke https.
    pub https: bool,
    /// A request id that a trusted proxy gave.
    pub request_id: Option<HeaderValue>,
    trusted: bool,
    peer: IpAddr,
}

/// Reads who is asking. `peer` is the other end of the connection; what it claims counts only when it is trusted.
///
/// The client is the last address of `X-Forwarded-For` that is no trusted proxy: what stands before it, anybody may
/// have written.
#[must_use]
pub fn origin(peer: IpAddr, tls: bool, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Origin {
    let peer = peer.to_canonical();
    let is_trusted = |ip: &IpAddr| trusted_proxies.iter().any(|net| net.contains(ip));
    let mut origin = Origin { client: peer, https: tls, request_id: None, trusted: is_trusted(&peer), peer };
    if !origin.trusted {
        return origin;
    }
    let lines: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    for entry in lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|b| *b == b',')) {
        let Some(ip) = std::str::from_utf8(entry).ok().and_then(|text| forwarded_ip(text.trim())) else {
            break;
        };
        origin.client = ip;
        if !is_trusted(&ip) {
            break;
        }
    }
    match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => origin.https = true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => origin.https = false,
        _ => {}
    }
    origin.request_id = headers.get(X_REQUEST_ID).filter(|id| is_request_id(id.as_bytes())).cloned();
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

/// The request headers an upstream gets in place of the client's: to insert, after [`is_forged`] ones are removed.
#[must_use]
pub fn headers(
    origin: &Origin,
    host: Option<&HeaderValue>,
    request_id: &HeaderValue,
    received: &HeaderMap,
) -> Vec<(HeaderName, HeaderValue)> {
    let ip = |ip: IpAddr| HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII");
    let mut forwarded_for = Vec::new();
    if origin.trusted {
        for line in received.get_all(X_FORWARDED_FOR) {
            forwarded_for.extend_from_slice(line.as_bytes());
            forwarded_for.extend_from_slice(b", ");
        }
    }
    forwarded_for.extend_from_slice(origin.peer.to_string().as_bytes());
    let forwarded_for = HeaderValue::from_bytes(&forwarded_for).unwrap_or_else(|_| ip(origin.peer));
    let received_host = origin.trusted.then(|| received.get(X_FORWARDED_HOST)).flatten();
    let mut headers = vec![
        (X_REAL_IP, ip(origin.client)),
        (X_FORWARDED_FOR, forwarded_for),
        (X_FORWARDED_PROTO, HeaderValue::from_static(if origin.https { "https" } else { "http" })),
        (X_REQUEST_ID, request_id.clone()),
    ];
    if let Some(host) = received_host.or(host) {
        headers.push((X_FORWARDED_HOST, host.clone()));
    }
    headers
}

/// Whether a request header claims what only a proxy may say. Those are dropped before ours are set.
///
/// Names are compared with `_` as `-`: CGI, WSGI and their kin read both as one variable.
#[must_use]
pub fn is_forged(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let like = |wanted: &[u8], exact: bool| {
        (name.len() == wanted.len() || !exact && name.len() > wanted.len())
            && name.iter().zip(wanted).all(|(have, want)| have == want || *have == b'_' && *want == b'-')
    };
    like(b"x-forwarded-", false)
        || like(b"x-real-ip", true)
        || like(b"x-request-id", true)
        || like(header::FORWARDED.as_str().as_bytes(), true)
        || like(b"x-original-url", true)
        || like(b"x-rewrite-url", true)
        // httpoxy (CVE-2016-5385): CGI reads it as HTTP_PROXY.
        || like(b"proxy", true)
}

#[cfg(test)]
mod tests {
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

    fn value(headers: &[(HeaderName, HeaderValue)], name: &str) -> String {
        headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().to_owned()).unwrap_or_default()
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
        let host = HeaderValue::from_static("api.test");
        let sent = headers(&origin, Some(&host), &HeaderValue::from_static("fresh"), &received);
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
        assert_eq!(origin.request_id, Some(HeaderValue::from_static("abc-123")));
        let sent = headers(&origin, None, &HeaderValue::from_static("abc-123"), &received);
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
        let sent = headers(&stranger, None, &HeaderValue::from_static("fresh"), &received);
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

    #[test]
    fn forged_names() {
        for name in ["x-forwarded-for", "x_forwarded_for", "x-forwarded_user", "forwarded", "x_real_ip", "proxy"] {
            assert!(is_forged(&name.parse().unwrap()), "{name}");
        }
        for name in ["x-forward", "x-real-ips", "forwarded-x", "proxy-x", "host", "x-request"] {
            assert!(!is_forged(&name.parse().unwrap()), "{name}");
        }
    }
}
