//! Response heads, against httparse and hyper.

use keygate_gateway::http1::body::Body;
use keygate_gateway::http1::head;
use keygate_gateway::http1::response::{self, Framing, ResponseHead};

use super::{LIMITS, agree_on_headers, headers, hyper, number, values};

/// What we accept as a response's head, httparse and hyper accept with the same meaning. The first byte says whether it
/// answers a HEAD.
///
/// # Panics
/// When they do not.
pub fn response_head(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let (to_head, mut fields) = (*first == b'H', Vec::new());
    let Ok(Some(head)) = response::parse(data, LIMITS, to_head, &mut fields) else { return };
    let bytes = &data[..head.len];
    let mut buffer = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Response::new(&mut buffer);
    assert_eq!(theirs.parse(bytes), Ok(httparse::Status::Complete(head.len)), "httparse refuses it");
    assert_eq!(theirs.version, Some(u8::from(!head.http10)));
    assert_eq!(theirs.code, Some(head.status));
    // httparse shows no phrase that is not ASCII.
    let reason = &bytes[head.reason.clone()];
    assert_eq!(theirs.reason.map(str::as_bytes), Some(if reason.is_ascii() { reason } else { b"" }));
    agree_on_headers(bytes, &fields, theirs.headers);
    assert_eq!(head.framing, framing(&head, theirs.headers, to_head), "framing");
    for cut in [1, 2, 3, head.len / 2, head.len / 3] {
        let part = response::parse(&bytes[..head.len.saturating_sub(cut)], LIMITS, to_head, &mut Vec::new());
        assert_eq!(part, Ok(None), "without its last {cut} bytes");
    }
    let ours = headers(fields.iter().map(|field| (field.name(bytes), field.value(bytes))));
    as_hyper_reads_it(data, &head, ours, to_head);
}

/// The framing that RFC 9112, 6.3 wants, when nothing ambiguous is accepted.
fn framing(head: &ResponseHead, headers: &[httparse::Header<'_>], to_head: bool) -> Framing {
    let length = match (values(headers, "transfer-encoding").as_slice(), values(headers, "content-length").as_slice()) {
        ([], []) => Framing::UntilClose,
        ([], [length]) => Framing::Length(number(length)),
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && !head.http10 => Framing::Chunked,
        both => panic!("ambiguous: {both:?}"),
    };
    match head.status {
        100..200 | 204 => {
            assert!(matches!(length, Framing::UntilClose | Framing::Length(0)), "a body where none may be");
            Framing::Length(0)
        }
        304 => Framing::Length(0),
        _ if to_head => Framing::Length(0),
        _ => length,
    }
}

fn as_hyper_reads_it(data: &[u8], head: &ResponseHead, ours: super::Headers, to_head: bool) {
    // hyper passes over interim answers.
    if head.status < 200 {
        return;
    }
    let rest = &data[head.len..];
    let mut content = Vec::new();
    let framed = match head.framing {
        Framing::Length(length) => Some(head::Framing::Length(length)),
        Framing::Chunked => Some(head::Framing::Chunked),
        Framing::UntilClose => None,
    };
    let whole = match framed.map(Body::new) {
        Some(mut body) => body.advance_with(rest, |part| content.extend_from_slice(part)).is_ok() && body.is_done(),
        None => {
            content.extend_from_slice(rest);
            true
        }
    };
    let answer = hyper::answer(data.to_vec(), to_head).expect("hyper refuses it");
    assert_eq!((answer.status, answer.headers), (head.status, ours));
    if whole {
        assert_eq!(answer.body, Some(content), "its body");
    }
}
