//! Nonces that the ledger chooses.

use std::collections::BTreeSet;

use keygate_config::Replacements;
use proptest::prelude::*;

use super::*;
use crate::policy::Denied;

fn managed(name: &str, at_least: u64) -> Request {
    let nonce = Nonce::Managed { at_least };
    Request { nonce, body: body(6, 100), allowed: Allowed::default(), ..request(name, 0) }
}

/// A payment of so much for such a price of gas.
fn body(value: u64, fee: u64) -> String {
    let body = serde_json::json!({ "chainId": 137, "type": 0, "to": COLD.to_checksum(None), "value": value, "data": "0x",
                                   "gas": 21_000, "gasPrice": fee });
    body.to_string()
}

async fn chosen(ledger: &Ledger, request: Request) -> Reserved {
    match ledger.begin(request).await.unwrap() {
        Begun::Fresh(reserved) => reserved,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_request_has_the_next_and_what_is_given_back_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let mut reservations = Vec::new();
    for (i, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let reserved = chosen(&open.ledger, managed(name, 7)).await;
        assert_eq!(reserved.nonce, 7 + i as u64);
        reservations.push(reserved.reservation);
    }
    for i in [2, 1] {
        open.ledger.release(reservations[i], at(NOW)).await.unwrap();
    }
    open.ledger.store(reservations[0], signed(1), at(NOW)).await.unwrap();
    let given = Request { nonce: Nonce::Given(11), send: true, ..managed("sent", 0) };
    let given = chosen(&open.ledger, given).await;
    open.ledger.store(given.reservation, signed(2), at(NOW)).await.unwrap();
    let nonces = open.ledger.nonces(HOT, 137, 7).await.unwrap();
    assert_eq!(
        nonces,
        Nonces { next: Some(12), gaps: vec![8, 9], unsigned: vec![10], unsent: vec![7], signed: Some(11) }
    );
    // It is mined, or another takes its place that is sent.
    assert_eq!(open.ledger.nonces(HOT, 137, 8).await.unwrap().unsent, Vec::<u64>::new());
    let instead = Request { nonce: Nonce::Replacing(7), send: true, ..managed("instead", 0) };
    chosen(&open.ledger, instead).await;
    assert_eq!(open.ledger.nonces(HOT, 137, 7).await.unwrap().unsent, Vec::<u64>::new());
    open.close();
    let open = Open::at(&path);
    // The same request has its own nonce still.
    assert!(matches!(open.ledger.begin(managed("d", 7)).await, Ok(Begun::Pending(Reserved { nonce: 10, .. }))));
    for (name, nonce) in [("e", 8), ("f", 9), ("g", 12)] {
        assert_eq!(chosen(&open.ledger, managed(name, 7)).await.nonce, nonce, "{name}");
    }
    // Another chain or address has its own; and the chain knows of some that were not made here.
    assert_eq!(chosen(&open.ledger, Request { chain_id: 1, ..managed("h", 0) }).await.nonce, 0);
    assert_eq!(chosen(&open.ledger, as_key("cold", COLD, managed("i", 3))).await.nonce, 3);
    assert_eq!(chosen(&open.ledger, managed("j", 40)).await.nonce, 40);
    assert_eq!(chosen(&open.ledger, managed("k", 40)).await.nonce, 41);
    open.close();
}

#[tokio::test]
async fn a_gap_that_the_chain_has_seen_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let first = chosen(&open.ledger, managed("a", 5)).await;
    chosen(&open.ledger, managed("b", 5)).await;
    open.ledger.release(first.reservation, at(NOW)).await.unwrap();
    // Somebody else has used it.
    assert_eq!(chosen(&open.ledger, managed("c", 6)).await.nonce, 7);
    assert_eq!(open.ledger.nonces(HOT, 137, 6).await.unwrap().gaps, Vec::<u64>::new());
    open.close();
}

