//! What keeps web pages out. A browser on this machine, or with a certificate for it, makes requests in the name of
//! whatever page it shows.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, http::HeaderMap};

use super::listen::Peer;
use super::problem::Problem;
use super::request::{answer, request_id};

/// The same routes, but for browsers.
pub(crate) fn without_pages(router: Router) -> Router {
    router.layer(from_fn(async |request: Request, next: Next| -> Response {
        let refused = request.extensions().get::<Peer>().and_then(|peer| refuse(peer, request.headers()));
        match refused {
            Some(why) => answer(&request_id(), Err(Problem::from_a_page(why))),
            None => next.run(request).await,
        }
    }))
}

/// Why a request may come from a page, over TCP.
///
/// A page of another origin that sends more than a form names its origin (Fetch, "Origin header"). One whose own name
/// leads here (DNS rebinding) has this for its origin, and asks for that name.
fn refuse(peer: &Peer, headers: &HeaderMap) -> Option<&'static str> {
    match peer {
        Peer::Unix { .. } => None,
        _ if headers.contains_key(header::ORIGIN) => Some("the request has an Origin header, as pages' requests have"),
        Peer::Tls(_) => None,
        Peer::Http => {
            let mut hosts = headers.get_all(header::HOST).iter();
            let host = hosts.next().and_then(|host| host.to_str().ok()).filter(|_| hosts.next().is_none());
            (!host.is_some_and(is_own)).then_some("the Host header must be an IP address or localhost, and there once")
        }
    }
}

/// Whether a `Host` is a name that nobody else can have lead here.
fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    !host.contains('@') && (name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(peer: &Peer, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        refuse(peer, &map).is_some()
    }

    #[test]
    fn plain_http_is_for_addresses_and_localhost() {
        for host in ["127.0.0.1", "127.0.0.1:9545", "[::1]:9545", "[::1]", "localhost", "LOCALHOST:9545"] {
            assert!(!refused(&Peer::Http, &[("host", host)]), "{host}");
        }
        for host in
            ["", "evil.test", "evil.test:9545", "localhost.evil.test", "127.0.0.1.evil.test", "a@127.0.0.1", "::1"]
        {
            assert!(refused(&Peer::Http, &[("host", host)]), "{host}");
        }
        assert!(refused(&Peer::Http, &[]));
        assert!(refused(&Peer::Http, &[("host", "localhost"), ("host", "localhost")]));
    }

    #[test]
    fn an_origin_is_refused_over_tcp() {
        for origin in ["null", "https://evil.test", "http://127.0.0.1:9545"] {
            let headers = [("host", "127.0.0.1"), ("origin", origin)];
            assert!(refused(&Peer::Http, &headers) && refused(&Peer::Tls(None), &headers), "{origin}");
            assert!(!refused(&Peer::Unix { uid: 0 }, &headers));
        }
        assert!(!refused(&Peer::Tls(None), &[("host", "signer.test")]));
    }
}
