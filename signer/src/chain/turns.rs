//! Which transactions a pass looks at: those of which little is to be learnt come seldom, and hold up no other. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ledger::Reservation;

/// So many are searched for in one pass: a search is some twenty questions.
const SEARCHES: usize = 4;

/// What a look may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may be sent, mined or final any time.
    Open,
    /// Others of its sender come first, and no block has them: it is only seen whether a pool still has it.
    Behind,
    /// Its nonce is used for good, and it has not come to its end: what has used it is to be searched for.
    Used,
}

/// When they were looked at last: while they are under way, and of the same kind.
#[derive(Debug, Default)]
pub(crate) struct Turns(HashMap<Reservation, (Kind, Option<Instant>)>);

impl Turns {
    /// Those whose turn it is, by their places, and whether they may be searched for. What is not [`Kind::Open`] comes once,
    /// and then again after each `pause`.
    pub(crate) fn next(
        &mut self,
        under_way: &[(Reservation, Kind)],
        pause: Duration,
        now: Instant,
    ) -> Vec<(usize, bool)> {
        let kinds: HashMap<_, _> = under_way.iter().copied().collect();
        self.0.retain(|reservation, (kind, _)| kinds.get(reservation) == Some(kind));
        let (mut turns, mut searches) = (Vec::new(), Vec::new());
        for (place, (reservation, kind)) in under_way.iter().enumerate() {
            let last = self.0.get(reservation).map(|(_, last)| *last);
            match (kind, last) {
                (Kind::Open, _) => turns.push((place, false)),
                (_, Some(Some(last))) if now.saturating_duration_since(last) < pause => {}
                (Kind::Behind, _) => {
                    self.0.insert(*reservation, (*kind, Some(now)));
                    turns.push((place, false));
                }
                // Its receipt may tell, without a search.
                (Kind::Used, None) => {
                    self.0.insert(*reservation, (*kind, None));
                    turns.push((place, false));
                }
                (Kind::Used, Some(last)) => searches.push((last, place)),
            }
        }
        // Those that were not searched for yet, and then those of long ago.
        searches.sort_unstable();
        for (_, place) in searches.into_iter().take(SEARCHES) {
            let (reservation, kind) = under_way[place];
            self.0.insert(reservation, (kind, Some(now)));
            turns.push((place, true));
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn the_rest_comes_first_and_few_are_searched_for() {
        let (start, mut turns) = (Instant::now(), Turns::default());
        let mut at = |seconds, all: &[(i64, Kind)]| {
            let all: Vec<_> = all.iter().map(|(id, kind)| (Reservation(*id), *kind)).collect();
            turns.next(&all, PAUSE, start + Duration::from_secs(seconds))
        };
        let look = |places: std::ops::Range<usize>| places.map(|place| (place, false)).collect::<Vec<_>>();
        let search = |places: std::ops::Range<usize>| places.map(|place| (place, true)).collect::<Vec<_>>();
        // Ten that are used; each is looked at once, and then searched for in its turn.
        let mut all: Vec<_> = (0..10).map(|id| (id, Kind::Used)).collect();
        assert_eq!(at(0, &all), look(0..10));
        assert_eq!(at(2, &all), search(0..4));
        // What is open comes each time, and before them.
        all.push((10, Kind::Open));
        all.push((11, Kind::Behind));
        assert_eq!(at(4, &all), [look(10..12), search(4..8)].concat());
        assert_eq!(at(6, &all), [look(10..11), search(8..10)].concat());
        assert_eq!(at(31, &all), look(10..11));
        assert_eq!(at(33, &all), [look(10..11), search(0..4)].concat());
        assert_eq!(at(34, &all), [look(10..12), search(4..8)].concat());
        // Its turn has come: at once. As well as what a reorganisation takes back, and what is used then.
        (all[11].1, all[0].1) = (Kind::Open, Kind::Open);
        assert_eq!(at(35, &all), [look(0..1), look(10..12)].concat());
        all[0].1 = Kind::Used;
        assert_eq!(at(36, &all), [look(0..1), look(10..12), search(8..10)].concat());
        // Of what has ended, nothing is kept.
        assert!(at(37, &[]).is_empty() && turns.0.is_empty());
    }
}
