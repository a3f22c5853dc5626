//! What must hold for any bytes: keygate's parsers are never more lenient than others, and mean the same.
//!
//! The fuzzers call this, and the gateway's tests, with the corpora.

mod body;
mod hyper;
mod request;
mod response;
mod rewrite;

pub use body::chunked_body;
pub use request::request_head;
pub use response::response_head;
pub use rewrite::rewritten_head;

use keygate_gateway::http1::fields::Field;
use keygate_gateway::http1::head::Limits;

/// What a head may be: enough for anything, small enough to be reached.
const LIMITS: Limits = Limits { size: 8 << 10, headers: 64 };
/// A request that follows, to see where others believe that the one before it ends.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// Names, in lower case, and values, sorted: as parsers with a map of headers know them.
type Headers = Vec<(Vec<u8>, Vec<u8>)>;

fn headers<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Headers {
    let mut headers: Headers = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    headers.sort();
    headers
}

/// That httparse finds the same names and values in the same order.
fn agree_on_headers(head: &[u8], fields: &[Field], theirs: &[httparse::Header<'_>]) {
    let ours: Vec<_> = fields.iter().map(|field| (field.name(head), field.value(head))).collect();
    let theirs: Vec<_> = theirs.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
    assert_eq!(ours, theirs, "names and values");
}

/// The values of a header, as httparse reads them.
fn values<'a>(headers: &[httparse::Header<'a>], name: &str) -> Vec<&'a [u8]> {
    headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect()
}

/// A length as the strictest would have it.
fn number(value: &[u8]) -> u64 {
    assert!(value.iter().all(u8::is_ascii_digit), "a length is digits");
    std::str::from_utf8(value).expect("digits").parse().expect("a length is a number")
}
