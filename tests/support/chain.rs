use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Process, SOON, curl, node, part, parts, python, run};

/// A chain's node.
pub trait Node {
    /// A JSON-RPC call that must be answered.
    fn ask(&self, method: &str, params: &Value) -> Value;

    /// Gives an address 100 ether.
    fn fund(&self, address: &str);
}

impl Node for Chain {
    fn ask(&self, method: &str, params: &Value) -> Value {
        self.ask(method, params)
    }

    fn fund(&self, address: &str) {
        self.fund(address);
    }
}

/// A chain: hardhat, which mines every transaction at once, and refuses one with a high S.
pub struct Chain {
    process: Process,
    pub url: String,
}

impl Chain {
    /// Its chain id.
    pub const ID: u64 = 31337;

    /// The one that all tests share; each has a sender of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Chain> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn start() -> Self {
        let mut command = node(parts().join("node_modules/hardhat/internal/cli/bootstrap.js"));
        command.arg("--config").arg(part("hardhat.config.js")).args(["node", "--port", "0"]);
        command.args(["--hostname", "127.0.0.1"]).current_dir(parts()).env("HARDHAT_DISABLE_TELEMETRY_PROMPT", "true");
        // What it writes to a home folder goes there.
        for folder in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
            command.env(folder, parts().join("hardhat"));
        }
        let mut process = Process::spawn("hardhat", &mut command);
        let url = process.wait_until(SOON, "the chain says its address", |p| {
            let text = p.stdout();
            let (_, url) = text.split_once("JSON-RPC server at ")?;
            // Up to the slash at its end, whatever follows.
            let (port, _) = url.strip_prefix("http://127.0.0.1:")?.split_once('/')?;
            Some(format!("http://127.0.0.1:{port}"))
        });
        Self { process, url }
    }

    /// A JSON-RPC call; the error is the node's message.
    pub fn rpc(&self, method: &str, params: &Value) -> Result<Value, String> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = curl(["-H", "Content-Type: application/json", "-d", &call, &self.url]).json();
        match answer.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap_or_default().to_owned()),
            None => Ok(answer["result"].clone()),
        }
    }

    #[track_caller]
    fn ask(&self, method: &str, params: &Value) -> Value {
        self.rpc(method, params).unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.process.logs()))
    }

    /// Gives an address 100 ether.
    pub fn fund(&self, address: &str) {
        self.ask("hardhat_setBalance", &json!([address, "0x56bc75e2d63100000"]));
    }

    /// Sends a signed transaction, which is mined at once: its hash, or why the chain refuses it.
    pub fn send(&self, raw: &str) -> Result<String, String> {
        self.rpc("eth_sendRawTransaction", &json!([raw])).map(|hash| hash.as_str().expect("a hash").to_owned())
    }

    /// As [`Self::send`], for what is too long for an argument: the raw transaction is in a file.
    pub fn send_file(&self, raw: &Path) -> Result<String, String> {
        let raw = std::fs::read_to_string(raw).expect("a file");
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [raw] });
        let mut body = tempfile::NamedTempFile::new().expect("a temporary file");
        body.write_all(call.to_string().as_bytes()).expect("a temporary file");
        let data = format!("@{}", body.path().display());
        let answer = curl(["-H", "Content-Type: application/json", "--data-binary", &data, &self.url]).json();
        match answer.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap_or_default().to_owned()),
            None => Ok(answer["result"].as_str().expect("a hash").to_owned()),
        }
    }

    /// The receipt of a mined transaction.
    #[track_caller]
    pub fn receipt(&self, hash: &str) -> Value {
        let receipt = self.ask("eth_getTransactionReceipt", &json!([hash]));
        assert!(receipt.is_object(), "{hash} is not mined");
        receipt
    }

    /// How many transactions of this sender are mined.
    pub fn nonce(&self, address: &str) -> u64 {
        number(&self.ask("eth_getTransactionCount", &json!([address, "latest"])))
    }

    /// An address's balance in wei.
    pub fn balance(&self, address: &str) -> u128 {
        let text = self.ask("eth_getBalance", &json!([address, "latest"]));
        u128::from_str_radix(text.as_str().expect("a quantity").trim_start_matches("0x"), 16).expect("a quantity")
    }
}

fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(quantity.as_str().expect("a quantity").trim_start_matches("0x"), 16).expect("a quantity")
}

/// Whose key it is, as ethers derives it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// With its EIP-55 checksum.
    pub address: String,
    /// `0x04`, x and y.
    pub public_key: String,
}

impl Identity {
    /// Of a public key in a SubjectPublicKeyInfo, in base64.
    pub fn of_spki(base64: &str) -> Self {
        Self::of("spki", base64)
    }

    /// Of a private key: 0x and 64 hex digits.
    pub fn of_private_key(hex: &str) -> Self {
        Self::of("private", hex)
    }

    fn of(kind: &str, key: &str) -> Self {
        let found = run(node(part("address.mjs")).args([kind, key]), b"").json();
        let text = |name: &str| found[name].as_str().expect("a field").to_owned();
        Self { address: text("address"), public_key: text("publicKey") }
    }
}

/// What ethers makes of a signed transaction: `from`, `hash`, and its fields; quantities are decimal strings.
#[track_caller]
pub fn verify_with_ethers(raw: &str) -> Value {
    verify(node(part("verify.mjs")).arg(raw))
}

/// What eth-account makes of it.
#[track_caller]
pub fn verify_with_eth_account(raw: &str) -> Value {
    verify(python("verify.py").arg(raw))
}

/// What ethers signs: a list of jobs on its standard input, a list of answers.
pub fn sign_with_ethers() -> Command {
    node(part("sign.mjs"))
}

/// What eth-account signs.
pub fn sign_with_eth_account() -> Command {
    python("sign.py")
}

#[track_caller]
fn verify(command: &mut Command) -> Value {
    run(command, b"").json()
}
