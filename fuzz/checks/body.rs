//! Chunked bodies, against a decoder that is as plain as can be, and against hyper.

use keygate_gateway::http1::body::Body;
use keygate_gateway::http1::head::Framing;

use super::{NEXT, hyper};

/// What we accept as a chunked body, others accept with the same content and the same end.
///
/// # Panics
/// When they do not.
pub fn chunked_body(data: &[u8]) {
    let mut body = Body::new(Framing::Chunked);
    let mut content = Vec::new();
    let read = body.advance_with(data, |part| content.extend_from_slice(part));
    in_pieces(data, &read, &content, body.is_done());
    let Ok(end) = read else { return };
    assert_eq!(body.content(), content.len() as u64);
    if !body.is_done() {
        assert_eq!(end, data.len(), "bytes are left of a body that has not ended");
        return;
    }
    assert_eq!(decode(data), Some((content.clone(), end)), "the plain decoder");
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let seen = hyper::requests(&[head, &data[..end], NEXT].concat());
    let targets: Vec<_> = seen.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/", "/next"], "requests that hyper sees");
    assert_eq!(seen[0].body.as_deref(), Some(content.as_slice()), "the content that hyper sees");
}

/// However it is cut, it is the same.
fn in_pieces(data: &[u8], whole: &Result<usize, impl PartialEq>, content: &[u8], done: bool) {
    let size = data.first().map_or(1, |first| usize::from(*first % 7) + 1);
    let (mut body, mut taken, mut seen) = (Body::new(Framing::Chunked), 0, Vec::new());
    for piece in data.chunks(size) {
        match body.advance_with(piece, |part| seen.extend_from_slice(part)) {
            Ok(n) => taken += n,
            Err(_) => {
                assert!(whole.is_err(), "refused in pieces only");
                return;
            }
        }
    }
    assert!(whole.as_ref().is_ok_and(|end| *end == taken), "accepted in pieces only");
    assert_eq!((seen.as_slice(), body.is_done()), (content, done));
}

/// The content, and where the body ends. Lenient where RFC 9112, 7.1 allows it.
fn decode(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&data[at..]) else { return None };
        at += line;
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 4096];
            let parsed = httparse::parse_headers(&data[at..], &mut trailers);
            let Ok(httparse::Status::Complete((end, trailers))) = parsed else { return None };
            let frames = |name: &str| ["content-length", "transfer-encoding", "host"].contains(&name);
            assert!(!trailers.iter().any(|trailer| frames(&trailer.name.to_ascii_lowercase())), "a trailer frames");
            return Some((content, at + end));
        }
        let size = usize::try_from(size).ok()?;
        content.extend_from_slice(data.get(at..at.checked_add(size)?)?);
        at += size;
        at += data[at..].starts_with(b"\r\n").then_some(2)?;
    }
}
