//! The headers every answer carries, and those it must not.

use http::{HeaderName, HeaderValue, header};
use keygate_config::{Cookies, Preset, SameSite, SecurityHeaders};

/// Edits to an answer's headers, worked out once for a snapshot.
#[derive(Debug, Clone, Default)]
pub struct HeaderPolicy {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    cookies: Option<Cookies>,
    /// What is set over http and over https, as header lines.
    lines: [Vec<u8>; 2],
}

/// For pages. OWASP Secure Headers Project and MDN, 2026; HSTS for two years as its preload list asks.
const STRICT: &[(&str, &str)] = &[
    ("strict-transport-security", "max-age=63072000; includeSubDomains"),
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// For APIs: what is answered is data, and no browser may make a page of it. OWASP REST Security Cheat Sheet.
const API: &[(&str, &str)] = &[
    ("strict-transport-security", "max-age=63072000; includeSubDomains"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The five that hardening guides have had nginx add for years.
const LEGACY: &[(&str, &str)] = &[
    ("x-frame-options", "SAMEORIGIN"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("content-security-policy", "default-src 'self'"),
];

impl HeaderPolicy {
    /// The policy as the file describes it. Names and values have been validated.
    #[must_use]
    pub fn new(config: &SecurityHeaders) -> Self {
        let preset = match config.preset {
            Some(Preset::Strict) => STRICT,
            Some(Preset::Api) => API,
            Some(Preset::Legacy) => LEGACY,
            None => &[],
        };
        let remove: Vec<HeaderName> = config.remove.iter().filter_map(|name| name.parse().ok()).collect();
        let mut set: Vec<(HeaderName, HeaderValue)> = preset
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .filter(|(name, _)| !remove.contains(name))
            .collect();
        for (name, value) in &config.set {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
                continue;
            };
            match set.iter_mut().find(|(other, _)| *other == name) {
                Some(place) => place.1 = value,
                None => set.push((name, value)),
            }
        }
        let mut policy = Self { set, remove, cookies: config.cookies, lines: Default::default() };
        policy.lines = [false, true].map(|https| {
            let line = |(name, value): (&HeaderName, &HeaderValue)| {
                [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()
            };
            policy.set(https).flat_map(line).collect()
        });
        policy
    }

    /// Headers to take off an answer.
    #[must_use]
    pub fn removed(&self) -> &[HeaderName] {
        &self.remove
    }

    /// Headers to set on an answer, in place of the upstream's. HSTS goes out over https only (RFC 6797, 7.2).
    pub fn set(&self, https: bool) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.set
            .iter()
            .filter(move |(name, _)| https || *name != header::STRICT_TRANSPORT_SECURITY)
            .map(|(name, value)| (name, value))
    }

    /// As [`Self::set`], as header lines of HTTP/1.
    #[must_use]
    pub fn lines(&self, https: bool) -> &[u8] {
        &self.lines[usize::from(https)]
    }

    /// Whether an upstream's header of this name is taken off, or gives way to one that is set.
    #[must_use]
    pub fn replaces(&self, name: &[u8], https: bool) -> bool {
        let is = |other: &HeaderName| other.as_str().as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(is) || self.set(https).any(|(other, _)| is(other))
    }

    /// A `Set-Cookie` value with the attributes that it must carry and does not (RFC 6265bis), or `None` when it has
    /// them all.
    #[must_use]
    pub fn cookie(&self, value: &[u8]) -> Option<Vec<u8>> {
        let wanted = self.cookies?;
        let has = |wanted: &[u8]| {
            value.split(|b| *b == b';').skip(1).any(|attribute| {
                let name = attribute.split(|b| *b == b'=').next().unwrap_or_default();
                name.trim_ascii().eq_ignore_ascii_case(wanted)
            })
        };
        let mut added = Vec::new();
        if wanted.secure && !has(b"secure") {
            added.push("; Secure");
        }
        if wanted.http_only && !has(b"httponly") {
            added.push("; HttpOnly");
        }
        if let Some(same_site) = wanted.same_site
            && !has(b"samesite")
        {
            added.push(match same_site {
                SameSite::Strict => "; SameSite=Strict",
                SameSite::Lax => "; SameSite=Lax",
                SameSite::None => "; SameSite=None",
            });
        }
        (!added.is_empty()).then(|| [value, added.concat().as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(toml: &str) -> HeaderPolicy {
        let source =
            keygate_config::Source { path: "keygate.toml".into(), text: format!("[security_headers.x]\n{toml}") };
        HeaderPolicy::new(&keygate_config::parse(source).unwrap().config.security_headers["x"])
    }

    fn set(policy: &HeaderPolicy, https: bool) -> Vec<String> {
        policy.set(https).map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn legacy_is_exactly_the_five() {
        let policy = policy("preset = \"legacy\"");
        assert_eq!(
            set(&policy, true),
            [
                "x-frame-options: SAMEORIGIN",
                "x-content-type-options: nosniff",
                "x-xss-protection: 1; mode=block",
                "strict-transport-security: max-age=31536000; includeSubDomains",
                "content-security-policy: default-src 'self'",
            ]
        );
        assert_eq!(policy.removed(), ["server", "x-powered-by"]);
        assert_eq!(set(&policy, false).len(), 4, "no HSTS over plain HTTP");
        for https in [false, true] {
            let lines = set(&policy, https).iter().map(|line| format!("{line}\r\n")).collect::<String>();
            assert_eq!(policy.lines(https), lines.as_bytes());
            assert_eq!(policy.replaces(b"Strict-Transport-Security", https), https);
            assert!(policy.replaces(b"Server", https) && policy.replaces(b"X-Frame-Options", https));
            assert!(!policy.replaces(b"x-frame-option", https));
        }
    }

    #[test]
    fn a_preset_can_be_overridden_added_to_and_taken_from() {
        let policy = policy(
            "preset = \"api\"\nset = { \"X-Frame-Options\" = \"SAMEORIGIN\", \"x-new\" = \"1\" }\nremove = [\"Referrer-Policy\"]",
        );
        let set = set(&policy, true);
        assert!(set.contains(&"x-frame-options: SAMEORIGIN".into()));
        assert!(set.contains(&"x-new: 1".into()));
        assert!(!set.iter().any(|header| header.starts_with("referrer-policy")));
        assert_eq!(policy.removed(), ["referrer-policy"]);
    }

    #[test]
    fn cookies_gain_what_they_lack() {
        let policy = policy("cookies = { secure = true, http_only = true, same_site = \"lax\" }");
        let cookie = |value: &str| policy.cookie(value.as_bytes()).map(|v| String::from_utf8(v).unwrap());
        assert_eq!(cookie("a=b").as_deref(), Some("a=b; Secure; HttpOnly; SameSite=Lax"));
        assert_eq!(cookie("a=b; path=/; SECURE").as_deref(), Some("a=b; path=/; SECURE; HttpOnly; SameSite=Lax"));
        assert_eq!(cookie("a=b; samesite=None; secure; httponly"), None);
        assert_eq!(
            cookie("secure=1; HttpOnly; SameSite=Strict").as_deref(),
            Some("secure=1; HttpOnly; SameSite=Strict; Secure")
        );
    }
}
