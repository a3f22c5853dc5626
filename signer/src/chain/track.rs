//! What to do about a transaction that was sent. Pure: given what is stored, what the chain says and the time, it answers.
//!
//! Nothing is remembered but when it was sent: what a block had, and has no longer after a reorganisation, is a
//! transaction that was sent, and nothing else.

use std::time::{Duration, SystemTime};

use alloy_primitives::B256;

use super::node::Receipt;

/// When a chain's transactions are sent again, are stuck, are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// So many blocks, its own among them, make a transaction final. At least 1.
    pub confirmations: u64,
    /// What no pool and no block has is sent again after this time.
    pub rebroadcast: Duration,
    /// What no block has after this time is stuck.
    pub stuck_after: Duration,
}

/// Full nodes answer for the state of the last 128 blocks.
const STATE_KEPT: u64 = 96;

impl Settings {
    /// The block, by the head's number, at which the sender's transactions are counted to see that a nonce is used for
    /// good ([`Seen::settled_count`]): as deep as is final, or as full nodes remember.
    #[must_use]
    pub fn settled_block(&self, head: u64) -> u64 {
        head.saturating_sub(self.confirmations.clamp(1, STATE_KEPT) - 1)
    }
}

/// What is stored of a transaction that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// The sender's nonce.
    pub nonce: u64,
    /// When it was sent first.
    pub first_sent: SystemTime,
    /// When it was sent last.
    pub last_sent: SystemTime,
}

/// What the chain says. To be asked in the order of the fields, so that what happens meanwhile is seen by the later ones:
/// a transaction that is mined between two answers must not look replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The latest block's number.
    pub head: u64,
    /// How many transactions of the sender there were at [`Settings::settled_block`].
    pub settled_count: u64,
    /// How many there are in the latest block.
    pub latest_count: u64,
    /// Whether the node has the transaction, in its pool or in a block.
    pub known: bool,
    /// Its receipt, if a block has it.
    pub receipt: Option<Receipt>,
    /// What was seen to have used its nonce for good. To be looked for when [`Step::Seek`] says so.
    pub user: User,
}

/// What has used a transaction's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Nobody has looked.
    Unsought,
    /// It was looked for, and cannot be seen.
    Unseen,
    /// The transaction itself: a block has it, though the node has no receipt of it.
    Itself {
        /// The block's number.
        block: u64,
    },
    /// Another one, with this hash.
    Another(B256),
}

/// Where it is, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Final.
    Confirmed {
        /// Its block's number.
        block: u64,
        /// Whether what it called did not revert.
        success: bool,
    },
    /// In a block, which is not final; or what came of it is not known yet.
    Mined {
        /// Its block's number.
        block: u64,
        /// So many blocks, its own among them.
        depth: u64,
    },
    /// Its nonce seems to be used for good, and not by it: see by what. Counts alone make nothing final, as a node may be
    /// wrong, or have mined transactions without their receipts; and who is told that it is replaced may pay again.
    Seek,
    /// This transaction with its nonce is final: it will never be mined.
    Replaced(B256),
    /// Send it again: the same bytes.
    Rebroadcast,
    /// No block has it, and that for long, nor is it seen what has used its nonce, where that is used for good: somebody
    /// should look, or replace it. It is asked about further.
    Stuck,
    /// Ask again later.
    Wait,
}

