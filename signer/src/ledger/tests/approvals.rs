//! Requests that somebody else must approve first.

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
