//! The path a request is matched by.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `.` or `..`, plain or percent-encoded, with parameters or without: what it means depends on who resolves it.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `%` without two hex digits behind it.
    #[error("the path has a malformed percent-encoding")]
    Escape,
    /// A control character: a NUL, which some servers end the path at, a line's end, and their like.
    #[error("the path has an encoded control character")]
    Control,
    /// `\`, which some servers take for `/`.
    #[error("the path has a backslash")]
    Backslash,
    /// What is encoded is no UTF-8: an overlong `/` is a slash to some servers.
    #[error("the path is not UTF-8")]
    Utf8,
    /// Encoded twice, and decoded twice it has a separator, a control character, or an encoding still.
    #[error("the path is encoded more than once")]
    Twice,
    /// The ways servers read the path lead to different routes.
    #[error("the path can be read in two ways")]
    Ambiguous,
}

/// A path in every way that a server behind us may read it.
///
/// The first is the canonical one: percent-decoded, runs of slashes made one. `%2F` is a separator there, so that a
/// route's policy holds for servers that take it for one. Where the path has parameters (`/admin;v=1`), some servers
/// cut them off, before decoding or after; where it is encoded twice, some decode it twice. A request is served only
/// when all of these take the same route: [`BadPath::Ambiguous`] otherwise. The path that is forwarded stays as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'a> {
    canonical: Cow<'a, str>,
    others: Vec<String>,
}

impl<'a> Readings<'a> {
    /// Reads a path, without its query.
    ///
    /// # Errors
    /// When servers would disagree about what the path names, whatever the routes.
    pub fn new(path: &'a str) -> Result<Self, BadPath> {
        let canonical = canonical(path)?;
        let twice = if canonical.contains('%') { decode_again(&canonical)? } else { None };
        let mut others = Vec::new();
        if canonical.contains(';') {
            // Both together have more readings than anybody who means well needs.
            if twice.is_some() {
                return Err(BadPath::Twice);
            }
            let before = without_parameters(path);
            let before = self::canonical(&before)?;
            for bare in [without_parameters(&canonical), without_parameters(&before)] {
                others.push(resolve(Cow::Owned(bare))?.into_owned());
            }
            others.push(before.into_owned());
        }
        if let Some(twice) = twice {
            others.push(resolve(Cow::Owned(twice))?.into_owned());
        }
        Ok(Self { canonical, others })
    }

    /// What `find` finds for all readings: one and the same.
    ///
    /// # Errors
    /// [`BadPath::Ambiguous`] when it is not.
    pub fn agree<'r, T>(&self, find: impl Fn(&str) -> Option<&'r T>) -> Result<Option<&'r T>, BadPath> {
        let found = find(&self.canonical);
        let place = |found: Option<&'r T>| found.map(std::ptr::from_ref);
        let agree = self.others.iter().all(|other| place(find(other)) == place(found));
        if agree { Ok(found) } else { Err(BadPath::Ambiguous) }
    }
}

/// The canonical form of a path: percent-decoded once, runs of slashes made one.
///
/// # Errors
/// When servers would disagree about what the path names.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    resolve(if path.contains('%') { Cow::Owned(decode(path)?) } else { Cow::Borrowed(path) })
}

