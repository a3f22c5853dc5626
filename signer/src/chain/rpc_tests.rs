use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::fees::Market;
use super::super::node::{Block, Moment, Receipt, Sent, Used};
use super::super::rejected::Rejected;
use super::super::search::Search;
use super::super::shown::tests::{SENDER, by_example};
use super::*;
use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

/// What a node answers next.
enum Turn {
    /// This result, to a request with this method.
    Result(&'static str, Value),
    /// This error.
    Error(i64, &'static str),
    /// This status and body; `ID` in it is the request's id.
    Raw(u16, String),
    /// Nothing: the connection is closed.
    Close,
}

/// A node on loopback, which answers as it is told to.
async fn node(turns: Vec<Turn>) -> (RpcUrl, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = RpcUrl::parse(&format!("http://{}/s3cret", listener.local_addr().unwrap())).unwrap();
    let serving = tokio::spawn(async move {
        let mut turns = VecDeque::from(turns);
        let all = turns.len();
        while let Some(turn) = turns.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = request(&mut stream).await;
            let id = &request["id"];
            let (status, body) = match turn {
                Turn::Result(method, result) => {
                    assert_eq!(request["method"], method);
                    (200, json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
                }
                Turn::Error(code, message) => (
                    200,
                    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string(),
                ),
                Turn::Raw(status, body) => (status, body.replace("ID", &id.to_string())),
                Turn::Close => continue,
            };
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // A client that reads no more is what some of these tests are about.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
        all
    });
    (url, serving)
}

async fn request(stream: &mut tokio::net::TcpStream) -> Value {
    let mut read = Vec::new();
    loop {
        let mut more = [0; 4096];
        let n = stream.read(&mut more).await.unwrap();
        assert_ne!(n, 0);
        read.extend_from_slice(&more[..n]);
        let text = String::from_utf8_lossy(&read);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return body;
        }
    }
}

fn ours() -> Turn {
    Turn::Result("eth_chainId", json!("0x89"))
}

/// An answer must come of these nodes, or none, after all they had to say.
async fn asked(nodes: Vec<Vec<Turn>>) -> Result<String, RpcError> {
    let (mut urls, mut serving) = (Vec::new(), Vec::new());
    for turns in nodes {
        let (url, node) = node(turns).await;
        urls.push(url);
        serving.push(node);
    }
    let rpc = Rpc::new(137, urls, Client::new(false).unwrap());
    let answer = rpc.call("eth_blockNumber", &json!([])).await.map(|raw| raw.get().to_owned());
    for node in serving {
        tokio::time::timeout(TIMEOUT, node).await.expect("every turn is taken").unwrap();
    }
    answer
}

fn said() -> Turn {
    Turn::Result("eth_blockNumber", json!("0x10"))
}

#[tokio::test]
async fn the_next_node_is_asked_when_one_fails() {
    let failing = || {
        [
            Turn::Close,
            Turn::Raw(500, "{}".into()),
            Turn::Raw(429, String::new()),
            Turn::Raw(403, "{}".into()),
            Turn::Raw(400, "no".into()),
            Turn::Raw(200, "no".into()),
            Turn::Raw(200, r#"{"jsonrpc":"2.0","id":99,"result":"0x1"}"#.into()),
            Turn::Raw(200, r#"{"jsonrpc":"2.0","id":"ID","result":"0x1"}"#.into()),
            Turn::Raw(200, r#"{"jsonrpc":"2.0","id":ID}"#.into()),
            Turn::Raw(200, " ".repeat(MAX_ANSWER + 1)),
            Turn::Error(LIMIT_EXCEEDED, "slower"),
        ]
    };
    for turn in failing() {
        assert_eq!(asked(vec![vec![ours(), turn], vec![ours(), said()]]).await.unwrap(), r#""0x10""#);
    }
    for turn in failing() {
        let error = asked(vec![vec![ours(), turn]]).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
    // What a node refuses, others would refuse.
    let error = asked(vec![vec![ours(), Turn::Error(-32000, "no https://node.example/s3cret today")], vec![]]).await;
    assert_eq!(error.unwrap_err().to_string(), "the node says: no [URL] today (code -32000)");
}

#[tokio::test]
async fn a_node_of_another_chain_is_not_asked() {
    let other = || vec![Turn::Result("eth_chainId", json!("0x1"))];
    assert!(asked(vec![other(), vec![ours(), said()]]).await.is_ok());
    let error = asked(vec![other()]).await.unwrap_err();
    assert!(matches!(error, RpcError::WrongChain { expected: 137, found: 1 }), "{error}");
    // Whoever fails is asked again: another node may have its address by then.
    let (url, serving) = node(vec![ours(), Turn::Close, Turn::Result("eth_chainId", json!("0x1"))]).await;
    let rpc = Rpc::new(137, vec![url], Client::new(false).unwrap());
    assert!(matches!(rpc.block_number().await.unwrap_err(), RpcError::Unreachable(_)));
    assert!(matches!(rpc.block_number().await.unwrap_err(), RpcError::WrongChain { .. }));
    assert_eq!(serving.await.unwrap(), 3);
}

#[tokio::test]
async fn one_that_failed_is_asked_last() {
    let (one, first) = node(vec![Turn::Close, ours(), said()]).await;
    let (two, second) = node(vec![ours(), said(), said(), Turn::Close]).await;
    let rpc = Rpc::new(137, vec![one, two], Client::new(false).unwrap());
    for _ in 0..3 {
        assert_eq!(rpc.block_number().await.unwrap(), 16);
    }
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (3, 4));
}

#[tokio::test]
async fn what_nodes_say_is_typed() {
    let hash = B256::repeat_byte(0xab);
    let receipt = |fields: Value| Turn::Result("eth_getTransactionReceipt", fields);
    let mut turns = vec![ours()];
    turns.extend([
        Turn::Result("eth_getTransactionCount", json!("0x7")),
        Turn::Result(
            "eth_getBlockByNumber",
            json!({ "number": "0x10", "gasLimit": "0x1c9c380", "baseFeePerGas": "0x7" }),
        ),
        Turn::Result("eth_maxPriorityFeePerGas", json!("0x3")),
        Turn::Error(NO_SUCH_METHOD, "no such method"),
        Turn::Result("eth_feeHistory", json!({ "reward": [["0x0"], ["0x5"], ["0x9"]], "gasUsedRatio": [0.5] })),
        Turn::Result("eth_gasPrice", json!("0x4")),
        receipt(json!(null)),
        receipt(json!({ "transactionHash": hash, "blockNumber": "0xf", "status": "0x0" })),
        receipt(json!({ "transactionHash": hash, "blockNumber": null, "status": null })),
        receipt(json!({ "transactionHash": B256::ZERO, "blockNumber": "0xf", "status": "0x1" })),
        Turn::Result("eth_getTransactionByHash", json!(null)),
        Turn::Result("eth_getTransactionByHash", json!({ "hash": hash })),
        Turn::Result("eth_sendRawTransaction", json!(hash)),
        Turn::Error(-32000, "already known"),
        Turn::Error(-32000, "nonce too low: next nonce 5, tx nonce 4"),
        Turn::Result("eth_blockNumber", json!(16)),
        Turn::Result("eth_blockNumber", json!("0x1ffffffffffffffff")),
    ]);
    let (url, serving) = node(turns).await;
    let rpc = Rpc::new(137, vec![url], Client::new(false).unwrap());
    assert_eq!(rpc.transaction_count(Address::ZERO, Moment::Pending).await.unwrap(), 7);
    let block = rpc.latest_block().await.unwrap();
    assert_eq!(block, Block { number: 16, gas_limit: 30_000_000, base_fee: Some(7) });
    assert_eq!(rpc.market(block).await.unwrap(), Market::Eip1559 { base_fee: 7, tip: 3 });
    assert_eq!(rpc.market(block).await.unwrap(), Market::Eip1559 { base_fee: 7, tip: 9 });
    assert_eq!(rpc.market(Block { base_fee: None, ..block }).await.unwrap(), Market::Legacy { gas_price: 4 });
    assert_eq!(rpc.receipt(hash).await.unwrap(), None);
    assert_eq!(rpc.receipt(hash).await.unwrap(), Some(Receipt { block: 15, success: false }));
    assert_eq!(rpc.receipt(hash).await.unwrap(), None);
    assert!(rpc.receipt(hash).await.is_err());
    assert!(!rpc.knows(hash).await.unwrap());
    assert!(rpc.knows(hash).await.unwrap());
    assert_eq!(rpc.send(&[2]).await.unwrap(), Sent::Accepted);
    assert_eq!(rpc.send(&[2]).await.unwrap(), Sent::Accepted);
    assert!(matches!(rpc.send(&[2]).await.unwrap(), Sent::Rejected(Rejected::NonceTooLow, _)));
    // What is no quantity, or does not fit, is no number.
    assert!(rpc.block_number().await.is_err());
    assert!(rpc.block_number().await.is_err());
    serving.await.unwrap();
}

const NO_SUCH_METHOD: i64 = -32601;

#[test]
fn what_is_shown_is_bounded_and_has_no_url() {
    assert_eq!(shown("see https://a.example/s3cret?k=1 for\nmore"), "see [URL] for more");
    assert_eq!(shown("at(wss://a/s3cret)\u{1b}[0m"), "at([URL]  [0m");
    assert_eq!(shown(&"x".repeat(10_000)).chars().count(), MAX_MESSAGE);
    assert_eq!(shown(&"é ".repeat(10_000)).chars().count(), MAX_MESSAGE - 1);
}

/// What a node says of who used nonce 5 before block 2, at the head 2: with these answers, after its chain's id.
async fn used_by(answers: Vec<Turn>) -> Result<Option<Used>, RpcError> {
    let count = |count: &str| Turn::Result("eth_getTransactionCount", json!(count));
    // None at block 0, and it is used at block 1.
    let turns: Vec<Turn> = [ours(), count("0x0"), count("0x6")].into_iter().chain(answers).collect();
    let (url, serving) = node(turns).await;
    let rpc = Rpc::new(137, vec![url], Client::new(false).unwrap());
    let used = rpc.used_by(SENDER.parse().unwrap(), 5, Search::new(5, 2, 2)).await;
    serving.await.unwrap();
    used
}

#[tokio::test]
async fn only_what_a_block_shows_has_used_a_nonce() {
    let block =
        |transactions: Value| vec![Turn::Result("eth_getBlockByNumber", json!({ "transactions": transactions }))];
    let ((own, hash), (before, _), (elsewhere, _)) = (by_example(137, 5), by_example(137, 4), by_example(1, 5));
    let with = |field: &str, value: &str| {
        let mut tx = own.clone();
        tx[field] = value.into();
        tx
    };
    // Of another sender, nonce or chain; and what nobody has signed, whatever it is said to be.
    let other = Address::repeat_byte(2).to_string();
    let made_up = json!({ "from": SENDER, "nonce": "0x5", "hash": hash, "value": "0x1" });
    let others = [with("from", &other), before, elsewhere, made_up, with("value", "0x1"), with("r", "0x1")];
    let mut all = others.to_vec();
    all.push(with("hash", &B256::ZERO.to_string()));
    assert_eq!(used_by(block(json!(all))).await.unwrap(), Some(Used { block: 1, hash }));
    for nothing in [json!([]), json!(others)] {
        assert_eq!(used_by(block(nothing)).await.unwrap(), None);
    }
    assert_eq!(used_by(vec![Turn::Result("eth_getBlockByNumber", Value::Null)]).await.unwrap(), None);
    // Hashes only are not what was asked for.
    assert!(matches!(used_by(block(json!([B256::ZERO]))).await, Err(RpcError::BadAnswer(_))));
    let refused = used_by(vec![Turn::Error(-32000, "missing trie node")]).await;
    assert!(matches!(refused, Err(RpcError::Refused(_))));
}
