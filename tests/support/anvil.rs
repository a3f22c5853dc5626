use std::process::Command;

use serde_json::{Value, json};

use super::{Node, Process, SOON, curl, parts};

/// A chain: anvil, which mines when it is told to, or every transaction at once.
pub struct Anvil {
    process: Process,
    pub url: String,
}

impl Node for Anvil {
    fn ask(&self, method: &str, params: &Value) -> Value {
        self.ask(method, params)
    }

    fn fund(&self, address: &str) {
        self.fund(address);
    }
}

impl Anvil {
    /// Its chain id.
    pub const ID: u64 = 31338;

    /// Mines every transaction at once.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments: `--no-mining` keeps transactions in the pool until [`Self::ask`] has `evm_mine` mine them.
    pub fn with(args: &[&str]) -> Self {
        let mut command = Command::new(parts().join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--chain-id", &Self::ID.to_string()]).args(args);
        // What it keeps goes there.
        command.env("HOME", parts().join("anvil"));
        let mut process = Process::spawn("anvil", &mut command);
        let url = process.wait_until(SOON, "the chain says its address", |p| {
            let text = p.stdout();
            let (_, address) = text.split_once("Listening on ")?;
            let (address, _) = address.split_once('\n')?;
            Some(format!("http://{}", address.trim()))
        });
        Self { process, url }
    }

    /// A JSON-RPC call that must be answered.
    #[track_caller]
    pub fn ask(&self, method: &str, params: &Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = curl(["-H", "Content-Type: application/json", "-d", &call, &self.url]).json();
        assert!(answer.get("error").is_none(), "{method}: {answer}\n{}", self.process.logs());
        answer["result"].clone()
    }

    /// Gives an address 100 ether.
    pub fn fund(&self, address: &str) {
        self.ask("anvil_setBalance", &json!([address, "0x56bc75e2d63100000"]));
    }
}
