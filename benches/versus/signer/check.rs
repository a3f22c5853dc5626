//! Whether an answer is the payment that was asked for, signed by the key.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, U256};
use serde_json::Value;

use crate::load::{Answer, Window};
use crate::peers::{CHAIN, GAS, Kms, MAX_FEE, PRIORITY_FEE, Peer, RECIPIENT, Running, VALUE};

/// How many of the answers are wrong.
pub fn wrong(peer: &Running, kms: &Kms, window: &Window) -> u64 {
    let mut wrong = 0;
    for answer in &window.answers {
        // What the stub answers is looked at where it is signed with.
        let right = answer.status == 200 && (peer.peer == Peer::Kms || is_right(answer, kms.key).is_some());
        if !right && wrong < 3 {
            eprintln!("{}: {} {}", peer.peer.title(), answer.status, String::from_utf8_lossy(&answer.body));
        }
        wrong += u64::from(!right);
    }
    wrong
}

fn is_right(answer: &Answer, key: Address) -> Option<()> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let raw = hex::decode(body["raw"].as_str()?.strip_prefix("0x")?).ok()?;
    let tx = TxEnvelope::decode_2718_exact(&raw).ok()?;
    let asked = (Some(CHAIN), answer.nonce, Some(RECIPIENT.parse().ok()?), U256::from(VALUE), GAS);
    let fees = (tx.max_fee_per_gas(), tx.max_priority_fee_per_gas(), tx.input().len());
    let right = tx.is_eip1559()
        && (tx.chain_id(), tx.nonce(), tx.to(), tx.value(), tx.gas_limit()) == asked
        && fees == (MAX_FEE, Some(PRIORITY_FEE), 0)
        // Refuses a high S.
        && tx.recover_signer().ok()? == key
        && body["hash"].as_str()? == tx.tx_hash().to_string();
    right.then_some(())
}
