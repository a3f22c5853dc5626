use serde_json::{Value, json};

use super::{Node, SOON, wait_until};

/// The bytecode of `tests/parts/token/Token.sol`, an ERC-20 token with permits.
pub struct Token {
    pub address: String,
}

impl Token {
    /// A new one on the chain, from an account of the node's own.
    #[track_caller]
    pub fn deploy(chain: &(impl Node + ?Sized)) -> Self {
        let token: Value = serde_json::from_str(include_str!("../parts/token/token.json")).expect("JSON");
        let ask = |method: &str, params: Value| chain.ask(method, &params);
        let from = ask("eth_accounts", json!([]))[0].clone();
        let hash = ask("eth_sendTransaction", json!([{ "from": from, "data": token["bytecode"], "gas": "0x2dc6c0" }]));
        let receipt = wait_until(SOON, "the token is mined", || {
            Some(ask("eth_getTransactionReceipt", json!([hash]))).filter(Value::is_object)
        });
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        Self { address: receipt["contractAddress"].as_str().expect("an address").to_owned() }
    }

    /// What a function with a selector and words of arguments answers: a number.
    #[track_caller]
    pub fn read(&self, chain: &(impl Node + ?Sized), selector: &str, words: &[&str]) -> u128 {
        let data = format!("{selector}{}", words.concat());
        let answer = chain.ask("eth_call", &json!([{ "to": self.address, "data": data }, "latest"]));
        u128::from_str_radix(answer.as_str().expect("hex").trim_start_matches("0x").trim_start_matches('0'), 16)
            .unwrap_or(0)
    }
}

/// An argument of 32 bytes: an address or a number in hex.
pub fn word(hex: &str) -> String {
    format!("{:0>64}", hex.trim_start_matches("0x").to_lowercase())
}
