//! A response's head, as a server behind us sent it: what two clients could read in two ways is not passed on.
//!
//! pingora has read the head by then, more leniently than requests are read: lines that end in a bare LF, folded lines,
//! and a `Content-Length` beside a `Transfer-Encoding`, which it takes off, cannot be seen here any more.

use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};

/// Why a response is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// 101: HTTP/2 has no such thing (RFC 9113, 8.6).
    #[error("the server switches to a protocol that nobody asked for")]
    Unasked,
    /// `Content-Length` is malformed or doubled.
    #[error("the response's Content-Length is malformed or doubled")]
    ContentLength,
    /// A transfer coding other than chunked alone, or any in 1.0.
    #[error("the response's transfer coding is not supported")]
    TransferCoding,
    /// A status that has no body comes with one.
    #[error("the response has a body where there is none")]
    Body,
}

/// Judges a response's head.
///
/// # Errors
/// Why it is not passed on; the connection it came by cannot be used any further.
pub fn check(version: Version, status: StatusCode, headers: &HeaderMap) -> Result<(), BadResponse> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(BadResponse::Unasked);
    }
    let length = only(headers, &header::CONTENT_LENGTH).map_err(|()| BadResponse::ContentLength)?;
    if length.is_some_and(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
        return Err(BadResponse::ContentLength);
    }
    let coding = only(headers, &header::TRANSFER_ENCODING).map_err(|()| BadResponse::TransferCoding)?;
    if coding.is_some_and(|coding| version < Version::HTTP_11 || !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(BadResponse::TransferCoding);
    }
    // RFC 9112, 6.1 and RFC 9110, 8.6. A length of zero is common, and means what it says.
    let bare = status.is_informational() || status == StatusCode::NO_CONTENT;
    if bare && (coding.is_some() || length.is_some_and(|length| length.iter().any(|digit| *digit != b'0'))) {
        return Err(BadResponse::Body);
    }
    Ok(())
}

/// The value of a field that may be there once.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let value = values.next();
    if values.next().is_some() { Err(()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Version, status: u16, lines: &[(&'static str, &str)]) -> Result<(), BadResponse> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        check(version, StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn responses() {
        use BadResponse::*;
        const LENGTH: &str = "content-length";
        const CODING: &str = "transfer-encoding";
        let new = |status: u16, lines: &[(&'static str, &str)]| read(Version::HTTP_11, status, lines);
        assert_eq!(new(200, &[]), Ok(()));
        assert_eq!(new(200, &[(LENGTH, "5")]), Ok(()));
        assert_eq!(new(200, &[(CODING, "Chunked")]), Ok(()));
        assert_eq!(new(204, &[(LENGTH, "0")]), Ok(()));
        // What a body would have had.
        assert_eq!(new(304, &[(LENGTH, "5")]), Ok(()));
        assert_eq!(new(304, &[(CODING, "chunked")]), Ok(()));
        assert_eq!(new(101, &[]), Err(Unasked));
        for length in ["", "+5", "5, 5", "5 5", "0x5", "-1"] {
            assert_eq!(new(200, &[(LENGTH, length)]), Err(ContentLength), "{length:?}");
        }
        assert_eq!(new(200, &[(LENGTH, "5"), (LENGTH, "5")]), Err(ContentLength));
        for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            assert_eq!(new(200, &[(CODING, coding)]), Err(TransferCoding), "{coding:?}");
        }
        assert_eq!(new(200, &[(CODING, "chunked"), (CODING, "chunked")]), Err(TransferCoding));
        assert_eq!(read(Version::HTTP_10, 200, &[(CODING, "chunked")]), Err(TransferCoding));
        for status in [100, 103, 204] {
            assert_eq!(new(status, &[(LENGTH, "5")]), Err(Body), "{status}");
            assert_eq!(new(status, &[(CODING, "chunked")]), Err(Body), "{status}");
        }
    }
}
