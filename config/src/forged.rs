//! Request headers that only a proxy may say.

/// Whether a request header claims what only a proxy may say. The gateway drops those before it
/// sets its own, and nothing is decided by them.
///
/// Names are compared with `_` as `-`: CGI, WSGI and their kin read both as one variable.
#[must_use]
pub fn is_forged(name: &[u8]) -> bool {
    // Most names are told apart by their first letter.
    if !matches!(name.first(), Some(b'x' | b'X' | b'f' | b'F' | b'p' | b'P')) {
        return false;
    }
    let like = |wanted: &[u8], exact: bool| {
        (name.len() == wanted.len() || !exact && name.len() > wanted.len())
            && name
                .iter()
                .zip(wanted)
                .all(|(have, want)| have.eq_ignore_ascii_case(want) || *have == b'_' && *want == b'-')
    };
    like(b"x-forwarded-", false)
        || like(b"x-real-ip", true)
        || like(b"x-request-id", true)
        || like(b"forwarded", true)
        || like(b"x-original-url", true)
        || like(b"x-rewrite-url", true)
        // httpoxy (CVE-2016-5385): CGI reads it as HTTP_PROXY.
        || like(b"proxy", true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_names() {
        for name in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_user",
            "forwarded",
            "x_real_ip",
            "proxy",
            "X-Forwarded-For",
        ] {
            assert!(is_forged(name.as_bytes()), "{name}");
        }
        for name in ["x-forward", "x-real-ips", "forwarded-x", "proxy-x", "host", "x-request"] {
            assert!(!is_forged(name.as_bytes()), "{name}");
        }
    }
}