/// Refuses what no decoded path may have, and merges runs of slashes.
fn resolve(decoded: Cow<'_, str>) -> Result<Cow<'_, str>, BadPath> {
    for byte in decoded.bytes() {
        match byte {
            b'\\' => return Err(BadPath::Backslash),
            byte if byte.is_ascii_control() => return Err(BadPath::Control),
            _ => {}
        }
    }
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(BadPath::DotSegment);
    }
    if !decoded.contains("//") {
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

/// The byte that is encoded at the start of `text`.
fn escape(text: &[u8]) -> Option<u8> {
    let nibble = |n: usize| text.get(n).and_then(|b| char::from(*b).to_digit(16));
    (text.first() == Some(&b'%')).then(|| nibble(1).zip(nibble(2)))?.map(|(high, low)| (high << 4 | low) as u8)
}

fn decode(path: &str) -> Result<String, BadPath> {
    let mut rest = path.as_bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = rest.first() {
        let encoded = *byte == b'%';
        decoded.push(if encoded { escape(rest).ok_or(BadPath::Escape)? } else { *byte });
        rest = &rest[if encoded { 3 } else { 1 }..];
    }
    String::from_utf8(decoded).map_err(|_| BadPath::Utf8)
}

/// What a server that decodes twice makes of a path that was decoded once; `None` when that changes nothing.
fn decode_again(decoded: &str) -> Result<Option<String>, BadPath> {
    let mut rest = decoded.as_bytes();
    let mut again = Vec::with_capacity(rest.len());
    while let Some(byte) = rest.first() {
        match escape(rest) {
            Some(b'/' | b'\\' | b';' | b'%') => return Err(BadPath::Twice),
            Some(control) if control.is_ascii_control() => return Err(BadPath::Twice),
            Some(byte) => again.push(byte),
            // Decoded once, a path may have a percent sign of its own.
            None => again.push(*byte),
        }
        rest = &rest[if escape(rest).is_some() { 3 } else { 1 }..];
    }
    if again.len() == decoded.len() {
        return Ok(None);
    }
    String::from_utf8(again).map(Some).map_err(|_| BadPath::Utf8)
}

/// The path without what follows a `;` in each segment.
fn without_parameters(path: &str) -> String {
    let bare = |segment: &'_ str| segment.split(';').next().unwrap_or_default().to_owned();
    path.split('/').map(bare).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        let ok = |path: &str| canonical(path).map(Cow::into_owned);
        assert_eq!(ok("/"), Ok("/".into()));
        assert_eq!(ok("/a/b/"), Ok("/a/b/".into()));
        assert_eq!(ok("//a///b"), Ok("/a/b".into()));
        assert_eq!(ok("/%61pi%2Fx"), Ok("/api/x".into()));
        assert_eq!(ok("/a%20b"), Ok("/a b".into()));
        assert_eq!(ok("/J%C3%B6rg"), Ok("/J\u{f6}rg".into()));
        assert_eq!(ok("/..a/b../..."), Ok("/..a/b../...".into()));
        assert_eq!(ok("/100%25"), Ok("/100%".into()));
    }

    #[test]
    fn what_servers_resolve_in_their_own_way_is_refused() {
        use BadPath::*;
        for (path, why) in [
            ("/a/../b", DotSegment),
            ("/..", DotSegment),
            ("/.", DotSegment),
            ("/a/./b", DotSegment),
            ("/%2e%2E/b", DotSegment),
            ("/a%2f..%2fb", DotSegment),
            // Parameters, as Tomcat and Jetty have them.
            ("/api/..;/admin", DotSegment),
            ("/api/..;x=1/admin", DotSegment),
            ("/api/.;x", DotSegment),
            ("/api/..%3B/admin", DotSegment),
            ("/api/%2e%2e;/admin", DotSegment),
            ("/a\\..\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/..%5C", Backslash),
            ("/%", Escape),
            ("/%4", Escape),
            ("/%zz", Escape),
            ("/%u002e", Escape),
            ("/a%00", Control),
            ("/a%0d%0ab", Control),
            ("/%7f", Control),
            ("/%c0%ae%c0%ae/b", Utf8),
            ("/a%c0%afb", Utf8),
            ("/caf%e9", Utf8),
            ("/%ed%a0%80", Utf8),
            // Decoded twice, `..`, `/`, `\`, `;`, NUL, and what would be decoded a third time.
            ("/%252e%252e/b", DotSegment),
            ("/%252e./b", DotSegment),
            ("/a%252fb", Twice),
            ("/a%255cb", Twice),
            ("/..%253b/b", Twice),
            ("/a%2500", Twice),
            ("/a%25252e", Twice),
            ("/a%25c0%25ae", Utf8),
            ("/a;x/%2561", Twice),
        ] {
            assert_eq!(Readings::new(path), Err(why), "{path}");
        }
    }

    #[test]
    fn parameters_and_double_encoding_pass_where_they_change_no_route() {
        const ROUTES: [&str; 3] = ["/admin", "/app", "/"];
        let route = |path: &str| Readings::new(path)?.agree(|path| ROUTES.iter().find(|route| under(path, route)));
        for path in ["/app/x;jsessionid=1", "/app/x;v=1/y;w", "/x;y", "/app/%2541", "/app/100%25", "/app/100%25zz"] {
            assert_eq!(route(path), Ok(Some(&if path.starts_with("/app") { "/app" } else { "/" })), "{path}");
        }
        for path in
            ["/admin;x/", "/;/admin", "/;x=1/admin/y", "/admin%3B", "/%2561dmin", "/app;%2Fadmin", "/app%3Bx/;y"]
        {
            assert_eq!(route(path), Err(BadPath::Ambiguous), "{path}");
        }
    }

    /// Whether a path is `prefix`, or below it.
    fn under(path: &str, prefix: &str) -> bool {
        path.strip_prefix(prefix.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How an origin may read a path: parameters cut off before it decodes, how often it decodes, parameters cut off
    /// after that; then `\` as `/`, runs of slashes as one, and dot segments resolved.
    #[derive(Debug, Clone, Copy)]
    struct Server {
        cut_before: bool,
        decodes: u8,
        cut_after: bool,
        encoded_slash: bool,
    }

    impl Server {
        fn resolve(self, path: &str) -> String {
            let mut path = if self.cut_before { without_parameters(path) } else { path.to_owned() };
            for _ in 0..self.decodes {
                let kept = if self.encoded_slash { path.clone() } else { path.replace("%2F", "%252F") };
                path = lossy(&kept);
            }
            if self.cut_after {
                path = without_parameters(&path);
            }
            let mut resolved: Vec<&str> = Vec::new();
            for segment in path.split(['/', '\\']) {
                match segment {
                    "" | "." => {}
                    ".." => _ = resolved.pop(),
                    segment => resolved.push(segment),
                }
            }
            format!("/{}", resolved.join("/"))
        }
    }

    /// Decodes what can be decoded, as lenient servers do.
    fn lossy(path: &str) -> String {
        let mut rest = path.as_bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = rest.first() {
            let encoded = escape(rest);
            decoded.push(encoded.unwrap_or(*byte));
            rest = &rest[if encoded.is_some() { 3 } else { 1 }..];
        }
        String::from_utf8_lossy(&decoded).into_owned()
    }

    fn servers(encoded_slash: bool) -> impl Iterator<Item = Server> {
        let each = [false, true];
        (0..=2).flat_map(move |decodes| {
            each.into_iter().flat_map(move |cut_before| {
                each.map(|cut_after| Server { cut_before, decodes, cut_after, encoded_slash })
            })
        })
    }

    fn tricky() -> impl Strategy<Value = String> {
        const PARTS: [&str; 26] = [
            "/",
            "/",
            "/",
            "admin",
            "public",
            "x",
            ".",
            "..",
            ";",
            "\\",
            "%",
            "%61dmin",
            "%2e",
            "%2F",
            "%5C",
            "%3B",
            "%25",
            "%2561dmin",
            "%252e",
            "%252F",
            "%253B",
            "%00",
            "%C3%B6",
            "%c0%ae",
            "%c0%af",
            "\u{f6}",
        ];
        prop::collection::vec(prop::sample::select(&PARTS[..]), 0..9).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 50_000, ..ProptestConfig::default() })]

        #[test]
        fn the_canonical_path_is_one(path in tricky()) {
            let Ok(canonical) = super::canonical(&path) else { return Ok(()) };
            prop_assert!(!canonical.contains("//") && !canonical.contains('\\'), "{canonical}");
            prop_assert!(!canonical.split('/').any(|segment| [".", ".."].contains(&segment)), "{canonical}");
            prop_assert!(!canonical.chars().any(|c| c.is_ascii_control()), "{canonical}");
            // Encoded anew, it is the same path.
            let again = canonical.replace('%', "%25");
            prop_assert_eq!(super::canonical(&again), Ok(canonical.clone()));
        }

        #[test]
        fn nobody_slips_past_a_more_specific_route(path in tricky()) {
            const EXACT: &str = "/admin";
            const PREFIXES: [&str; 3] = ["/admin/x", "/public", "/"];
            let find = |path: &str| match path.trim_end_matches('/') {
                EXACT => Some(&EXACT),
                _ => PREFIXES.iter().find(|prefix| under(path, prefix)),
            };
            let Ok(route) = Readings::new(&path).and_then(|path| path.agree(find)) else { return Ok(()) };
            for server in servers(true).filter(|server| server.decodes > 0) {
                let resolved = server.resolve(&path);
                prop_assert!(find(&resolved) == route, "{server:?}: {resolved}");
            }
        }

        #[test]
        fn nobody_slips_past_it_where_an_encoded_slash_is_none(path in tricky()) {
            const PREFIXES: [&str; 2] = ["/admin", "/"];
            let find = |path: &str| PREFIXES.iter().find(|prefix| under(path, prefix));
            let Ok(route) = Readings::new(&path).and_then(|path| path.agree(find)) else { return Ok(()) };
            for server in servers(false) {
                let resolved = server.resolve(&path);
                prop_assert!(!under(&resolved, "/admin") || route == Some(&"/admin"), "{server:?}: {resolved}");
            }
        }
    }
}
