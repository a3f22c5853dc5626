//! Clients as people have them, unmodified, with keygate as their node: ethers, viem and web3.py.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{JSON, RECIPIENT, SQLITE, TOKEN, Wallet, ask, home, listening, merged};
use crate::support::{
    Anvil, Ca, Chain, FrontTls, Home, Keygate, Kms, Node, Process, SOON, TlsFront, Token, client, forward, run,
    wait_until, word,
};

/// A wallet on hardhat that a client may have sign: a signer with a node to ask, and a port that leads to it.
struct Client {
    wallet: Wallet,
    token: Token,
    signer: Keygate,
    _port: Process,
    url: String,
}

impl Client {
    fn new(policy: &str) -> Self {
        let chain = Chain::shared();
        let mut wallet = Wallet::new();
        let token = Token::deploy(chain);
        wallet.home = with_rpc(&wallet, Chain::ID, &format!("[\"{}\"]", chain.url), policy);
        chain.fund(wallet.address());
        let signer = wallet.start();
        let (port, url) = forward(&wallet.home.path("state/signer.sock"));
        Self { wallet, token, signer, _port: port, url }
    }

    fn permit(&self) -> Value {
        permit(self.wallet.address(), &self.token.address, Chain::ID)
    }
}

/// A permit of the test's token, to be signed.
fn permit(owner: &str, token: &str, chain_id: u64) -> Value {
    let field = |kind: &str, name: &str| json!({ "name": name, "type": kind });
    json!({
        "types": {
            "EIP712Domain": [field("string", "name"), field("string", "version"), field("uint256", "chainId"),
                             field("address", "verifyingContract")],
            "Permit": [field("address", "owner"), field("address", "spender"), field("uint256", "value"),
                       field("uint256", "nonce"), field("uint256", "deadline")],
        },
        "primaryType": "Permit",
        "domain": { "name": "Test Dollar", "version": "1", "chainId": chain_id, "verifyingContract": token },
        "message": { "owner": owner, "spender": RECIPIENT, "value": "1000000", "nonce": 0,
                     "deadline": DEADLINE },
    })
}

const DEADLINE: u64 = 4_000_000_000;

/// The wallet's configuration, with nodes.
fn with_rpc(wallet: &Wallet, id: u64, rpc: &str, policy: &str) -> Home {
    let key = format!("kms = {{ key_id = {:?}, endpoint = {:?} }}", wallet.key.arn, Kms::shared().url);
    home(SQLITE, &key, ("test", id, &format!("rpc = {rpc}")), policy)
}

/// All that a client does, and what must come of it.
#[track_caller]
fn serves(script: &str, denied: &Value) {
    let client_of = Client::new("allow_nonce = true");
    let Client { wallet, token, .. } = &client_of;
    let (chain, permit) = (Chain::shared(), client_of.permit());
    let job = json!({ "typedData": permit, "to": RECIPIENT }).to_string();
    let seen = run(client(script).args([&client_of.url, TOKEN]), job.as_bytes()).json();
    let address = wallet.address();
    assert_eq!(seen["accounts"], json!([address]), "{seen}");
    assert_eq!((&seen["chainId"], &seen["balance"]), (&json!(Chain::ID), &json!("100000000000000000000")));
    for who in ["from", "message", "binary", "typed"] {
        assert_eq!(seen[who].as_str().map(str::to_lowercase), Some(address.to_lowercase()), "{who}: {seen}");
    }
    assert_eq!(seen["denied"], *denied, "{seen}");
    assert!(seen["why"].as_str().is_some_and(|why| why.contains("allow_contract_creation")), "{seen}");
    // The chain takes the transaction, and the token the permit.
    assert_eq!(chain.send(seen["raw"].as_str().expect("raw")).expect("taken"), seen["hash"]);
    assert_eq!(chain.receipt(seen["hash"].as_str().expect("a hash"))["status"], "0x1");
    let signature = seen["signature"].as_str().expect("a signature");
    let words = [
        word(address),
        word(RECIPIENT),
        word("f4240"),
        word(&format!("{DEADLINE:x}")),
        word(&signature[130..]),
        signature[2..130].to_owned(),
    ];
    let data = format!("0xd505accf{}", words.concat());
    let from = chain.rpc("eth_accounts", &json!([])).expect("accounts")[0].clone();
    let sent = chain.rpc("eth_sendTransaction", &json!([{ "from": from, "to": token.address, "data": data }]));
    assert!(sent.is_ok(), "{sent:?}");
    let allowance = token.read(chain, "0xdd62ed3e", &[&word(address), &word(RECIPIENT)]);
    assert_eq!(allowance, 1_000_000);
    assert!(!client_of.signer.logs().contains(TOKEN));
}

