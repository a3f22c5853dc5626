//! Requests that somebody else must approve first.

use super::super::approvals::WAITING;
use super::*;
use crate::policy::{Approval, Denied};

/// A request that one of these must approve.
fn of(caller: &str, name: &str, from: &[&str]) -> Request {
    let from = from.iter().map(|name| (*name).to_owned()).collect();
    let approval = Approval { rule: "require_approval", detail: String::new(), from };
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
async fn what_is_approved_is_what_was_seen_by_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let ledger = &open.ledger;
    let one = held(ledger, of("payments", "a", &["security"])).await;
    assert_eq!(approve(ledger, &one, "payments").await, Decided::Own);
    assert!(matches!(approve(ledger, &one, "security").await, Decided::Done(_)));
    // Filled in otherwise, or approved by somebody who was taken out of the policy since.
    let other = Request { body: r#"{"gas":"1"}"#.into(), ..of("payments", "a", &["security"]) };
    assert_eq!(held(ledger, other).await.body, one.body);
    is_denied(ledger.begin(of("payments", "a", &["board"])).await, "may not any more");
    fresh(ledger, of("payments", "a", &["board", "security"])).await;
    open.close();
}

#[tokio::test]
async fn nobody_fills_the_list_that_others_wait_in() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let ledger = &open.ledger;
    for i in 0..WAITING {
        held(ledger, of("payments", &i.to_string(), &["security"])).await;
    }
    is_denied(ledger.begin(of("payments", "more", &["security"])).await, "already");
    let first = held(ledger, of("payments", "0", &["security"])).await;
    held(ledger, of("payouts", "a", &["security"])).await;
    assert_eq!(ledger.undecided().await.unwrap().len(), WAITING + 1);
    approve(ledger, &first, "security").await;
    held(ledger, of("payments", "more", &["security"])).await;
    open.close();
}
