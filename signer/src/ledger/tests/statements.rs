//! What was signed besides transactions.

use super::*;

pub(super) fn statement(content: &str) -> Statement {
    Statement {
        caller: "payments".into(),
        key: "hot".into(),
        address: Address::repeat_byte(0x11),
        policy: "payouts".into(),
        kind: "message",
        digest: B256::repeat_byte(1),
        content: content.into(),
        signature: [2; 65],
        now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

async fn what_was_said_is_there_for_ever(place: Place) {
    for _ in 0..2 {
        let open = place.open();
        open.ledger.record(statement("one")).await.unwrap();
        open.close();
    }
    assert_eq!(place.hand("SELECT signed_at FROM statements").unwrap(), "1800000000000\n1800000000000");
    for change in ["DELETE FROM statements", "UPDATE statements SET signed_at = 1"] {
        assert!(place.hand(change).unwrap_err().contains("what was signed"), "{change}");
    }
}

on_both!(what_was_said_is_there_for_ever);
