//! What is on its way to a chain, and what waits for somebody's approval.

use super::*;
use crate::policy::Approval;

fn to_send(name: &str, nonce: u64) -> Request {
    Request { nonce: Nonce::Given(nonce), send: true, allowed: Allowed::default(), ..request(name, 0) }
}

#[tokio::test]
async fn what_is_signed_to_be_sent_is_under_way_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let reservation = fresh(&open.ledger, to_send("a", 0)).await;
    assert_eq!(open.ledger.progress(reservation).await, Ok(None), "nothing is signed");
    open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    let not_sent = fresh(&open.ledger, Request { send: false, ..to_send("b", 1) }).await;
    open.ledger.store(not_sent, signed(2), at(NOW)).await.unwrap();
    let under_way = open.ledger.under_way(137).await.unwrap();
    assert_eq!(under_way.iter().map(|sending| sending.reservation).collect::<Vec<_>>(), [reservation]);
    assert_eq!(open.ledger.under_way(1).await.unwrap(), []);

    let queued = Progress::default();
    let sent =
        Progress { state: State::Sent, attempts: 1, first_sent_at: Some(1), last_sent_at: Some(1), ..queued.clone() };
    let mined = Progress { state: State::Mined, block: Some(7), succeeded: Some(true), ..sent.clone() };
    let update = async |before: &Progress, next: &Progress| {
        open.ledger.update(reservation, before.clone(), next.clone(), at(NOW)).await.unwrap();
        open.ledger.progress(reservation).await.unwrap().unwrap()
    };
    assert_eq!(update(&queued, &sent).await, sent);
    assert_eq!(update(&sent, &mined).await, mined);
    // Who still took it for queued has nothing to say.
    assert_eq!(update(&queued, &sent).await, mined);
    let confirmed = Progress { state: State::Confirmed, ..mined.clone() };
    assert_eq!(update(&mined, &confirmed).await, confirmed);
    assert_eq!(open.ledger.under_way(137).await.unwrap(), []);
    open.close();
    let open = Open::at(&path);
    assert_eq!(open.ledger.progress(reservation).await, Ok(Some(confirmed)));
    open.close();
}

async fn what_took_its_place_is_kept(place: Place) {
    let open = place.open();
    let both = [("a", 1), ("b", 2)];
    let mut reservations = Vec::new();
    for (name, byte) in both {
        let nonce = if name == "a" { Nonce::Given(7) } else { Nonce::Replacing(7) };
        let body = format!(r#"{{"chainId":137,"type":0,"to":null,"data":"0x00","gas":60000,"gasPrice":{byte}}}"#);
        let reservation = fresh(&open.ledger, Request { nonce, body, ..to_send(name, 0) }).await;
        open.ledger.store(reservation, signed(byte), at(NOW)).await.unwrap();
        reservations.push(reservation);
    }
    let update = async |reservation, next: &Progress| {
        open.ledger.update(reservation, Progress::default(), next.clone(), at(NOW)).await.unwrap();
        assert_eq!(open.ledger.progress(reservation).await.unwrap().as_ref(), Some(next));
    };
    assert_eq!(open.ledger.confirmed(HOT, 137, 7).await, Ok(None));
    update(reservations[1], &Progress { state: State::Confirmed, ..Progress::default() }).await;
    let confirmed = open.ledger.confirmed(HOT, 137, 7).await.unwrap();
    assert_eq!(confirmed, Some(signed(2).hash));
    for (address, chain_id, nonce) in [(COLD, 137, 7), (HOT, 1, 7), (HOT, 137, 8)] {
        assert_eq!(open.ledger.confirmed(address, chain_id, nonce).await, Ok(None));
    }
    update(reservations[0], &Progress { state: State::Replaced, replaced_by: confirmed, ..Progress::default() }).await;
    open.close();
    let told = place.hand("SELECT entry FROM audit ORDER BY seq DESC LIMIT 1").unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["what"], &told["replacedBy"]), (&"replaced".into(), &signed(2).hash.to_string().into()));
}

on_both!(what_took_its_place_is_kept);