#[test]
fn ethers_works() {
    serves("client_ethers.mjs", &json!(4001));
}

#[test]
fn viem_works() {
    serves("client_viem.mjs", &json!("UserRejectedRequestError"));
}

#[test]
fn web3_py_works() {
    serves("client_web3.py", &json!(4001));
}

/// A client sends, and waits for its receipts itself: its node is keygate, on hardhat and on anvil.
#[track_caller]
fn sends(script: &str) {
    let anvil = Anvil::start();
    let nodes: [(&dyn Node, u64, &str); 2] =
        [(Chain::shared(), Chain::ID, &Chain::shared().url), (&anvil, Anvil::ID, &anvil.url)];
    for (node, id, url) in nodes {
        let wallet = Wallet::new();
        let home = with_rpc(&wallet, id, &format!("\"{url}\""), "");
        node.fund(wallet.address());
        let token = Token::deploy(node);
        let from = node.ask("eth_accounts", &json!([]))[0].clone();
        let mint = format!("0x40c10f19{}{}", word(wallet.address()), word("64"));
        node.ask("eth_sendTransaction", &json!([{ "from": from, "to": token.address, "data": mint }]));
        let signer = listening(home.start("signer"));
        let (_port, url) = forward(&home.path("state/signer.sock"));
        let job = json!({ "to": RECIPIENT, "contract": token.address, "typedData": permit(wallet.address(), &token.address, id) });
        let done = run(client(script).args([&*url, TOKEN]), job.to_string().as_bytes());
        assert_eq!(done.code, 0, "{}\n{}\n{}", done.stdout, done.stderr, signer.logs());
        let seen = done.json();
        assert_eq!(seen["statuses"], json!([1, 1, 1]), "{seen}");
        assert!(seen["why"].as_str().is_some_and(|why| why.contains("allow_contract_creation")), "{seen}");
        assert_eq!(node.ask("eth_getTransactionByHash", &json!([seen["hash"]]))["value"], "0x5");
        assert_eq!(token.read(node, "0x70a08231", &[&word(RECIPIENT)]), 7);
        assert_eq!(token.read(node, "0xdd62ed3e", &[&word(wallet.address()), &word(RECIPIENT)]), 1_000_000);
        assert_eq!(node.ask("eth_getTransactionCount", &json!([wallet.address(), "latest"])), "0x3");
    }
}

#[test]
fn ethers_sends() {
    sends("send_ethers.mjs");
}

#[test]
fn viem_sends() {
    sends("send_viem.mjs");
}

#[test]
fn web3_py_sends() {
    sends("send_web3.py");
}

/// hardhat takes no transaction before the one before it: those that come too early are sent again.
#[test]
fn fifty_at_once_are_mined_where_nothing_waits_in_a_pool() {
    let (chain, wallet) = (Chain::shared(), Wallet::new());
    let home = with_rpc(&wallet, Chain::ID, &format!("\"{}\"", chain.url), "");
    chain.fund(wallet.address());
    let signer = listening(home.start("signer"));
    let tx = json!([{ "from": wallet.address(), "to": RECIPIENT, "value": "0x1" }]);
    let hashes: BTreeSet<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(|| call(&home, "eth_sendTransaction", &tx))).collect();
        asking.into_iter().map(|thread| thread.join().expect("an answer")["result"].to_string()).collect()
    });
    assert_eq!(hashes.len(), 50);
    wait_until(SOON, "all are mined", || (chain.nonce(wallet.address()) == 50).then_some(()));
    assert!(!signer.stderr().contains("ERROR"), "{}", signer.stderr());
}

/// A call of JSON-RPC.
#[track_caller]
fn call(home: &Home, method: &str, params: &Value) -> Value {
    let token = format!("Authorization: Bearer {TOKEN}");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    ask(home, "/", &["-H", &token, "-H", JSON, "-d", &body]).json()
}

