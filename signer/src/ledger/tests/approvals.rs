//! Requests that somebody else must approve first.

use super::*;
use crate::policy::{Approval, Denied};

const DAY: Duration = Duration::from_secs(24 * HOUR);

/// A request that one of these must approve.
fn of(caller: &str, name: &str, from: &[&str]) -> Request {
    let from = from.iter().map(|name| (*name).to_owned()).collect();
    let approval = Approval { rule: "require_approval", detail: String::new(), from, expires_after: DAY };
    let request = request(name, 0);
    let id = RequestId { caller: caller.into(), ..request.id };
    Request { id, allowed: Allowed { spends: Vec::new(), approval: Some(approval) }, ..request }
}

async fn held(ledger: &Ledger, request: Request) -> Held {
    match ledger.begin(request).await.unwrap() {
        Begun::Held(held) => held,
        other => panic!("{other:?}"),
    }
}

async fn approve(ledger: &Ledger, held: &Held, by: &str) -> Decided {
    ledger.decide(held.approval, held.digest, by.into(), true, at(NOW)).await.unwrap()
}

#[track_caller]
fn is_denied(begun: Result<Begun, LedgerError>, why: &str) {
    match begun {
        Ok(Begun::Denied(Denied { rule: "require_approval", detail })) => assert!(detail.contains(why), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_approval_counts_as_long_as_who_gave_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let ledger = &open.ledger;
    let one = held(ledger, of("payments", "a", &["security"])).await;
    assert_eq!(approve(ledger, &one, "payments").await, Decided::Own);
    assert!(matches!(approve(ledger, &one, "security").await, Decided::Done(_)));
    // By somebody who was taken out of the policy since.
    is_denied(ledger.begin(of("payments", "a", &["board"])).await, "may not any more");
    fresh(ledger, of("payments", "a", &["board", "security"])).await;
    open.close();
}

/// At the last moment there is time, and at the next there is none, whoever asks and whatever the policy says by then.
async fn what_nobody_decides_about_expires_for_ever(place: Place) {
    let open = place.open();
    let ledger = &open.ledger;
    let one = held(ledger, of("payments", "a", &["security"])).await;
    let other = held(ledger, of("payments", "b", &["security"])).await;
    let end = at(NOW) + DAY;
    assert_eq!(one.expires_at, millis(end));
    let before = end - Duration::from_millis(1);
    assert_eq!((one.standing(before), one.standing(end)), (Standing::Held, Standing::Expired));
    assert_eq!(ledger.undecided(before).await.unwrap().len(), 2);
    assert_eq!(ledger.undecided(end).await, Ok(Vec::new()), "it waits no more");
    let decide = async |held: &Held, by: &str, approved, now| {
        ledger.decide(held.approval, held.digest, by.into(), approved, now).await.unwrap()
    };
    for (by, approved) in [("security", true), ("security", false), ("payments", false)] {
        assert_eq!(decide(&one, by, approved, end).await, Decided::Expired(one.clone()));
    }
    let mut again = of("payments", "a", &["security"]);
    again.now = before;
    assert_eq!(ledger.begin(again.clone()).await, Ok(Begun::StillHeld(one.clone())));
    again.now = end;
    is_denied(ledger.begin(again.clone()).await, "expired");
    // Whether it needs an approval by then, or has longer.
    again.allowed.approval.as_mut().unwrap().expires_after = 9 * DAY;
    is_denied(ledger.begin(again.clone()).await, "expired");
    again.allowed.approval = None;
    is_denied(ledger.begin(again).await, "expired");
    // What was approved in time stays so.
    assert!(matches!(decide(&other, "security", true, before).await, Decided::Done(_)));
    fresh(ledger, Request { now: end + DAY, ..of("payments", "b", &["security"]) }).await;
    open.close();
}

async fn who_asks_may_withdraw_and_nothing_else(place: Place) {
    let open = place.open();
    let ledger = &open.ledger;
    let one = held(ledger, of("payments", "a", &["security"])).await;
    let withdraw = async || ledger.decide(one.approval, one.digest, "payments".into(), false, at(NOW)).await.unwrap();
    let Decided::Done(withdrawn) = withdraw().await else { panic!("it is held") };
    assert_eq!(withdrawn.standing(at(NOW)), Standing::Withdrawn);
    assert_eq!(withdraw().await, Decided::Already(withdrawn.clone()));
    assert_eq!(approve(ledger, &one, "security").await, Decided::Already(withdrawn));
    let mut again = of("payments", "a", &["security"]);
    is_denied(ledger.begin(again.clone()).await, "withdrawn");
    again.allowed.approval = None;
    is_denied(ledger.begin(again).await, "withdrawn");
    assert_eq!(ledger.undecided(at(NOW)).await, Ok(Vec::new()));
    open.close();
}

/// What is signed after all, or may be, is neither withdrawn nor rejected: who is told so pays otherwise.
async fn nobody_says_no_to_what_may_be_signed(place: Place) {
    let open = place.open();
    let ledger = &open.ledger;
    let one = held(ledger, of("payments", "a", &["security"])).await;
    let (name, end) = (one.id.clone(), at(NOW) + DAY);
    let decide =
        async |by: &str, approved| ledger.decide(one.approval, one.digest, by.into(), approved, at(NOW)).await.unwrap();
    let again = Request { allowed: Allowed::default(), body: "{ }".into(), ..of("payments", "a", &["security"]) };
    let reservation = fresh(ledger, again).await;
    for by in ["payments", "security"] {
        assert_eq!(decide(by, false).await, Decided::UnderWay);
    }
    // It waits for who may approve it, as it is to be signed, and as long as it takes.
    let waiting = ledger.undecided(end).await.unwrap();
    assert_eq!(waiting, [Held { body: "{ }".into(), reserved: true, ..one.clone() }]);
    assert_eq!(waiting[0].standing(end), Standing::Held);
    ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    for (by, approved) in [("payments", false), ("security", false), ("security", true)] {
        assert_eq!(decide(by, approved).await, Decided::UnderWay);
    }
    assert_eq!(ledger.held_as(name).await.unwrap().unwrap().standing(end), Standing::Signed);
    assert_eq!(ledger.undecided(at(NOW)).await, Ok(Vec::new()));
    open.close();
}

/// A nonce that is reserved is not lost because its request needs an approval by now.
async fn what_has_a_nonce_waits_for_its_approval(place: Place) {
    let open = place.open();
    let ledger = &open.ledger;
    let nonce = Nonce::Managed { at_least: 7 };
    let reservation = fresh(ledger, Request { nonce, allowed: Allowed::default(), ..of("payments", "a", &[]) }).await;
    let end = at(NOW) + DAY;
    let moved = |now| {
        let nonce = Nonce::Replacing(7);
        Request { policy: "stricter".into(), nonce, now, ..of("payments", "a", &["security"]) }
    };
    let one = held(ledger, moved(at(NOW))).await;
    assert_eq!((one.reserved, one.replaces), (true, None), "it replaces nobody but itself");
    assert_eq!(ledger.undecided(end).await, Ok(vec![one.clone()]));
    assert_eq!(ledger.begin(moved(end)).await, Ok(Begun::StillHeld(one.clone())));
    let decided = ledger.decide(one.approval, one.digest, "security".into(), true, end).await.unwrap();
    assert!(matches!(decided, Decided::Done(_)), "{decided:?}");
    assert_eq!(pending(ledger.begin(moved(end)).await), reservation);
    open.close();
}

#[tokio::test]
async fn who_approves_sees_which_nonce_is_taken_however_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let ledger = &open.ledger;
    fresh(ledger, Request { nonce: Nonce::Given(7), ..request("first", 0) }).await;
    for (name, nonce, replaces) in [
        ("a", Nonce::Given(7), Some(7)),
        ("b", Nonce::Replacing(7), Some(7)),
        ("c", Nonce::Given(8), None),
        ("d", Nonce::Managed { at_least: 7 }, None),
    ] {
        let one = held(ledger, Request { nonce, ..of("payments", name, &["security"]) }).await;
        assert_eq!(one.replaces, replaces, "{name}");
    }
    open.close();
}

on_both!(
    what_nobody_decides_about_expires_for_ever,
    who_asks_may_withdraw_and_nothing_else,
    nobody_says_no_to_what_may_be_signed,
    what_has_a_nonce_waits_for_its_approval,
);

/// Who asks and withdraws, over and over, fills no disk.
#[tokio::test]
async fn so_many_are_withdrawn_in_a_day_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let ledger = &open.ledger;
    for n in 0..1000 {
        let one = held(ledger, of("payments", &n.to_string(), &["security"])).await;
        ledger.decide(one.approval, one.digest, "payments".into(), false, at(NOW)).await.unwrap();
    }
    is_denied(ledger.begin(of("payments", "more", &["security"])).await, "24 hours");
    held(ledger, of("others", "more", &["security"])).await;
    // What somebody else decides about is their affair; and a day passes.
    let tomorrow = |name| Request { now: at(NOW) + DAY, ..of("payments", name, &["security"]) };
    let one = held(ledger, tomorrow("more")).await;
    ledger.decide(one.approval, one.digest, "security".into(), false, at(NOW) + DAY).await.unwrap();
    held(ledger, tomorrow("another")).await;
    open.close();
}