/// What to do about a transaction `now`.
#[must_use]
pub fn step(settings: &Settings, tracked: &Tracked, seen: &Seen, now: SystemTime) -> Step {
    // The node that was asked for the head may be behind.
    let depth = |block: u64| seen.head.saturating_sub(block).saturating_add(1);
    if let Some(receipt) = seen.receipt {
        let (block, depth) = (receipt.block, depth(receipt.block));
        return if depth >= settings.confirmations {
            Step::Confirmed { block, success: receipt.success }
        } else {
            Step::Mined { block, depth }
        };
    }
    if seen.settled_count > tracked.nonce && seen.latest_count > tracked.nonce && !seen.known {
        match seen.user {
            User::Unsought => return Step::Seek,
            User::Itself { block } => return Step::Mined { block, depth: depth(block) },
            User::Another(by) => return Step::Replaced(by),
            // No node takes it, and nobody can say that it is not mined: it is only looked for again.
            User::Unseen => {}
        }
    }
    // A clock that was set back makes nothing due.
    let since = |moment| now.duration_since(moment).unwrap_or_default();
    // Used by another, or by this one and not seen yet: no node takes it now.
    let used = seen.latest_count > tracked.nonce;
    if !seen.known && !used && since(tracked.last_sent) >= settings.rebroadcast {
        Step::Rebroadcast
    } else if since(tracked.first_sent) >= settings.stuck_after && (!used || seen.user == User::Unseen) {
        Step::Stuck
    } else {
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings =
        Settings { confirmations: 3, rebroadcast: Duration::from_secs(30), stuck_after: Duration::from_secs(300) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tracked() -> Tracked {
        Tracked { nonce: 5, first_sent: at(1000), last_sent: at(1000) }
    }

    fn seen() -> Seen {
        Seen { head: 100, settled_count: 5, latest_count: 5, known: true, receipt: None, user: User::Unsought }
    }

    fn mined(block: u64) -> Seen {
        Seen { latest_count: 6, receipt: Some(Receipt { block, success: true }), ..seen() }
    }

    #[test]
    fn where_it_is() {
        let dropped = Seen { known: false, ..seen() };
        let used = Seen { latest_count: 6, ..dropped };
        let settled = Seen { settled_count: 6, ..used };
        let other = B256::repeat_byte(9);
        let again = Tracked { last_sent: at(1290), ..tracked() };
        for (tracked, seen, now, expected) in [
            (tracked(), seen(), 1000, Step::Wait),
            (tracked(), seen(), 1299, Step::Wait),
            (tracked(), seen(), 1300, Step::Stuck),
            // The node has lost it, or never had it.
            (tracked(), dropped, 1029, Step::Wait),
            (tracked(), dropped, 1030, Step::Rebroadcast),
            (tracked(), dropped, 2000, Step::Rebroadcast),
            (again, dropped, 1300, Step::Stuck),
            (again, dropped, 1320, Step::Rebroadcast),
            // A clock that was set back.
            (tracked(), dropped, 10, Step::Wait),
            // Mined, deeper and deeper; with a head that is behind.
            (tracked(), mined(101), 1000, Step::Mined { block: 101, depth: 1 }),
            (tracked(), mined(100), 1000, Step::Mined { block: 100, depth: 1 }),
            (tracked(), mined(99), 9000, Step::Mined { block: 99, depth: 2 }),
            (tracked(), mined(98), 1000, Step::Confirmed { block: 98, success: true }),
            // The nonce is used by another: not for good yet, and for good.
            (tracked(), used, 1200, Step::Wait),
            (tracked(), used, 9000, Step::Wait),
            (tracked(), settled, 1000, Step::Seek),
            (tracked(), Seen { user: User::Another(other), ..settled }, 1000, Step::Replaced(other)),
            // What cannot be seen is not final, however long it takes, and is not sent again.
            (tracked(), Seen { user: User::Unseen, ..settled }, 1299, Step::Wait),
            (tracked(), Seen { user: User::Unseen, ..settled }, 9000, Step::Stuck),
            // A node without its receipt.
            (
                tracked(),
                Seen { user: User::Itself { block: 90 }, ..settled },
                1000,
                Step::Mined { block: 90, depth: 11 },
            ),
            // A node says that it has the transaction, but no receipt yet.
            (tracked(), Seen { known: true, ..settled }, 1000, Step::Wait),
            // Another's that a reorganisation takes back frees the nonce.
            (tracked(), Seen { latest_count: 5, ..settled }, 1030, Step::Rebroadcast),
        ] {
            assert_eq!(step(&SETTINGS, &tracked, &seen, at(now)), expected, "{tracked:?} {seen:?} at {now}");
        }
        let reverted = Seen { receipt: Some(Receipt { block: 90, success: false }), ..seen() };
        assert_eq!(step(&SETTINGS, &tracked(), &reverted, at(1000)), Step::Confirmed { block: 90, success: false });
    }

    /// What vanishes with its block is as it was before.
    #[test]
    fn a_reorganisation_takes_it_back() {
        let before = step(&SETTINGS, &tracked(), &seen(), at(1010));
        assert_eq!(step(&SETTINGS, &tracked(), &mined(100), at(1012)), Step::Mined { block: 100, depth: 1 });
        assert_eq!(step(&SETTINGS, &tracked(), &seen(), at(1014)), before);
        let lost = Seen { known: false, ..seen() };
        assert_eq!(step(&SETTINGS, &tracked(), &lost, at(1040)), Step::Rebroadcast);
    }

    #[test]
    fn nodes_remember_so_much() {
        let of = |confirmations| Settings { confirmations, ..SETTINGS }.settled_block(1000);
        assert_eq!((of(1), of(3), of(96), of(5000), of(0)), (1000, 998, 905, 905, 1000));
        assert_eq!(SETTINGS.settled_block(0), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_final_too_soon(
            head in 0..200u64, settled in 0..10u64, latest in 0..10u64, known: bool,
            receipt in proptest::option::of((0..200u64, any::<bool>())), first in 0..2000u64, last in 0..2000u64,
            user in prop_oneof![
                Just(User::Unsought), Just(User::Unseen), Just(User::Another(B256::ZERO)),
                (0..200u64).prop_map(|block| User::Itself { block })
            ],
            now in 0..4000u64, confirmations in 1..20u64,
        ) {
            let settings = Settings { confirmations, ..SETTINGS };
            let tracked = Tracked { nonce: 5, first_sent: at(first), last_sent: at(last) };
            let receipt = receipt.map(|(block, success)| Receipt { block, success });
            let seen = Seen { head, settled_count: settled, latest_count: latest, known, receipt, user };
            let taken = step(&settings, &tracked, &seen, at(now));
            match taken {
                Step::Confirmed { block, .. } => prop_assert!(head.max(block) + 1 >= block + confirmations),
                Step::Mined { block, depth } => match receipt {
                    Some(receipt) => prop_assert!(depth < confirmations && block == receipt.block),
                    None => prop_assert_eq!(user, User::Itself { block }),
                },
                // Never called replaced but by what was seen; never while a block has it, or its nonce is free anywhere.
                Step::Replaced(by) => {
                    prop_assert!(receipt.is_none() && settled > 5 && latest > 5 && !known);
                    prop_assert_eq!(user, User::Another(by));
                }
                Step::Seek => prop_assert!(user == User::Unsought && receipt.is_none() && settled > 5 && latest > 5),
                // Never sent again where it cannot be needed.
                Step::Rebroadcast => prop_assert!(receipt.is_none() && !known && latest <= 5 && now >= last + 30),
                Step::Stuck => {
                    prop_assert!(receipt.is_none() && now >= first + 300 && (latest <= 5 || user == User::Unseen));
                }
                Step::Wait => prop_assert!(receipt.is_none()),
            }
            // A deeper block makes nothing less final.
            if let Step::Confirmed { .. } = taken {
                let later = Seen { head: head + 1, ..seen };
                prop_assert_eq!(step(&settings, &tracked, &later, at(now)), taken);
            }
        }
    }
}
