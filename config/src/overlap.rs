//! Whether two regular expressions can both be found in one path.

use std::collections::{HashMap, VecDeque};

use regex_automata::dfa::Automaton;
use regex_automata::dfa::dense::{Builder, Config, DFA};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

/// Automata larger than this, in bytes, are not compared.
const SIZE_LIMIT: usize = 1 << 20;
/// Pairs of states looked at before giving up.
const MOST_PAIRS: usize = 50_000;

/// A regular expression, ready to be compared.
pub(crate) struct Pattern(DFA<Vec<u32>>);

/// Where an automaton is; `None` once it has matched, whatever follows.
type Place = Option<StateID>;

impl Pattern {
    /// `None` when it does not compile, or its automaton is too large.
    pub(crate) fn new(regex: &str) -> Option<Self> {
        let limits = Config::new()
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(SIZE_LIMIT))
            .determinize_size_limit(Some(SIZE_LIMIT));
        Builder::new().configure(limits).build(regex).ok().map(Self)
    }

    fn start(&self) -> Option<StateID> {
        self.0.start_state(&start::Config::new().anchored(Anchored::No)).ok()
    }

    fn step(&self, place: Place, byte: u8) -> Place {
        let next = self.0.next_state(place?, byte);
        (!self.0.is_match_state(next)).then_some(next)
    }

    /// Whether it has matched when the path ends here.
    fn ends(&self, place: Place) -> bool {
        place.is_none_or(|state| self.0.is_match_state(self.0.next_eoi_state(state)))
    }
}

/// Where both are.
type Pair = (Place, Place);

/// The shortest path that both are found in, if there is one that can be found in reasonable time.
pub(crate) fn witness(a: &Pattern, b: &Pattern) -> Option<String> {
    let begin: Pair = (Some(a.start()?), Some(b.start()?));
    // A path begins with a slash, and holds what RFC 3986 lets it hold.
    let slash = (a.step(begin.0, b'/'), b.step(begin.1, b'/'));
    let mut came_from: HashMap<Pair, Option<(Pair, u8)>> = HashMap::from([(slash, None)]);
    let mut queue = VecDeque::from([slash]);
    while let Some(pair) = queue.pop_front() {
        if a.ends(pair.0) && b.ends(pair.1) {
            let mut path = Vec::new();
            let mut at = pair;
            while let Some((before, byte)) = came_from[&at] {
                path.push(byte);
                at = before;
            }
            path.push(b'/');
            path.reverse();
            return String::from_utf8(path).ok();
        }
        if came_from.len() > MOST_PAIRS {
            return None;
        }
        // Letters first: a witness shall be readable.
        for byte in (b'a'..=b'z').chain(b'0'..=b'9').chain(b'!'..=b'~').filter(|byte| !b"?#%".contains(byte)) {
            let next = (a.step(pair.0, byte), b.step(pair.1, byte));
            let dead = |p: &Pattern, place: Place| place.is_some_and(|state| p.0.is_dead_state(state));
            if !dead(a, next.0) && !dead(b, next.1) && !came_from.contains_key(&next) {
                came_from.insert(next, Some((pair, byte)));
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(a: &str, b: &str) -> Option<String> {
        witness(&Pattern::new(a).unwrap(), &Pattern::new(b).unwrap())
    }

    #[test]
    fn overlaps_are_found_with_a_path_that_shows_them() {
        for (a, b) in [
            ("^/v[0-9]+/", "^/v1/users$"),
            ("\\.php$", "^/admin"),
            ("/a", "/b"),
            ("^/x$", "^/x$"),
            ("^/(a|b)c$", "^/(b|d)c$"),
        ] {
            let path = both(a, b).unwrap_or_else(|| panic!("{a} and {b} overlap"));
            for regex in [a, b] {
                assert!(regex::Regex::new(regex).unwrap().is_match(&path), "{regex} is found in {path}");
            }
        }
    }

    #[test]
    fn what_does_not_overlap_is_let_be() {
        for (a, b) in [("^/v1/", "^/v2/"), ("^/a$", "^/a/"), ("^/[0-9]+$", "^/[a-z]+$"), ("^x", "^/")] {
            assert_eq!(both(a, b), None, "{a} and {b}");
        }
    }
}
