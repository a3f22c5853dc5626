//! Nodes that change while the signer runs.

use serde_json::json;

use super::sending::{PRIVATE_KEY, Sender};
use super::{assert_problem, listening};
use crate::support::{Anvil, SOON, free_port, wait_until};

fn sender() -> (Anvil, Sender) {
    let anvil = Anvil::start();
    let sender = Sender::new(&anvil.url, PRIVATE_KEY, "confirmations = 1", "");
    anvil.fund(&sender.address);
    (anvil, sender)
}

/// The file, with the line of its node instead.
fn config(sender: &Sender, anvil: &Anvil, line: &str) -> String {
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a file");
    config.replace(&format!("rpc = \"{}\"", anvil.url), line)
}

#[test]
fn a_file_of_nodes_is_taken_over_without_a_restart() {
    let (anvil, sender) = sender();
    let dead = format!("http://127.0.0.1:{}/s3cret", free_port());
    sender.home.config(&config(&sender, &anvil, "rpc_file = \"secrets/test.rpc\""));
    sender.home.secret("secrets/test.rpc", &dead);
    let signer = sender.start();
    assert_problem(&sender.send("1", &json!({})), 503, "chain-unavailable");
    sender.home.secret("secrets/test.rpc", &anvil.url);
    wait_until(SOON, "the next node is asked", || (sender.send("1", &json!({})).status == 200).then_some(()));
    sender.becomes("1", "confirmed");
    // What is no list of nodes changes nothing.
    sender.home.secret("secrets/test.rpc", "ws://s3cret");
    wait_until(SOON, "it is refused", || signer.stderr().contains("not reloaded").then_some(()));
    assert_eq!(sender.send("2", &json!({})).status, 200);
    sender.becomes("2", "confirmed");
    assert!(!signer.stderr().contains("s3cret"), "{}", signer.stderr());
}

#[test]
fn a_chain_that_is_given_nodes_is_sent_to_and_followed() {
    let (anvil, sender) = sender();
    let with = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a file");
    sender.home.config(&config(&sender, &anvil, ""));
    let signer = listening(sender.home.start("signer"));
    assert_problem(&sender.send("1", &json!({})), 400, "invalid-transaction");
    sender.home.config(&with);
    wait_until(SOON, "the node is asked", || (sender.send("1", &json!({})).status == 200).then_some(()));
    sender.becomes("1", "confirmed");
    assert!(!signer.stderr().contains("restart"), "{}", signer.stderr());
    // A chain that comes with its nodes, and one that goes.
    sender.home.config(&with.replace("[signer.chains.test]", "[signer.chains.other]"));
    let known = "/v1/keys/hot-wallet/nonces/other";
    wait_until(SOON, "it has its new name", || (sender.get(known).status == 200).then_some(()));
    assert_eq!(sender.send("2", &json!({})).status, 200);
    sender.becomes("2", "confirmed");
}
