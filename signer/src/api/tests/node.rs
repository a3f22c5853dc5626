//! A node that says what it is told to, whatever it is asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

pub(crate) struct Node {
    pub(crate) url: String,
    answers: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Node {
    /// Of the chain `id`, where a gas costs 7 wei and a tip of 1, and nobody has sent anything.
    pub(crate) async fn start(id: u64) -> Self {
        let answers: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let (known, asked) = (Arc::clone(&answers), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&asked);
        let serve = axum::routing::post(async move |body: String| {
            let asked: Value = serde_json::from_str(&body).unwrap();
            count.fetch_add(usize::from(asked["method"] != "eth_chainId"), Ordering::Relaxed);
            let answer = known.lock().unwrap().get(asked["method"].as_str().unwrap()).cloned();
            let (name, answer) = match answer {
                Some(answer) => ("result", answer),
                None => ("error", json!({ "code": -32000, "message": "it would revert" })),
            };
            axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], name: answer }))
        });
        tokio::spawn(async { axum::serve(socket, axum::Router::new().route("/", serve)).await });
        let node = Self { url, answers, asked };
        node.says("eth_chainId", json!(format!("{id:#x}")));
        node.says_block(7);
        for (method, answer) in [
            ("eth_maxPriorityFeePerGas", "0x1"),
            ("eth_estimateGas", "0x5208"),
            ("eth_getTransactionCount", "0x0"),
            ("eth_sendRawTransaction", "0x0"),
        ] {
            node.says(method, json!(answer));
        }
        node
    }

    /// How often it was asked anything but its chain's id.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn says(&self, method: &str, result: Value) {
        self.answers.lock().unwrap().insert(method.to_owned(), result);
    }

    pub(super) fn says_block(&self, base_fee: u128) {
        let block = json!({ "number": "0x1", "gasLimit": "0x1c9c380", "baseFeePerGas": format!("{base_fee:#x}") });
        self.says("eth_getBlockByNumber", block);
    }

    /// From now on it would revert.
    pub(super) fn refuses(&self, method: &str) {
        self.answers.lock().unwrap().remove(method);
    }
}