#[tokio::test]
async fn what_nobody_has_is_a_gap_that_one_request_fills() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let filling = |name, nonce, at_least| Request { nonce: Nonce::Gap { nonce, at_least }, ..managed(name, 0) };
    chosen(&open.ledger, managed("a", 0)).await;
    // Somebody else had 1 and 2 in a pool, which has lost them.
    assert_eq!(chosen(&open.ledger, managed("b", 3)).await.nonce, 3);
    assert_eq!(open.ledger.nonces(HOT, 137, 1).await.unwrap().gaps, [1, 2]);
    let denied = |begun| matches!(begun, Ok(Begun::Denied(Denied { rule: "nonce", .. })));
    for (name, nonce, at_least) in [("c", 0, 0), ("d", 1, 2), ("e", 3, 1), ("f", 4, 1)] {
        assert!(denied(open.ledger.begin(filling(name, nonce, at_least)).await), "{nonce}");
    }
    assert_eq!(chosen(&open.ledger, filling("g", 1, 1)).await.nonce, 1);
    assert!(denied(open.ledger.begin(filling("h", 1, 1)).await), "it is filled");
    assert_eq!(chosen(&open.ledger, managed("i", 1)).await.nonce, 2);
    assert_eq!(chosen(&open.ledger, managed("j", 1)).await.nonce, 4);
    open.close();
}

#[tokio::test]
async fn what_is_given_back_and_somebody_has_is_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let first = chosen(&open.ledger, managed("a", 0)).await;
    open.ledger.release(first.reservation, at(NOW)).await.unwrap();
    fresh(&open.ledger, Request { nonce: Nonce::Given(0), ..managed("b", 0) }).await;
    assert_eq!(chosen(&open.ledger, managed("c", 0)).await.nonce, 1);
    open.close();
}

#[tokio::test]
async fn one_that_a_caller_gave_is_not_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    for (name, nonce) in [("x", 1), ("y", 2)] {
        fresh(&open.ledger, Request { nonce: Nonce::Given(nonce), ..managed(name, 0) }).await;
    }
    for (name, nonce) in [("a", 0), ("b", 3), ("c", 4)] {
        assert_eq!(chosen(&open.ledger, managed(name, 0)).await.nonce, nonce);
    }
    open.close();
}

async fn what_a_caller_gave_is_no_gap_for_another(place: Place) {
    let open = place.open();
    let given = |name, nonce| Request { nonce: Nonce::Given(nonce), ..managed(name, 0) };
    let one = chosen(&open.ledger, managed("a", 0)).await;
    let two = chosen(&open.ledger, managed("b", 0)).await;
    open.ledger.release(one.reservation, at(NOW)).await.unwrap();
    // A gap that somebody takes by name; and one that somebody had before it was given back.
    let of_gap = chosen(&open.ledger, given("x", 0)).await;
    let beside = chosen(&open.ledger, given("y", 1)).await;
    open.ledger.release(two.reservation, at(NOW)).await.unwrap();
    assert_eq!(chosen(&open.ledger, managed("c", 0)).await.nonce, 2);
    for reserved in [of_gap, beside] {
        open.ledger.release(reserved.reservation, at(NOW)).await.unwrap();
        let again = chosen(&open.ledger, managed(&format!("again {}", reserved.nonce), 0)).await;
        assert_eq!(again.nonce, reserved.nonce, "nobody has it any more");
    }
    // What was never chosen here is no gap.
    let ahead = chosen(&open.ledger, given("z", 9)).await;
    open.ledger.release(ahead.reservation, at(NOW)).await.unwrap();
    assert_eq!(chosen(&open.ledger, managed("d", 0)).await.nonce, 3);
    open.close();
}

/// A payment under a policy that lets it be replaced twice, for a fifth more each.
fn payment(name: &str, nonce: Nonce, value: u64, fee: u64) -> Request {
    let replacements = Some(Replacements { max: Some(2), max_fee_bump_percent: Some(20) });
    Request { nonce, replacements, body: body(value, fee), ..managed(name, 0) }
}

