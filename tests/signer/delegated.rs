//! A key that lets its own account be acted for (EIP-7702): using that takes a nonce of the account.

use serde_json::json;

use super::sending::{PRIVATE_KEY, Sender, ok};
use crate::support::Anvil;

const DELEGATE: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";

#[test]
fn the_nonce_that_its_own_authorization_took_is_given_to_no_payment() {
    let anvil = Anvil::start();
    let policy = format!("sign = [\"transaction\", \"authorization\"]\ndelegates = [\"{DELEGATE}\"]");
    let sender = Sender::new(&anvil.url, PRIVATE_KEY, "confirmations = 1", &policy);
    anvil.fund(&sender.address);
    let _signer = sender.start();
    // The node's count is known from here on.
    assert_eq!(ok(&sender.send("a", &json!({})))["nonce"], 0);
    sender.becomes("a", "confirmed");
    // An account's nonce is raised first for its transaction, and then for its authorization.
    let body = json!({ "chainId": Anvil::ID, "address": DELEGATE, "nonce": 2 });
    let own = ok(&sender.post("/v1/keys/hot-wallet/authorizations", "own", &body));
    let list = json!([{ "chainId": own["chainId"], "address": own["address"], "nonce": own["nonce"],
                        "yParity": own["yParity"], "r": own["r"], "s": own["s"] }]);
    let delegation = json!({ "type": 4, "gas": 200_000, "authorizationList": list });
    assert_eq!(ok(&sender.send("b", &delegation))["nonce"], 1);
    sender.becomes("b", "confirmed");
    assert_eq!(anvil.ask("eth_getTransactionCount", &json!([sender.address, "latest"])), "0x3");
    assert_eq!(ok(&sender.send("c", &json!({})))["nonce"], 3);
    sender.becomes("c", "confirmed");
}
