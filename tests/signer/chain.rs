//! What the signer makes of real nodes' answers: hardhat's and anvil's.

use std::time::{Duration, SystemTime};

use keygate_config::RpcUrl;
use keygate_signer::Address;
use keygate_signer::chain::node::{Moment, Sent, Used};
use keygate_signer::chain::rejected::Rejected;
use keygate_signer::chain::rpc::{Client, Rpc};
use keygate_signer::chain::search::Search;
use keygate_signer::chain::track::{Seen, Settings, Step, Tracked, User, step};
use serde_json::{Value, json};

use super::{RECIPIENT, merged};
use crate::support::{Anvil, Chain, Node, run, sign_with_ethers};

const SETTINGS: Settings =
    Settings { confirmations: 3, rebroadcast: Duration::from_secs(30), stuck_after: Duration::from_secs(300) };

fn rpc(id: u64, url: &str) -> Rpc {
    Rpc::new(id, vec![RpcUrl::parse(url).expect("a URL")], Client::new(false).expect("a client"))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// A sender with a key of its own, as ethers signs for it.
struct Sender {
    key: String,
    id: u64,
    address: Address,
}

impl Sender {
    fn new(id: u64, key: &str) -> Self {
        let key = format!("0x{}", key.repeat(32));
        let address = crate::support::Identity::of_private_key(&key).address.parse().expect("an address");
        Self { key, id, address }
    }

    /// A payment of 1 wei with these fields instead: its raw bytes.
    fn signs(&self, fields: &Value) -> Vec<u8> {
        let payment = json!({ "chainId": self.id, "type": 2, "nonce": 0, "to": RECIPIENT, "value": "1", "gas": 21_000,
                              "maxFeePerGas": "0x2540be400", "maxPriorityFeePerGas": "1000000000" });
        let job = json!([{ "kind": "transaction", "key": self.key, "of": merged(payment, fields) }]);
        let signed = run(&mut sign_with_ethers(), job.to_string().as_bytes()).json();
        hex::decode(&signed[0]["raw"].as_str().expect("raw")[2..]).expect("hex")
    }
}

async fn rejected(rpc: &Rpc, raw: &[u8]) -> Option<Rejected> {
    match rpc.send(raw).await.expect("an answer") {
        Sent::Accepted => None,
        Sent::Rejected(why, _) => Some(why),
    }
}

#[test]
fn what_nodes_refuse_is_understood() {
    let (anvil, hardhat) = (Anvil::with(&["--no-mining"]), Chain::shared());
    for (id, url, pooled) in [(Anvil::ID, &anvil.url, true), (Chain::ID, &hardhat.url, false)] {
        let (rpc, sender) = (rpc(id, url), Sender::new(id, "c1"));
        let pays = |fields: Value| sender.signs(&fields);
        wait(async {
            assert_eq!(rejected(&rpc, &pays(json!({}))).await, Some(Rejected::InsufficientFunds), "{url}");
            if pooled {
                anvil.fund(&sender.address.to_string());
            } else {
                hardhat.fund(&sender.address.to_string());
            }
            assert_eq!(rejected(&rpc, &pays(json!({}))).await, None, "{url}");
            if pooled {
                // Waits in the pool, and is known there.
                assert_eq!(rejected(&rpc, &pays(json!({}))).await, None);
                let cheaper = pays(json!({ "value": "2" }));
                assert_eq!(rejected(&rpc, &cheaper).await, Some(Rejected::ReplacementUnderpriced));
                anvil.ask("evm_mine", &json!([]));
            }
            assert_eq!(rejected(&rpc, &pays(json!({ "value": "3" }))).await, Some(Rejected::NonceTooLow), "{url}");
            let low = pays(json!({ "nonce": 1, "maxFeePerGas": "1", "maxPriorityFeePerGas": "0" }));
            assert_eq!(rejected(&rpc, &low).await, Some(Rejected::Underpriced), "{url}");
            assert_eq!(rejected(&rpc, &[0x02, 0xc0]).await, Some(Rejected::Other), "{url}");
        });
    }
}

async fn seen(rpc: &Rpc, sender: Address, hash: alloy_primitives::B256) -> Seen {
    let head = rpc.block_number().await.expect("a number");
    let settled = Moment::Block(SETTINGS.settled_block(head));
    Seen {
        head,
        settled_count: rpc.transaction_count(sender, settled).await.expect("a count"),
        latest_count: rpc.transaction_count(sender, Moment::Latest).await.expect("a count"),
        known: rpc.knows(hash).await.expect("an answer"),
        receipt: rpc.receipt(hash).await.expect("an answer"),
        user: User::Unsought,
    }
}

#[test]
fn a_transaction_is_followed_through_a_reorganisation() {
    let anvil = Anvil::with(&["--no-mining"]);
    let (rpc, sender) = (rpc(Anvil::ID, &anvil.url), Sender::new(Anvil::ID, "c2"));
    anvil.fund(&sender.address.to_string());
    let mine = |blocks: u64| drop(anvil.ask("anvil_mine", &json!([blocks])));
    mine(5);
    let raw = sender.signs(&json!({}));
    let hash = alloy_primitives::keccak256(&raw);
    let sent = SystemTime::now();
    let tracked = Tracked { nonce: 0, first_sent: sent, last_sent: sent };
    let at = |seconds| sent + Duration::from_secs(seconds);
    wait(async {
        let now = async |seconds| step(&SETTINGS, &tracked, &seen(&rpc, sender.address, hash).await, at(seconds));
        assert_eq!(now(31).await, Step::Rebroadcast, "no node has it");
        assert_eq!(rpc.send(&raw).await.expect("an answer"), Sent::Accepted);
        assert_eq!((now(31).await, now(300).await), (Step::Wait, Step::Stuck));
        let before = anvil.ask("evm_snapshot", &json!([]));
        mine(1);
        assert_eq!(now(300).await, Step::Mined { block: 6, depth: 1 });
        // The block is taken back, and its transaction with it.
        anvil.ask("evm_revert", &json!([before]));
        anvil.ask("anvil_dropAllTransactions", &json!([]));
        assert_eq!(now(31).await, Step::Rebroadcast);
        let before = anvil.ask("evm_snapshot", &json!([]));
        assert_eq!(rpc.send(&raw).await.expect("an answer"), Sent::Accepted);
        mine(2);
        assert_eq!(now(300).await, Step::Mined { block: 6, depth: 2 });
        mine(1);
        assert!(matches!(now(300).await, Step::Confirmed { success: true, .. }));
        // In another world, another transaction has the nonce.
        anvil.ask("evm_revert", &json!([before]));
        let other = sender.signs(&json!({ "value": "2" }));
        assert_eq!(rpc.send(&other).await.expect("an answer"), Sent::Accepted);
        mine(1);
        assert_eq!(now(31).await, Step::Wait);
        mine(2);
        assert_eq!(now(31).await, Step::Seek);
        let search = Search::new(0, SETTINGS.settled_block(8), 8);
        let used = rpc.used_by(sender.address, 0, search).await.expect("an answer");
        let other = alloy_primitives::keccak256(&other);
        assert_eq!(used, Some(Used { block: 6, hash: other }));
        let seen = Seen { user: User::Another(other), ..seen(&rpc, sender.address, hash).await };
        assert_eq!(step(&SETTINGS, &tracked, &seen, at(31)), Step::Replaced(other));
    });
}

/// What used a nonce long ago is found as far back as a node remembers, and where nothing did, nothing is.
#[test]
fn the_block_that_used_a_nonce_is_found() {
    let (anvil, hardhat) = (Anvil::with(&["--no-mining"]), Chain::shared());
    let nodes: [(u64, &str, &dyn Node); 2] = [(Anvil::ID, &anvil.url, &anvil), (Chain::ID, &hardhat.url, hardhat)];
    for (id, url, node) in nodes {
        let (rpc, sender) = (rpc(id, url), Sender::new(id, "c3"));
        node.fund(&sender.address.to_string());
        let (first, second) = (sender.signs(&json!({})), sender.signs(&json!({ "nonce": 1 })));
        let mut blocks = Vec::new();
        for raw in [&first, &second] {
            wait(async { assert_eq!(rpc.send(raw).await.expect("an answer"), Sent::Accepted) });
            // The other chain is other tests', too, and mines by itself.
            if id == Anvil::ID {
                node.ask("anvil_mine", &json!(["0x12c"]));
            }
            let receipt = node.ask("eth_getTransactionReceipt", &json!([alloy_primitives::keccak256(raw)]));
            let block = receipt["blockNumber"].as_str().expect("a number");
            blocks.push(u64::from_str_radix(&block[2..], 16).expect("a number"));
        }
        wait(async {
            let head = rpc.block_number().await.expect("a number");
            for (nonce, raw) in [&first, &second].into_iter().enumerate() {
                let used = rpc.used_by(sender.address, nonce as u64, Search::new(nonce as u64, head, head)).await;
                let expected = Used { block: blocks[nonce], hash: alloy_primitives::keccak256(raw) };
                assert_eq!(used.expect("an answer"), Some(expected), "{url}");
            }
            // What no count ever passed: the search ends at the head, whose block has no such transaction.
            let unused = rpc.used_by(sender.address, 7, Search::new(7, head, head)).await.expect("an answer");
            assert_eq!(unused, None);
        });
    }
}
