//! Whether a file that parses is also consistent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::addresses::addresses;
use crate::claims::claims;
use crate::headers::security_headers;
use crate::model::{Address, Config, HostPattern, PathPattern, RateKey, RateLimit};
use crate::overlap::{Pattern, witness};
use crate::place::At;
use crate::units::LONGEST;
use crate::{Diagnostic, Route, Severity, is_forged};

/// A route's weights are a table of this many places at most: shares to a hundredth of a percent.
pub const MAX_WEIGHT: u32 = 10_000;

/// Regular expressions of one host that are compared with one another.
const MOST_COMPARED: usize = 64;

/// Backends of a route: with more, its table of shares would have no end.
pub const MOST_BACKENDS: usize = 64;

/// Keys that a rate limit remembers, at 17 bytes each: 272 MiB.
const MOST_KEYS: u32 = 16 << 20;

/// `file` is the configuration's own.
pub(crate) fn validate(config: &Config, file: &Path) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    listeners(config, &mut found);
    addresses(config, &mut found);
    claims(config, file, &mut found);
    admin(config, &mut found);
    for (name, upstream) in &config.upstreams {
        if upstream.servers.is_empty() {
            found.push(Diagnostic::error(format!("upstream {name:?} has no servers")).at(&upstream.span));
        }
        if upstream.max_in_flight == Some(0) {
            found.push(Diagnostic::error(format!("upstream {name:?} lets no request through")).at(&upstream.span));
        }
        if let Some(tls) = &upstream.tls {
            tls.validate(name, upstream, &mut found);
        }
    }
    for (name, limit) in &config.rate_limits {
        rate_limit(name, limit, &mut found);
    }
    for (name, headers) in &config.security_headers {
        security_headers(name, headers, &mut found);
    }
    routes(config, &mut found);
    if let Some(signer) = &config.signer {
        crate::signer::validate(signer, &mut found);
    }
    found
}

/// `name` must be one of `known`; says which names there are when it is not.
pub(crate) fn reference<T>(what: &str, name: &At<String>, known: &BTreeMap<String, T>, found: &mut Vec<Diagnostic>) {
    if known.contains_key(&name.value) {
        return;
    }
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    let help =
        if names.is_empty() { format!("the file has no {what}") } else { format!("there is: {}", names.join(", ")) };
    found.push(
        Diagnostic::error(format!("no {what} is named {:?}", name.value)).at(&name.span).label("not found").help(help),
    );
}

fn admin(config: &Config, found: &mut Vec<Diagnostic>) {
    let listen = &config.admin.listen;
    match (&listen.value, &config.admin.token_file) {
        (Address::Tcp(_), None) => found.push(
            Diagnostic::error("an admin listener on TCP needs a token")
                .at(&listen.span)
                .help("name a token_file beside it, or listen on a Unix socket"),
        ),
        (Address::Tcp(address), Some(_)) if !address.ip().to_canonical().is_loopback() => found.push(
            Diagnostic::warning(format!("{address}: the admin token crosses the network in the clear"))
                .at(&listen.span)
                .help("listen on loopback, or on a network that nobody else is on"),
        ),
        (Address::Unix(_), Some(token)) => found.push(
            Diagnostic::error("a token is for an admin listener on TCP")
                .at(&token.span)
                .label("nobody would be asked for it: the Unix socket is its owner's")
                .help("leave token_file out, or listen on \"127.0.0.1:PORT\""),
        ),
        _ => {}
    }
}

fn rate_limit(name: &str, limit: &At<RateLimit>, found: &mut Vec<Diagnostic>) {
    if let RateKey::Header(header) = &limit.key
        && is_forged(header.as_bytes())
    {
        found.push(
            Diagnostic::error(format!("rate limit {name:?}: clients write into {header:?} what they like"))
                .at(&limit.span)
                .help("write key = \"client-ip\", and name the proxies in front in the listener's trusted_proxies"),
        );
    }
    if limit.max_keys == 0 {
        found.push(Diagnostic::error(format!("rate limit {name:?} remembers no key")).at(&limit.span));
    }
    if limit.max_keys > MOST_KEYS {
        found.push(Diagnostic::error(format!("rate limit {name:?}: max_keys is at most {MOST_KEYS}")).at(&limit.span));
    }
    let at_once = limit.burst.map_or(u128::from(limit.rate.count), |burst| u128::from(burst) + 1);
    // The limiter counts in nanoseconds of 64 bits: this stays far below.
    if limit.rate.per.as_nanos() * at_once / u128::from(limit.rate.count) > LONGEST.as_nanos() {
        found.push(
            Diagnostic::error(format!("rate limit {name:?}: its burst would take more than 366 days to come back"))
                .at(&limit.span),
        );
    }
}

