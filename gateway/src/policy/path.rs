//! The path a request is matched by.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `.` or `..`, plain or percent-encoded: what it means depends on who resolves it.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `%` without two hex digits behind it.
    #[error("the path has a malformed percent-encoding")]
    Escape,
    /// A NUL, which some servers end the path at.
    #[error("the path has an encoded NUL")]
    Nul,
}

/// The path as routes see it: percent-decoded, runs of slashes made one. The path that is forwarded stays as it came.
///
/// Servers differ in whether `%2F` or `//` is a separator; here both are, so that a route's policy holds however the
/// server behind it reads the path. Bytes that are not UTF-8 are matched as U+FFFD.
///
/// # Errors
/// When servers would disagree about what the path names.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let decoded = if path.contains('%') { Cow::Owned(decode(path)?) } else { Cow::Borrowed(path) };
    let mut doubled = false;
    let mut first = true;
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "." | ".." => return Err(BadPath::DotSegment),
            "" if !first => doubled = true,
            _ => {}
        }
        first = false;
    }
    // A path that ends in one slash has an empty last segment too: only a run of slashes needs work.
    if !doubled || !decoded.contains("//") {
        return Ok(decoded);
    }
    let mut merged = String::with_capacity(decoded.len());
    for c in decoded.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    Ok(Cow::Owned(merged))
}

fn decode(path: &str) -> Result<String, BadPath> {
    let nibble = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16)).ok_or(BadPath::Escape);
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let value = nibble(bytes.next())? << 4 | nibble(bytes.next())?;
        match value {
            0 => return Err(BadPath::Nul),
            value => decoded.push(value as u8),
        }
    }
    Ok(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let ok = |path: &str| canonical(path).map(Cow::into_owned);
        assert_eq!(ok("/"), Ok("/".into()));
        assert_eq!(ok("/a/b/"), Ok("/a/b/".into()));
        assert_eq!(ok("//a///b"), Ok("/a/b".into()));
        assert_eq!(ok("/%61pi%2Fx"), Ok("/api/x".into()));
        assert_eq!(ok("/a%20b"), Ok("/a b".into()));
        assert_eq!(ok("/..a/b.."), Ok("/..a/b..".into()));
        for path in ["/a/../b", "/..", "/.", "/a/./b", "/%2e%2E/b", "/a%2f..%2fb", "/a\\..\\b", "/a%5c..%5cb"] {
            assert_eq!(ok(path), Err(BadPath::DotSegment), "{path}");
        }
        for path in ["/%", "/%4", "/%zz"] {
            assert_eq!(ok(path), Err(BadPath::Escape), "{path}");
        }
        assert_eq!(ok("/a%00"), Err(BadPath::Nul));
    }
}
