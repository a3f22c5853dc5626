//! Which route a request takes: host first, then path, most specific first, whatever the order in the file.

use std::collections::HashMap;

use keygate_config::{HostPattern, PathPattern};
use regex::RegexSet;

/// Finds the route of a host and a path. Routes are numbers here: places in the snapshot's list.
///
/// Hosts: an exact name, then wildcards from the longest, then routes for any host. Paths within a host: exact, then
/// regular expressions, then the longest prefix. When a host has no route for the path, the next less specific host
/// is asked, so a route for any host can serve one path of them all.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

#[derive(Debug)]
struct Paths {
    exact: HashMap<String, usize>,
    prefix: HashMap<String, usize>,
    patterns: Vec<(String, usize)>,
    regexes: RegexSet,
}

impl Default for Paths {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefix: HashMap::new(), patterns: Vec::new(), regexes: RegexSet::empty() }
    }
}

impl Router {
    /// A router of these routes: hosts (none: any host), path, and what `find` shall answer.
    ///
    /// # Errors
    /// A regular expression that does not compile; validation has refused it before.
    pub fn new<'a>(
        routes: impl IntoIterator<Item = (Vec<&'a HostPattern>, &'a PathPattern, usize)>,
    ) -> Result<Self, regex::Error> {
        let mut router = Self::default();
        for (hosts, path, route) in routes {
            if hosts.is_empty() {
                router.any.add(path, route);
            }
            for host in hosts {
                let paths = match host {
                    HostPattern::Exact(name) => router.exact.entry(name.clone()),
                    HostPattern::Wildcard(name) => router.wildcard.entry(name.clone()),
                };
                paths.or_default().add(path, route);
            }
        }
        for paths in router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]) {
            paths.compile()?;
        }
        Ok(router)
    }

    /// The route of a host (lower case, without port) and a canonical path (without query).
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        if let Some(route) = self.exact.get(host).and_then(|paths| paths.find(path)) {
            return Some(route);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(route) = self.wildcard.get(parent).and_then(|paths| paths.find(path)) {
                    return Some(route);
                }
                rest = parent;
            }
        }
        self.any.find(path)
    }
}

impl Paths {
    fn add(&mut self, path: &PathPattern, route: usize) {
        match path {
            PathPattern::Exact(path) => _ = self.exact.insert(path.clone(), route),
            PathPattern::Prefix(path) => _ = self.prefix.insert(path.trim_end_matches('/').to_owned(), route),
            PathPattern::Regex(regex) => self.patterns.push((regex.clone(), route)),
        }
    }

    fn compile(&mut self) -> Result<(), regex::Error> {
        // The longest pattern first: which of two wins never depends on the file's order.
        self.patterns.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.regexes = RegexSet::new(self.patterns.iter().map(|(pattern, _)| pattern))?;
        Ok(())
    }

    fn find(&self, path: &str) -> Option<usize> {
        if let Some(route) = self.exact.get(path) {
            return Some(*route);
        }
        if !self.patterns.is_empty()
            && let Some(first) = self.regexes.matches(path).iter().next()
        {
            return Some(self.patterns[first].1);
        }
        if self.prefix.is_empty() {
            return None;
        }
        // "/a/b/c" asks for "/a/b/c", "/a/b", "/a", "".
        let mut rest = path.trim_end_matches('/');
        loop {
            if let Some(route) = self.prefix.get(rest) {
                return Some(*route);
            }
            rest = &rest[..rest.rfind('/')?];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> HostPattern {
        match text.strip_prefix("*.") {
            Some(name) => HostPattern::Wildcard(name.into()),
            None => HostPattern::Exact(text.into()),
        }
    }

    fn path(text: &str) -> PathPattern {
        match text.split_once(' ') {
            Some(("=", path)) => PathPattern::Exact(path.into()),
            Some(("~", regex)) => PathPattern::Regex(regex.into()),
            _ => PathPattern::Prefix(text.into()),
        }
    }

    const ROUTES: [(&str, &str); 9] = [
        ("", "/health"),
        ("api.test", "/"),
        ("api.test", "/v1"),
        ("api.test", "/v1/users"),
        ("api.test", "= /v1"),
        ("api.test", "~ ^/v[0-9]+/search$"),
        ("*.test", "/"),
        ("*.deep.test", "/"),
        ("*.deep.test", "/v1/"),
    ];

    fn router(order: impl Iterator<Item = usize>) -> Router {
        let routes: Vec<_> = order
            .map(|n| {
                let (h, p) = ROUTES[n];
                ((!h.is_empty()).then(|| host(h)), path(p), n)
            })
            .collect();
        Router::new(routes.iter().map(|(h, p, n)| (h.iter().collect(), p, *n))).unwrap()
    }

    fn answers(router: &Router) -> Vec<Option<usize>> {
        [
            ("api.test", "/"),
            ("api.test", "/v1"),
            ("api.test", "/v1/"),
            ("api.test", "/v1/users/7"),
            ("api.test", "/v1users"),
            ("api.test", "/v2/search"),
            ("api.test", "/v1/search"),
            ("other.test", "/v1"),
            ("a.b.deep.test", "/x"),
            ("a.deep.test", "/v1/x"),
            ("deep.test", "/v1/x"),
            ("test", "/x"),
            ("test", "/health/live"),
            ("nowhere", "/healthy"),
            ("", "/health"),
        ]
        .map(|(host, path)| router.find(host, path))
        .to_vec()
    }

    #[test]
    fn most_specific_first() {
        let expected = [
            Some(1),
            Some(4),
            Some(2),
            Some(3),
            Some(1),
            Some(5),
            Some(5),
            Some(6),
            Some(7),
            Some(8),
            Some(6),
            None,
            Some(0),
            None,
            Some(0),
        ];
        assert_eq!(answers(&router(0..ROUTES.len())), expected);
    }

    proptest! {
        #[test]
        fn the_order_in_the_file_does_not_matter(order in Just((0..ROUTES.len()).collect::<Vec<_>>()).prop_shuffle()) {
            prop_assert_eq!(answers(&router(order.into_iter())), answers(&router(0..ROUTES.len())));
        }
    }
}
