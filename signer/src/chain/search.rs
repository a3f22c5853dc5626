//! By what a nonce was used: the block that used it, found by how many transactions its sender had at blocks. Pure: it
//! says what to ask, and is told the answers.

/// Full nodes answer for the state of the last 128 blocks; they are asked for some while the head moves on.
const KEPT: u64 = 120;

/// A search for the block at which the sender's count passed a nonce.
///
/// Each answer halves what is left, once a block is found at which the nonce was not used. Beyond what full nodes keep,
/// others may know: each look is twice as far as the one before. So it ends after as many answers as a block's number has
/// bits, twice over, whatever it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    nonce: u64,
    /// The nonce was used at this block.
    used: u64,
    /// It was not at this one, which comes before.
    free: Option<u64>,
    /// While there is none: where to look, and how far the next look is from there.
    low: u64,
    stride: u64,
}

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// How many transactions the sender had at this block.
    Count(u64),
    /// The transactions of this block: it is the one, and the search is over.
    Block(u64),
    /// Nothing more: there is no such block.
    Nothing,
}

impl Search {
    /// For a `nonce` that was used at the block `used`, when the chain's head is there.
    #[must_use]
    pub fn new(nonce: u64, used: u64, head: u64) -> Self {
        let low = head.saturating_sub(KEPT).min(used.saturating_sub(1));
        Self { nonce, used, free: None, low, stride: KEPT }
    }

    /// What to ask next.
    #[must_use]
    pub fn ask(&self) -> Ask {
        match self.free {
            None if self.used == 0 => Ask::Nothing,
            None => Ask::Count(self.low),
            Some(free) if free + 1 >= self.used => Ask::Block(self.used),
            Some(free) => Ask::Count(free + (self.used - free) / 2),
        }
    }

    /// So many transactions the sender had at the block that was asked for.
    #[must_use]
    pub fn told(self, block: u64, count: u64) -> Self {
        match (count > self.nonce, self.free) {
            (false, _) => Self { free: Some(block), ..self },
            (true, Some(_)) => Self { used: block, ..self },
            (true, None) => {
                let low = block.saturating_sub(self.stride);
                Self { used: block, low, stride: self.stride.saturating_mul(2), ..self }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The end of a search among such counts, and what was asked for it.
    fn search(nonce: u64, used: u64, head: u64, count: impl Fn(u64) -> u64) -> (Ask, BTreeMap<u64, u64>) {
        let (mut search, mut asked) = (Search::new(nonce, used, head), BTreeMap::new());
        for _ in 0..130 {
            let Ask::Count(block) = search.ask() else { return (search.ask(), asked) };
            asked.insert(block, count(block));
            search = search.told(block, count(block));
        }
        panic!("it does not end: {search:?}");
    }

    #[test]
    fn what_full_nodes_keep_is_asked_first_and_little_of_it() {
        // Used in block 990, of which the chain is sure.
        let (found, asked) = search(5, 995, 1000, |block| if block < 990 { 5 } else { 6 });
        assert_eq!(found, Ask::Block(990));
        assert!(asked.len() <= 8 && asked.keys().all(|block| *block >= 880), "{asked:?}");
        // Long before that: further and further back.
        let (found, asked) = search(5, 99_995, 100_000, |block| if block < 60_000 { 5 } else { 6 });
        assert_eq!(found, Ask::Block(60_000));
        assert!(asked.len() <= 30, "{asked:?}");
        assert_eq!(search(5, 995, 1000, |_| 6).0, Ask::Nothing);
        assert_eq!(search(5, 0, 0, |_| 6).0, Ask::Nothing);
        assert_eq!(search(0, 1, 1, |block| block).0, Ask::Block(1));
    }

    proptest! {
        #[test]
        fn it_finds_the_block(at in 1..5000u64, later in 0..5000u64, sure in 0..5000u64) {
            let used = at + later;
            let count = |block| if block < at { 7 } else { 8 };
            prop_assert_eq!(search(7, used, used + sure, count).0, Ask::Block(at));
        }

        /// Whatever it is told: it ends, and where it does, it was told that the nonce was used there and not before.
        #[test]
        fn it_ends_where_it_was_told(used: u64, ahead in 0..200u64, seed: u64, bias in 1..8u64) {
            let count = |block: u64| u64::from((block ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56 < bias * 32);
            let (end, asked) = search(0, used, used.saturating_add(ahead), count);
            match end {
                Ask::Block(block) => {
                    prop_assert!(block == used || asked[&block] == 1);
                    prop_assert_eq!(asked[&(block - 1)], 0);
                }
                Ask::Nothing => prop_assert!(asked.values().all(|count| *count == 1)),
                Ask::Count(_) => prop_assert!(false),
            }
        }
    }
}