/// Whether a replacement is asked for, or a nonce is given that somebody has: it is one decision.
async fn what_has_a_nonce_is_replaced_as_the_policy_says(place: Place) {
    let open = place.open();
    for (again, key, address) in [(Nonce::Given as fn(u64) -> Nonce, "hot", HOT), (Nonce::Replacing, "cold", COLD)] {
        let payment = |name, nonce, value, fee| as_key(key, address, payment(name, nonce, value, fee));
        let begin = async |request| match open.ledger.begin(request).await.unwrap() {
            Begun::Fresh(reserved) => Ok(reserved),
            Begun::Denied(Denied { rule: "replacements", detail }) => Err(detail),
            other => panic!("{other:?}"),
        };
        let managed = Nonce::Managed { at_least: 0 };
        assert_eq!(begin(payment("a", managed, 6, 100)).await.unwrap().nonce, 0);
        for (name, value, fee) in [("dearer", 6, 121), ("other", 7, 100)] {
            begin(payment(name, again(0), value, fee)).await.unwrap_err();
        }
        let theirs = payment("theirs", again(0), 6, 100);
        let theirs = Request { id: RequestId { caller: "payroll".into(), ..theirs.id.clone() }, ..theirs };
        assert!(begin(theirs).await.unwrap_err().contains("another caller's"));
        let second = begin(payment("b", again(0), 6, 120)).await.unwrap();
        assert_eq!(second.nonce, 0);
        assert_eq!(begin(payment("c", again(0), 6, 144)).await.unwrap().nonce, 0);
        assert!(begin(payment("d", again(0), 6, 172)).await.unwrap_err().contains("2 times"));
        assert_eq!(begin(payment("e", managed, 6, 100)).await.unwrap().nonce, 1);

        // What is final is not replaced.
        let sent = Request { send: true, ..payment("f", managed, 6, 100) };
        let sent = begin(sent).await.unwrap();
        open.ledger.store(sent.reservation, signed(1), at(NOW)).await.unwrap();
        begin(payment("g", again(2), 6, 120)).await.unwrap();
        let confirmed = Progress { state: State::Confirmed, ..Progress::default() };
        open.ledger.update(sent.reservation, Progress::default(), confirmed, at(NOW)).await.unwrap();
        assert!(begin(payment("h", again(2), 6, 144)).await.unwrap_err().contains("final"));
    }
    open.close();
}

/// Without limits of a policy's there is one: who comes last is compared with all.
async fn a_hundred_have_one_nonce_and_no_more(place: Place) {
    let open = place.open();
    let again = |name: &str, nonce: fn(u64) -> Nonce| Request { nonce: nonce(0), ..managed(name, 0) };
    for i in 0..100 {
        chosen(&open.ledger, again(&i.to_string(), Nonce::Given)).await;
    }
    let full = |denied: &Denied| denied.rule == "replacements" && denied.detail.starts_with("100 ");
    for nonce in [Nonce::Given, Nonce::Replacing] {
        let begun = open.ledger.begin(again("more", nonce)).await.unwrap();
        assert!(matches!(&begun, Begun::Denied(denied) if full(denied)), "{begun:?}");
    }
    assert!(full(&open.ledger.with_nonce(HOT, 137, 0).await.unwrap().unwrap_err()));
    // What is there is found again.
    pending(open.ledger.begin(again("7", Nonce::Given)).await);
    open.close();
}

#[tokio::test]
async fn only_what_is_there_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let begun = open.ledger.begin(payment("a", Nonce::Replacing(0), 6, 100)).await.unwrap();
    assert!(matches!(begun, Begun::Denied(Denied { rule: "replacements", .. })), "there is nothing to replace");
    fresh(&open.ledger, payment("b", Nonce::Given(0), 6, 100)).await;
    open.close();
}

/// A node that is wrong is followed once, and not for good: what it left out is chosen as soon as a node is right.
async fn a_count_that_was_too_high_jams_nothing(place: Place) {
    let open = place.open();
    for (name, count, nonce) in [
        ("a", 7, 7),
        // Wrong, and by much: nobody looks at each that lies between.
        ("b", 1 << 39, 1 << 39),
        ("c", 1 << 39, (1 << 39) + 1),
        ("d", 8, 8),
        ("e", 1 << 20, 1 << 20),
        ("f", 7, 9),
        ("g", 1 << 40, 1 << 40),
        ("h", 10, 10),
        // A ledger that was restored knows less than the chain.
        ("i", 50, 50),
        ("j", 50, 51),
    ] {
        assert_eq!(chosen(&open.ledger, managed(name, count)).await.nonce, nonce, "{name}");
    }
    let known = open.ledger.nonces(HOT, 137, 50).await.unwrap();
    assert_eq!((known.next, known.gaps.len(), known.gaps[0]), (Some((1 << 40) + 1), 1000, 52));
    open.close();
    let open = place.open();
    assert_eq!(chosen(&open.ledger, managed("k", 50)).await.nonce, 52);
    open.close();
}