fn large(name: &str, body: &str) -> Request {
    let approval = Some(Approval {
        rule: "require_approval",
        detail: "large".into(),
        from: ["security".into()].into(),
        expires_after: Duration::from_secs(HOUR),
    });
    let allowed = Allowed { approval, ..spending(U256::from(4), Some(10)) };
    Request { allowed, body: body.into(), nonce: Nonce::Managed { at_least: 0 }, ..request(name, 4) }
}

#[tokio::test]
async fn what_was_approved_is_what_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let held = async |request| match open.ledger.begin(request).await.unwrap() {
        Begun::Held(held) | Begun::StillHeld(held) => held,
        other => panic!("{other:?}"),
    };
    let first = held(large("a", "{\"gas\":1}")).await;
    assert_eq!(held(large("a", "{\"gas\":2}")).await, first, "what is shown stays as it is");
    let decide = async |approval: u64, digest, by: &str, approved| {
        open.ledger.decide(approval, digest, by.to_owned(), approved, at(NOW)).await.unwrap()
    };
    assert_eq!(decide(first.approval, [9; 32], "security", true).await, Decided::Other);
    assert_eq!(decide(first.approval, [1; 32], "payments", true).await, Decided::Own);
    assert_eq!(decide(99, [1; 32], "security", true).await, Decided::Unknown);
    assert!(matches!(decide(first.approval, [1; 32], "security", true).await, Decided::Done(_)));
    assert!(matches!(decide(first.approval, [1; 32], "security", false).await, Decided::Already(_)));
    let changed = open.ledger.begin(Request { digest: [2; 32], ..large("a", "{}") }).await;
    assert_eq!(changed, Ok(Begun::Conflict));
    let begun = open.ledger.begin(large("a", "{\"gas\":3}")).await.unwrap();
    let Begun::Fresh(Reserved { nonce: 0, body: Some(body), .. }) = begun else { panic!("{begun:?}") };
    assert_eq!(body, "{\"gas\":1}");
    // It counts from now on; and the next that is held counts nothing, until it would be too much.
    let second = held(large("b", "{}")).await;
    decide(second.approval, [1; 32], "security", true).await;
    fresh(&open.ledger, large("b", "{}")).await;
    assert!(matches!(open.ledger.begin(large("c", "{}")).await, Ok(Begun::Denied(_))));
    open.close();
}

#[tokio::test]
async fn so_many_of_a_caller_wait_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    for i in 0..100 {
        assert!(matches!(open.ledger.begin(large(&i.to_string(), "{}")).await, Ok(Begun::Held(_))));
    }
    assert!(matches!(open.ledger.begin(large("more", "{}")).await, Ok(Begun::Denied(_))));
    assert!(matches!(open.ledger.begin(large("7", "{}")).await, Ok(Begun::StillHeld(_))), "this one waits already");
    open.ledger.decide(1, [1; 32], "security".into(), false, at(NOW)).await.unwrap();
    assert!(matches!(open.ledger.begin(large("more", "{}")).await, Ok(Begun::Held(_))));
    // What is expired waits no more.
    assert!(matches!(open.ledger.begin(large("late", "{}")).await, Ok(Begun::Denied(_))));
    let late = Request { now: at(NOW + HOUR), ..large("late", "{}") };
    assert!(matches!(open.ledger.begin(late).await, Ok(Begun::Held(_))));
    open.close();
}

#[tokio::test]
async fn what_needs_no_approval_any_more_is_signed_unless_it_was_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    for name in ["a", "b"] {
        assert!(matches!(open.ledger.begin(large(name, "{}")).await, Ok(Begun::Held(_))));
    }
    let waiting = open.ledger.undecided(at(NOW)).await.unwrap();
    assert_eq!(waiting.len(), 2);
    open.ledger.decide(waiting[0].approval, [1; 32], "security".into(), false, at(NOW)).await.unwrap();
    let free = |name| Request { allowed: Allowed::default(), ..large(name, "{}") };
    assert!(matches!(open.ledger.begin(free("a")).await, Ok(Begun::Denied(_))));
    let reservation = fresh(&open.ledger, free("b")).await;
    open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    assert_eq!(open.ledger.undecided(at(NOW)).await, Ok(Vec::new()));
    open.close();
}
