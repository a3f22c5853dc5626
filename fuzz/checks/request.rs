//! Request heads, against httparse and hyper.

use keygate_gateway::http1::head::{self, Framing, Head};

use super::{LIMITS, NEXT, agree_on_headers, headers, hyper, number, values};

/// What we accept as a request's head, httparse and hyper accept with the same meaning.
///
/// # Panics
/// When they do not.
pub fn request_head(data: &[u8]) {
    let mut fields = Vec::new();
    let Ok(Some(head)) = head::parse(data, LIMITS, &mut fields) else { return };
    let bytes = &data[..head.len];
    let mut buffer = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Request::new(&mut buffer);
    assert_eq!(theirs.parse(bytes), Ok(httparse::Status::Complete(head.len)), "httparse refuses it");
    assert_eq!(theirs.method.map(str::as_bytes), Some(&bytes[head.method.clone()]));
    assert_eq!(theirs.path.map(str::as_bytes), Some(&bytes[head.target.clone()]));
    assert_eq!(theirs.version, Some(u8::from(!head.http10)));
    agree_on_headers(bytes, &fields, theirs.headers);
    assert_eq!(head.framing, framing(theirs.headers, head.http10), "framing");
    let hosts = values(theirs.headers, "host");
    assert!(hosts.len() == 1 || head.http10 && hosts.is_empty(), "one host");
    assert!(!bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'), "a bare LF");
    assert!(!bytes.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n'), "a bare CR");
    in_pieces(bytes, &head);
    as_hyper_reads_it(bytes, &head);
}

/// The framing that RFC 9112, 6.3 wants, when nothing ambiguous is accepted.
fn framing(headers: &[httparse::Header<'_>], http10: bool) -> Framing {
    match (values(headers, "transfer-encoding").as_slice(), values(headers, "content-length").as_slice()) {
        ([], []) => Framing::Length(0),
        ([], [length]) => Framing::Length(number(length)),
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && !http10 => Framing::Chunked,
        both => panic!("ambiguous: {both:?}"),
    }
}

/// A part of a head is no head, nor refused.
fn in_pieces(bytes: &[u8], head: &Head) {
    for cut in [1, 2, 3, head.len / 2, head.len / 3] {
        let part = head::parse(&bytes[..head.len.saturating_sub(cut)], LIMITS, &mut Vec::new());
        assert_eq!(part, Ok(None), "without its last {cut} bytes");
    }
}

fn as_hyper_reads_it(bytes: &[u8], head: &Head) {
    let body: &[u8] = match head.framing {
        Framing::Length(length) => &vec![b'x'; usize::try_from(length.min(1000)).unwrap_or(0)],
        Framing::Chunked => b"3\r\nxxx\r\n0\r\n\r\n",
    };
    let content = if head.framing == Framing::Chunked { b"xxx" } else { body };
    let seen = hyper::requests(&[bytes, body, NEXT].concat());
    let first = seen.first().expect("hyper refuses it");
    assert_eq!(first.method.as_bytes(), &bytes[head.method.clone()]);
    let mut fields = Vec::new();
    let _ = head::parse(bytes, LIMITS, &mut fields);
    assert_eq!(first.headers, headers(fields.iter().map(|field| (field.name(bytes), field.value(bytes)))));
    if first.method == "CONNECT" {
        return;
    }
    assert_eq!(first.target.as_bytes(), &bytes[head.path()]);
    if matches!(head.framing, Framing::Length(1001..)) {
        return;
    }
    assert_eq!(first.body.as_deref(), Some(content), "its body");
    // Where the connection goes on, it goes on with the next request.
    let ends = head.http10 || first.headers.iter().any(|(name, _)| name == b"connection");
    let after: Vec<_> = seen[1..].iter().map(|request| request.target.as_str()).collect();
    assert!(after == ["/next"] || ends && after.is_empty(), "what follows: {after:?}");
}