fn listeners(config: &Config, found: &mut Vec<Diagnostic>) {
    for (name, listener) in &config.listeners {
        if listener.bind.is_empty() {
            found.push(Diagnostic::error(format!("listener {name:?} binds no address")).at(&listener.span));
        }
        if let Some(tls) = &listener.tls
            && tls.certificates.is_empty()
        {
            found.push(Diagnostic::error(format!("listener {name:?} has no certificate")).at(&listener.span));
        }
        if listener.limits.head_size.0 < 1024 || listener.limits.head_size.0 > 1 << 20 {
            found.push(
                Diagnostic::error(format!("listener {name:?}: head_size must be from 1KiB to 1MiB")).at(&listener.span),
            );
        }
        if !(1..=200).contains(&listener.limits.header_count) {
            found.push(
                Diagnostic::error(format!("listener {name:?}: header_count must be from 1 to 200")).at(&listener.span),
            );
        }
        if listener.limits.connection_requests == Some(0) {
            found.push(
                Diagnostic::error(format!("listener {name:?}: connection_requests must be at least 1"))
                    .at(&listener.span),
            );
        }
        if listener.limits.connections == 0 {
            found.push(Diagnostic::error(format!("listener {name:?} takes no connection")).at(&listener.span));
        }
        if listener.redirect.is_some() && listener.tls.is_some() {
            found.push(
                Diagnostic::error(format!("listener {name:?} redirects to https, and is https itself"))
                    .at(&listener.span),
            );
        }
        // Peers are compared as IPv4 where they are IPv4, whatever the socket: such a network would never be found.
        for net in listener.trusted_proxies.iter().filter(|net| net.addr().to_canonical() != net.addr()) {
            found.push(
                Diagnostic::error(format!("listener {name:?}: {net} in trusted_proxies is an IPv4 network in IPv6"))
                    .at(&listener.span)
                    .help("write it as IPv4, as in \"10.0.0.0/8\""),
            );
        }
        if let Some(headers) = &listener.security_headers {
            reference("security_headers", headers, &config.security_headers, found);
        }
    }
}

fn routes(config: &Config, found: &mut Vec<Diagnostic>) {
    let mut names = BTreeMap::new();
    let mut claims: BTreeMap<(Option<&HostPattern>, &PathPattern), &Route> = BTreeMap::new();
    for route in &config.routes {
        let name = &route.name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            found.push(Diagnostic::error("a route's name is made of letters, digits, '-', '_' and '.'").at(&name.span));
        }
        if names.insert(name.value.as_str(), ()).is_some() {
            found.push(Diagnostic::error(format!("a second route is named {:?}", name.value)).at(&name.span));
        }
        path(&route.path, found);
        let hosts = route.hosts.iter().map(|host| (Some(&host.value), &host.span));
        let any = route.hosts.is_empty().then_some((None, &name.span));
        for (host, span) in hosts.chain(any) {
            if let Some(other) = claims.insert((host, &route.path.value), route) {
                let host = host.map_or("any host".to_owned(), ToString::to_string);
                found.push(
                    Diagnostic::error(format!("route {:?} is ambiguous", name.value))
                        .at(span)
                        .label(format!("{host}, path {}: so is route {:?}", route.path.value, other.name.value)),
                );
            }
        }
        for limit in &route.rate_limits {
            reference("rate_limits", limit, &config.rate_limits, found);
        }
        if let Some(headers) = &route.security_headers {
            reference("security_headers", headers, &config.security_headers, found);
        }
        backends(config, route, found);
    }
    regexes(config, found);
    // Together only once each can be had by itself.
    if found.iter().all(|d| d.severity == Severity::Warning) {
        regex_sets(config, found);
    }
    let used: BTreeSet<&str> =
        config.routes.iter().flat_map(|r| &r.backends).map(|b| b.upstream.value.as_str()).collect();
    for (name, upstream) in config.upstreams.iter().filter(|(name, _)| !used.contains(name.as_str())) {
        found.push(Diagnostic::warning(format!("no route sends anything to upstream {name:?}")).at(&upstream.span));
    }
    if config.routes.is_empty() && config.listeners.values().any(|l| l.redirect.is_none()) {
        found.push(Diagnostic::warning("there are no routes: every request will be answered 404"));
    }
    if let (Some(route), true) = (config.routes.first(), config.listeners.is_empty()) {
        found.push(Diagnostic::warning("there are routes, and no listeners: no request can come").at(&route.span));
    }
}