/// What somebody else's transactions had before one that is final is gone: a node that is behind is waited for.
async fn a_count_that_is_too_low_chooses_nothing_that_is_used(place: Place) {
    let open = place.open();
    let first = chosen(&open.ledger, Request { send: true, ..managed("a", 50) }).await;
    let beside = chosen(&open.ledger, managed("b", 60)).await;
    // It is not in a block yet: the chain may be right that nobody has these.
    assert_eq!(chosen(&open.ledger, managed("c", 48)).await.nonce, 48);
    confirmed(&open.ledger, first.reservation).await;
    let late = |name, minutes: u64| Request { now: at(NOW + minutes * 60), ..managed(name, 3) };
    for (name, minutes, nonce) in [("d", 0, 51), ("e", 9, 52)] {
        assert_eq!(chosen(&open.ledger, late(name, minutes)).await.nonce, nonce);
    }
    open.ledger.release(beside.reservation, at(NOW)).await.unwrap();
    assert_eq!(open.ledger.nonces(HOT, 137, 0).await.unwrap().gaps, (53..=60).collect::<Vec<_>>());
    // It has caught up, and is behind anew.
    for (name, minutes, count, nonce) in [("f", 9, 51, 53), ("g", 11, 3, 54), ("h", 20, 3, 55)] {
        let request = Request { nonce: Nonce::Managed { at_least: count }, ..late(name, minutes) };
        assert_eq!(chosen(&open.ledger, request).await.nonce, nonce, "{name}");
    }
    // Another address is another's.
    assert_eq!(chosen(&open.ledger, as_key("cold", COLD, managed("i", 3))).await.nonce, 3);
    open.close();
}

/// That a nonce is used, a node may lie of, too: with nodes that are right, the address goes on soon after.
async fn a_receipt_that_was_forged_jams_nothing_for_long(place: Place) {
    let open = place.open();
    let far = chosen(&open.ledger, Request { send: true, ..managed("far", 1_000_000) }).await;
    confirmed(&open.ledger, far.reservation).await;
    let right = |name, seconds| Request { now: at(NOW + seconds), ..managed(name, 100) };
    assert_eq!(chosen(&open.ledger, right("a", 0)).await.nonce, 1_000_001);
    open.close();
    let open = place.open();
    // What is final below meanwhile, as is true, makes it no truer.
    let given = Request { nonce: Nonce::Given(100), send: true, ..managed("own", 0) };
    let own = chosen(&open.ledger, given).await;
    confirmed(&open.ledger, own.reservation).await;
    assert_eq!(chosen(&open.ledger, right("b", 599)).await.nonce, 1_000_002);
    for (name, nonce) in [("c", 101), ("d", 102)] {
        assert_eq!(chosen(&open.ledger, right(name, 600)).await.nonce, nonce);
    }
    assert_eq!(open.ledger.nonces(HOT, 137, 100).await.unwrap().gaps[0], 103);
    open.close();
}

async fn confirmed(ledger: &Ledger, reservation: Reservation) {
    ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    let end = Progress { state: State::Confirmed, ..Progress::default() };
    ledger.update(reservation, Progress::default(), end, at(NOW)).await.unwrap();
}

/// What is left unsigned for long does not keep its nonce from who fills it; and is not given out, should it be signed.
async fn what_is_left_unsigned_for_long_is_filled(place: Place) {
    let open = place.open();
    let ledger = &open.ledger;
    let filling = |name, after| {
        let (nonce, now) = (Nonce::Gap { nonce: 7, at_least: 7 }, at(NOW) + Duration::from_secs(after));
        Request { nonce, now, ..managed(name, 0) }
    };
    let left = chosen(ledger, Request { allowed: spending(U256::from(6), Some(10)), ..managed("a", 7) }).await;
    let again = Request { nonce: Nonce::Replacing(7), body: body(6, 200), ..managed("again", 0) };
    let later = chosen(ledger, Request { now: at(NOW + 1), ..again }).await;
    let denied = |begun| matches!(begun, Ok(Begun::Denied(Denied { rule: "nonce", .. })));
    assert!(denied(ledger.begin(filling("b", 120)).await), "one of both may be about to be signed");
    assert_eq!(chosen(ledger, filling("b", 121)).await.nonce, 7);
    for reservation in [left.reservation, later.reservation] {
        assert_eq!(ledger.store(reservation, signed(1), at(NOW + 122)).await, Err(LedgerError::NotReserved));
    }
    assert_eq!(ledger.nonces(HOT, 137, 7).await.unwrap().gaps, Vec::<u64>::new());
    let retried = Request { allowed: spending(U256::from(6), Some(10)), ..managed("a", 7) };
    assert_eq!(chosen(ledger, retried).await.nonce, 8, "what it counted is taken back");
    // What is signed stays, however old.
    let third = chosen(ledger, managed("c", 7)).await;
    ledger.store(third.reservation, signed(2), at(NOW)).await.unwrap();
    let nonce = Nonce::Gap { nonce: third.nonce, at_least: 7 };
    assert!(denied(ledger.begin(Request { nonce, ..filling("d", 999) }).await));
    open.close();
}

