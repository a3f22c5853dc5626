//! Who is next: callers take turns, whatever each has waiting.

use std::collections::VecDeque;

/// A queue of so many at most, in which callers take turns (round robin), and each caller's own are served in order.
///
/// One caller cannot fill it for others either: who comes when it is full, and has fewer waiting than somebody else,
/// takes the place of the last of whoever has most.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Those who have something waiting, the next one first.
    callers: VecDeque<Caller<T>>,
    length: usize,
    bound: usize,
    tickets: u64,
}

#[derive(Debug)]
struct Caller<T> {
    name: String,
    waiting: VecDeque<(u64, T)>,
}

/// What came of joining a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined<T> {
    /// A place, under this ticket.
    Place(u64),
    /// The same, and somebody lost theirs.
    InPlaceOf(u64, T),
    /// None: it is full.
    Full,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        Self { callers: VecDeque::new(), length: 0, bound, tickets: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn join(&mut self, name: &str, item: T) -> Joined<T> {
        let mut lost = None;
        if self.length >= self.bound {
            let own = self.callers.iter().find(|caller| caller.name == name).map_or(0, |caller| caller.waiting.len());
            let most = self.callers.iter_mut().max_by_key(|caller| caller.waiting.len());
            let Some(most) = most.filter(|most| most.waiting.len() > own + 1) else { return Joined::Full };
            // Never its only one.
            lost = most.waiting.pop_back();
            self.length -= 1;
        }
        self.tickets += 1;
        let waiting = (self.tickets, item);
        match self.callers.iter_mut().find(|caller| caller.name == name) {
            Some(caller) => caller.waiting.push_back(waiting),
            None => self.callers.push_back(Caller { name: name.to_owned(), waiting: [waiting].into() }),
        }
        self.length += 1;
        match lost {
            None => Joined::Place(self.tickets),
            Some((_, lost)) => Joined::InPlaceOf(self.tickets, lost),
        }
    }

    /// Takes the next out of it.
    pub(super) fn next(&mut self) -> Option<T> {
        let mut caller = self.callers.pop_front()?;
        let (_, item) = caller.waiting.pop_front()?;
        self.length -= 1;
        if !caller.waiting.is_empty() {
            self.callers.push_back(caller);
        }
        Some(item)
    }

    /// Gives a place back, if it is still had.
    pub(super) fn leave(&mut self, name: &str, ticket: u64) {
        let Some(at) = self.callers.iter().position(|caller| caller.name == name) else { return };
        let waiting = &mut self.callers[at].waiting;
        let before = waiting.len();
        waiting.retain(|(other, _)| *other != ticket);
        self.length -= before - waiting.len();
        if waiting.is_empty() {
            self.callers.remove(at);
        }
    }

    /// How many would be served before one that this caller adds now, if nobody else came.
    pub(super) fn ahead_of(&self, name: &str) -> usize {
        let at = self.callers.iter().position(|caller| caller.name == name);
        let own = at.map_or(0, |at| self.callers[at].waiting.len());
        let turns = self.callers.iter().enumerate().map(|(n, caller)| {
            // In the round of the new one, those come before whose turn is sooner.
            let rounds = own + usize::from(at.is_none_or(|at| n < at));
            caller.waiting.len().min(rounds)
        });
        turns.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all<T>(mut queue: Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn callers_take_turns() {
        let mut queue = Queue::new(100);
        for item in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            queue.join(&item[..1], item);
        }
        assert_eq!((queue.ahead_of("a"), queue.ahead_of("b"), queue.ahead_of("new")), (6, 4, 3));
        assert_eq!(all(queue), ["a1", "b1", "c1", "a2", "c2", "a3"]);
    }

    #[test]
    fn a_flood_keeps_nobody_out() {
        let mut queue = Queue::new(4);
        for n in 0..4 {
            assert!(matches!(queue.join("flood", n), Joined::Place(_)));
        }
        assert_eq!(queue.join("flood", 4), Joined::Full);
        // The last of the flood makes way, while it has more than who comes.
        assert!(matches!(queue.join("a", 10), Joined::InPlaceOf(_, 3)));
        assert!(matches!(queue.join("b", 20), Joined::InPlaceOf(_, 2)));
        assert_eq!(queue.join("a", 11), Joined::Full);
        assert_eq!(queue.len(), 4);
        assert_eq!(all(queue), [0, 10, 20, 1]);
    }

    #[test]
    fn a_place_can_be_given_back() {
        let mut queue = Queue::new(4);
        let Joined::Place(one) = queue.join("a", 1) else { panic!() };
        let Joined::Place(two) = queue.join("a", 2) else { panic!() };
        queue.leave("a", one);
        queue.leave("a", one);
        queue.leave("b", two);
        assert_eq!(queue.len(), 1);
        queue.leave("a", two);
        assert_eq!((queue.len(), queue.callers.len()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Join(u8),
        Next,
        Leave(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0u8..5).prop_map(Event::Join),
            2 => Just(Event::Next),
            1 => any::<prop::sample::Index>().prop_map(|index| Event::Leave(index.index(64))),
        ]
    }

    proptest! {
        /// Whatever happens: it is as long as it says and within its bound, each caller's own are in order, what is
        /// foretold of a place is true, and nobody is served twice before another who waits is served once.
        #[test]
        fn it_is_fair_and_counts_right(events in prop::collection::vec(event(), 0..120), bound in 1usize..20) {
            let mut queue = Queue::new(bound);
            let mut places: Vec<(String, u64)> = Vec::new();
            for (n, event) in events.into_iter().enumerate() {
                match event {
                    Event::Join(caller) => {
                        let name = caller.to_string();
                        let (full, ahead) = (queue.len() == bound, queue.ahead_of(&name));
                        let ticket = match queue.join(&name, (name.clone(), n)) {
                            Joined::Place(ticket) => ticket,
                            Joined::InPlaceOf(ticket, (other, _)) => {
                                prop_assert!(full && other != name);
                                ticket
                            }
                            Joined::Full => { prop_assert!(full); continue }
                        };
                        places.push((name, ticket));
                        if !full {
                            let order: Vec<_> = copy(&queue);
                            prop_assert_eq!(order.iter().position(|(_, m)| *m == n), Some(ahead));
                        }
                    }
                    Event::Next => { queue.next(); }
                    Event::Leave(n) => if let Some((name, ticket)) = places.get(n) { queue.leave(name, *ticket) }
                }
                let order = copy(&queue);
                prop_assert!(queue.len() == order.len() && queue.len() <= bound);
                for (i, (name, n)) in order.iter().enumerate() {
                    let again = order[i + 1..].iter().position(|(other, _)| other == name);
                    if let Some(again) = again {
                        prop_assert!(order[i + 1 + again].1 > *n);
                        let between = &order[i + 1..=i + again];
                        for (other, _) in &order[i + 1 + again..] {
                            prop_assert!(other == name || between.iter().any(|(served, _)| served == other));
                        }
                    }
                }
            }
        }
    }

    fn copy(queue: &Queue<(String, usize)>) -> Vec<(String, usize)> {
        let callers =
            queue.callers.iter().map(|caller| Caller { name: caller.name.clone(), waiting: caller.waiting.clone() });
        all(Queue { callers: callers.collect(), length: queue.length, bound: queue.bound, tickets: 0 })
    }
}