#[test]
fn gas_and_fees_come_from_the_chain_and_tokens_are_sent() {
    let client_of = Client::new("allow_nonce = true");
    let (wallet, token, chain) = (&client_of.wallet, &client_of.token, Chain::shared());
    let from = chain.rpc("eth_accounts", &json!([])).expect("accounts")[0].clone();
    let mint = format!("0x40c10f19{}{}", word(wallet.address()), word("64"));
    chain.rpc("eth_sendTransaction", &json!([{ "from": from, "to": token.address, "data": mint }])).expect("minted");
    let transfer = |amount: &str| format!("0xa9059cbb{}{}", word(RECIPIENT), word(amount));
    let tx = |data: String| json!([{ "from": wallet.address(), "to": token.address, "nonce": "0x0", "input": data }]);
    let signed = call(&wallet.home, "eth_signTransaction", &tx(transfer("28")));
    let fields = &signed["result"]["tx"];
    assert_eq!((&fields["type"], &fields["chainId"]), (&json!("0x2"), &json!("0x7a69")), "{signed}");
    let hash = chain.send(signed["result"]["raw"].as_str().expect("raw")).expect("taken");
    let receipt = chain.receipt(&hash);
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    assert_eq!(token.read(chain, "0x70a08231", &[&word(RECIPIENT)]), 0x28);
    let gas = |value: &Value| u64::from_str_radix(&value.as_str().expect("hex")[2..], 16).expect("hex");
    assert!(gas(&fields["gas"]) > gas(&receipt["gasUsed"]), "{fields} {receipt}");
    // What would revert is not signed, and the reason is the contract's.
    let reverts = merged(tx(transfer("ff"))[0].take(), &json!({ "nonce": "0x1" }));
    let refused = call(&wallet.home, "eth_signTransaction", &json!([reverts]));
    assert!(
        refused["error"]["message"].as_str().is_some_and(|why| why.contains("Token: balance too low")),
        "{refused}"
    );
    // A transaction of type 0 has the price of the node.
    let legacy = json!([{ "from": wallet.address(), "to": RECIPIENT, "nonce": "0x1", "type": "0x0" }]);
    let signed = call(&wallet.home, "eth_signTransaction", &legacy);
    assert!(signed["result"]["tx"]["gasPrice"].is_string(), "{signed}");
    chain.send(signed["result"]["raw"].as_str().expect("raw")).expect("taken");
}

#[test]
fn nodes_are_tried_in_order_and_none_of_another_chain() {
    let (anvil, hardhat, wallet) = (Anvil::start(), Chain::shared(), Wallet::new());
    let closed = crate::support::free_port();
    let rpc = format!("[\"http://127.0.0.1:{closed}/s3cret\", \"{}/s3cret\", \"{}\"]", hardhat.url, anvil.url);
    let home = with_rpc(&wallet, Anvil::ID, &rpc, "allow_nonce = true\nrpc_methods = [\"eth_getBalance\"]");
    let signer = listening(home.start("signer"));
    anvil.fund(wallet.address());
    let balance = call(&home, "eth_getBalance", &json!([wallet.address(), "latest"]));
    assert_eq!(balance["result"], "0x56bc75e2d63100000", "{balance}\n{}", signer.logs());
    let signed =
        call(&home, "eth_signTransaction", &json!([{ "from": wallet.address(), "to": RECIPIENT, "nonce": "0x0" }]));
    let hash = anvil.ask("eth_sendRawTransaction", &json!([signed["result"]["raw"]]));
    let receipt = wait_until(SOON, "it is mined", || {
        Some(anvil.ask("eth_getTransactionReceipt", &json!([hash]))).filter(Value::is_object)
    });
    assert_eq!(receipt["status"], "0x1");
    // The policy names one method.
    let denied = call(&home, "eth_call", &json!([{ "to": RECIPIENT }, "latest"]));
    assert_eq!((&denied["error"]["code"], &denied["error"]["data"]["rule"]), (&json!(4100), &json!("rpc_methods")));
    let logs = signer.logs();
    assert!(logs.contains("not of chain") && !logs.contains("s3cret"), "{logs}");
}

#[test]
fn a_node_must_show_a_certificate_that_this_machine_trusts() {
    let (anvil, wallet, ca) = (Anvil::start(), Wallet::new(), Ca::new());
    let address = anvil.url.trim_start_matches("http://").parse().expect("an address");
    for (leaf, trusted) in
        [(ca.leaf(&["127.0.0.1"]), true), (ca.leaf(&["localhost"]), false), (Ca::new().leaf(&["127.0.0.1"]), false)]
    {
        let front = TlsFront::start(address, &FrontTls::new(&leaf));
        let rpc = format!("\"https://{}/?k=s3cret\"", front.server());
        let home = with_rpc(&wallet, Anvil::ID, &rpc, "");
        home.write("ca.pem", &ca.cert);
        let home = home.env("SSL_CERT_FILE", "ca.pem");
        let signer = listening(home.start("signer"));
        let answer = call(&home, "eth_getBalance", &json!([RECIPIENT, "latest"]));
        if trusted {
            assert!(answer["result"].is_string(), "{answer}");
        } else {
            assert_eq!(answer["error"]["code"], -32002, "{answer}");
            assert!(answer["error"]["message"].as_str().is_some_and(|why| why.contains("certificate")), "{answer}");
        }
        assert!(!signer.logs().contains("s3cret") && !answer.to_string().contains("s3cret"), "{}", signer.logs());
    }
}