on_both!(
    what_a_caller_gave_is_no_gap_for_another,
    what_has_a_nonce_is_replaced_as_the_policy_says,
    a_count_that_was_too_high_jams_nothing,
    a_count_that_is_too_low_chooses_nothing_that_is_used,
    a_receipt_that_was_forged_jams_nothing_for_long,
    a_hundred_have_one_nonce_and_no_more,
    what_is_left_unsigned_for_long_is_filled,
);

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever is reserved, signed and given back: no nonce is held by two, and none is left out but those that were
    /// given back last.
    #[test]
    fn no_nonce_is_held_twice(steps in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let open = Open::at(&dir.path().join("ledger.db"));
            let (mut held, mut unsigned) = (BTreeSet::new(), Vec::new());
            for (i, (which, step)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let reserved = chosen(&open.ledger, managed(&i.to_string(), 0)).await;
                        assert!(held.insert(reserved.nonce), "{} twice", reserved.nonce);
                        unsigned.push(reserved);
                    }
                    _ if unsigned.is_empty() => {}
                    2 => {
                        let reserved = unsigned.swap_remove(which.index(unsigned.len()));
                        open.ledger.store(reserved.reservation, signed(1), at(NOW)).await.unwrap();
                    }
                    _ => {
                        let reserved = unsigned.swap_remove(which.index(unsigned.len()));
                        open.ledger.release(reserved.reservation, at(NOW)).await.unwrap();
                        held.remove(&reserved.nonce);
                    }
                }
                let known = open.ledger.nonces(HOT, 137, 0).await.unwrap();
                let all: BTreeSet<_> = held.iter().copied().chain(known.gaps).collect();
                assert!(all.into_iter().eq(0..known.next.unwrap_or(0)));
            }
            open.close();
        });
    }

    /// Whatever nodes count, and whatever is reserved, given, signed and given back: what is chosen is the lowest from the
    /// count on that nobody has. So none is chosen twice, and once nodes are right, none is left out.
    #[test]
    fn the_lowest_that_nobody_has_is_chosen(
        kind in Kind::any(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0u8..7, prop_oneof![0u64..20, 0u64..1 << 40]), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = kind.place();
            let open = place.open();
            let (mut held, mut unsigned, mut right) = (BTreeSet::new(), Vec::new(), 0);
            let lowest = |held: &BTreeSet<u64>, count: u64| (count..).find(|nonce| !held.contains(nonce)).unwrap();
            for (i, (which, step, any)) in steps.into_iter().enumerate() {
                match step {
                    // A node that is right, or is not.
                    0..=2 => {
                        let count = if step == 0 { any } else { right };
                        let reserved = chosen(&open.ledger, managed(&i.to_string(), count)).await;
                        assert_eq!(reserved.nonce, lowest(&held, count));
                        held.insert(reserved.nonce);
                        unsigned.push(reserved);
                    }
                    3 if !held.contains(&any) => {
                        let given = Request { nonce: Nonce::Given(any), ..managed(&i.to_string(), 0) };
                        unsigned.push(chosen(&open.ledger, given).await);
                        held.insert(any);
                    }
                    // Blocks have all that they can.
                    4 => right = lowest(&held, right),
                    5 if !unsigned.is_empty() => {
                        let reserved = unsigned.swap_remove(which.index(unsigned.len()));
                        open.ledger.store(reserved.reservation, signed(1), at(NOW)).await.unwrap();
                    }
                    6 if !unsigned.is_empty() => {
                        let reserved = unsigned.swap_remove(which.index(unsigned.len()));
                        open.ledger.release(reserved.reservation, at(NOW)).await.unwrap();
                        held.remove(&reserved.nonce);
                    }
                    _ => {}
                }
            }
            let next = open.ledger.nonces(HOT, 137, 0).await.unwrap().next.unwrap_or(0);
            assert!(held.last().is_none_or(|last| *last < next));
            // In the end all are right: they go on without a gap.
            for i in 0..10 {
                let reserved = chosen(&open.ledger, managed(&format!("right {i}"), right)).await;
                assert_eq!(reserved.nonce, lowest(&held, right));
                held.insert(reserved.nonce);
            }
            open.close();
        });
    }
}