/// Two regular expressions of one host that are found in the same path: which route is it?
fn regexes(config: &Config, found: &mut Vec<Diagnostic>) {
    let mut by_host: BTreeMap<Option<&HostPattern>, Vec<(&Route, Pattern)>> = BTreeMap::new();
    for route in &config.routes {
        let PathPattern::Regex(regex) = &route.path.value else { continue };
        let hosts = route.hosts.iter().map(|host| Some(&host.value));
        for host in hosts.chain(route.hosts.is_empty().then_some(None)) {
            let Some(pattern) = Pattern::new(regex) else { continue };
            let others = by_host.entry(host).or_default();
            for (other, theirs) in others.iter().take(MOST_COMPARED).filter(|(other, _)| other.path != route.path) {
                if let Some(path) = witness(theirs, &pattern) {
                    found.push(
                        Diagnostic::error(format!("route {:?} is ambiguous", route.name.value))
                            .at(&route.path.span)
                            .label(format!("{path:?} is also matched by route {:?}", other.name.value))
                            .help("narrow one of the two regular expressions"),
                    );
                }
            }
            others.push((route, pattern));
        }
    }
}

/// The regular expressions of a host are compiled into one, which must not be too large, either.
fn regex_sets(config: &Config, found: &mut Vec<Diagnostic>) {
    let mut by_host: BTreeMap<Option<&HostPattern>, Vec<(&At<PathPattern>, &str)>> = BTreeMap::new();
    for route in &config.routes {
        let PathPattern::Regex(regex) = &route.path.value else { continue };
        let hosts = route.hosts.iter().map(|host| Some(&host.value));
        for host in hosts.chain(route.hosts.is_empty().then_some(None)) {
            by_host.entry(host).or_default().push((&route.path, regex));
        }
    }
    for (host, patterns) in by_host {
        if let (Err(_), Some((last, _))) =
            (regex::RegexSet::new(patterns.iter().map(|(_, regex)| regex)), patterns.last())
        {
            let host = host.map_or("any host".to_owned(), ToString::to_string);
            found.push(
                Diagnostic::error(format!("the regular expressions of {host} are too large together"))
                    .at(&last.span)
                    .help("write large repetitions and character classes smaller, or use prefixes"),
            );
        }
    }
}

fn path(path: &At<PathPattern>, found: &mut Vec<Diagnostic>) {
    match &path.value {
        PathPattern::Regex(regex) => {
            if let Err(error) = regex::Regex::new(regex) {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                found.push(Diagnostic::error("not a regular expression").at(&path.span).label(why));
            }
        }
        PathPattern::Prefix(text) | PathPattern::Exact(text) => {
            if let Some((why, help)) = unmatchable(text) {
                found.push(Diagnostic::error("no request would match this path").at(&path.span).label(why).help(help));
            }
        }
    }
}

/// What keeps a path from being one that requests are matched by: percent-decoded, and without what servers read in
/// more than one way.
fn unmatchable(path: &str) -> Option<(&'static str, &'static str)> {
    let wrong = if !path.starts_with('/') {
        ("a path begins with '/'", "write a '/' before it")
    } else if path.contains("//") {
        ("it has '//'", "runs of slashes are matched as one: write one")
    } else if path.split('/').any(|segment| segment == "." || segment == "..") {
        ("it has a '.' or '..' segment", "such requests are refused: write the path that is meant")
    } else if path.contains('%') {
        ("it has a '%'", "paths are matched percent-decoded: write the character itself")
    } else if path.contains('\\') {
        ("it has a '\\'", "some servers read it as '/': write '/'")
    } else if path.contains(';') {
        ("it has a ';'", "some servers cut off what follows: such requests are refused here")
    } else if path.contains(['?', '#']) {
        ("it has a '?' or '#'", "a path ends there: queries are not matched")
    } else if !path.is_ascii() || path.bytes().any(|b| b.is_ascii_control()) {
        ("it has a character that is not visible ASCII", "match it with a regular expression")
    } else {
        return None;
    };
    Some(wrong)
}

fn backends(config: &Config, route: &Route, found: &mut Vec<Diagnostic>) {
    let name = &route.name;
    if route.backends.is_empty() {
        found.push(Diagnostic::error(format!("route {:?} has no backends", name.value)).at(&name.span));
        return;
    }
    if route.backends.len() > MOST_BACKENDS {
        found.push(
            Diagnostic::error(format!("route {:?} has more than {MOST_BACKENDS} backends", name.value)).at(&name.span),
        );
    }
    let mut seen = BTreeSet::new();
    for backend in &route.backends {
        reference("upstreams", &backend.upstream, &config.upstreams, found);
        if !seen.insert(&backend.upstream.value) {
            found.push(
                Diagnostic::error(format!("route {:?} names {:?} twice", name.value, backend.upstream.value))
                    .at(&backend.upstream.span),
            );
        }
        if backend.weight > MAX_WEIGHT {
            found.push(Diagnostic::error(format!("a weight is at most {MAX_WEIGHT}")).at(&backend.span));
        }
    }
    if route.backends.iter().all(|backend| backend.weight == 0) {
        found.push(
            Diagnostic::error(format!("route {:?} sends nothing anywhere: all its weights are 0", name.value))
                .at(&route.backends[0].span),
        );
    }
}
