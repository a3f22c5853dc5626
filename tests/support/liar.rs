use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::read_request;

/// A node that asks another, and lies when it is told to.
pub struct Liar {
    pub url: String,
    lies: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Liar {
    /// In front of the node at this URL.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port())).expect("a free port");
        let own = format!("http://{}", listener.local_addr().expect("bound"));
        let node = url.trim_start_matches("http://").to_owned();
        let lies: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let told = Arc::clone(&lies);
        // It ends with the tests: a listener costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (node, told) = (node.clone(), Arc::clone(&told));
                // A client, or the node, that goes away ends it.
                std::thread::spawn(move || serve(&stream, &node, &told));
            }
        });
        Self { url: own, lies }
    }

    /// From now on this is the answer to every call of a method.
    pub fn says(&self, method: &str, result: Value) {
        self.lies.lock().expect("not poisoned").insert(method.to_owned(), result);
    }

    /// From now on all it says is what the node says.
    pub fn is_honest(&self) {
        self.lies.lock().expect("not poisoned").clear();
    }
}

fn serve(stream: &TcpStream, node: &str, lies: &Mutex<BTreeMap<String, Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let body = read_request(&mut reader).ok()??.body;
        let call: Value = serde_json::from_slice(&body).ok()?;
        let lie = lies.lock().expect("not poisoned").get(call["method"].as_str()?).cloned();
        let answer = match lie {
            Some(result) => json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }).to_string().into_bytes(),
            None => ask(node, &body)?,
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        (&*stream).write_all(&[head.as_bytes(), &answer].concat()).ok()?;
    }
}

/// HTTP/1.0: what comes after the head, to the end, is the answer.
fn ask(node: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(node).ok()?;
    let head = format!(
        "POST / HTTP/1.0\r\nhost: {node}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    Some(answer.split_off(end))
}
