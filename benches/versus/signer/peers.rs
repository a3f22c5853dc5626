//! Those who sign, as processes, and the KMS that signs for all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keygate_signer::key::PublicKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::connection::Connection;
use crate::process::Process;

/// The payment that is asked for, but for its nonce.
pub const CHAIN: u64 = 137;
pub const RECIPIENT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
pub const VALUE: u64 = 1_000_000_000_000;
pub const GAS: u64 = 21_000;
pub const MAX_FEE: u128 = 40_000_000_000;
pub const PRIORITY_FEE: u128 = 30_000_000_000;

/// A process that does not listen by then will not.
const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Keygate,
    Alloy,
    Node,
    /// Nobody in between: a `Sign`, and nothing else.
    Kms,
}

impl Peer {
    pub const ALL: [Self; 4] = [Self::Keygate, Self::Alloy, Self::Node, Self::Kms];

    pub fn title(self) -> &'static str {
        match self {
            Self::Keygate => "keygate, durable",
            Self::Alloy => "alloy-signer-aws",
            Self::Node => "Node, ethers and AWS SDK",
            Self::Kms => "straight to the stub",
        }
    }

    /// Of names with commas between.
    pub fn named(names: &str) -> Vec<Self> {
        let named = |name| match name {
            "keygate" => Self::Keygate,
            "alloy" => Self::Alloy,
            "node" => Self::Node,
            "kms" => Self::Kms,
            other => panic!("no peer is called {other}"),
        };
        names.split(',').map(named).collect()
    }
}

/// The stub, with one key.
pub struct Kms {
    process: Process,
    _dir: TempDir,
    url: String,
    arn: String,
    pub key: Address,
}

impl Kms {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let stdout = dir.path().join("stdout.log");
        let mut process = start(dir.path(), &[&variable("VERSUS_KMS_STUB"), "--threads", "2"]);
        let url = wait(&mut process, || {
            let said = std::fs::read_to_string(&stdout).ok()?;
            said.split_once('\n').map(|(url, _)| url.to_owned())
        });
        let mut kms = Self { process, _dir: dir, url, arn: String::new(), key: Address::ZERO };
        let made = kms.call("CreateKey", &json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" }));
        kms.arn = made["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned();
        let public = kms.call("GetPublicKey", &json!({ "KeyId": kms.arn }));
        let spki = STANDARD.decode(public["PublicKey"].as_str().expect("a public key")).expect("Base64");
        kms.key = PublicKey::from_spki(&spki).expect("a key on the curve").address();
        kms
    }

    fn connect(&self) -> Connection {
        let address: SocketAddr = self.url.trim_start_matches("http://").parse().expect("an address");
        Connection::tcp(address).expect("it listens")
    }

    fn call(&self, action: &str, body: &Value) -> Value {
        self.ask(&call(action, body))
    }

    /// What a signature takes from now on, in milliseconds.
    pub fn latency(&self, milliseconds: u64) {
        self.ask(&post("/_latency", "", &json!({ "milliseconds": [milliseconds] }).to_string()));
    }

    fn ask(&self, request: &[u8]) -> Value {
        let (status, body) = self.connect().ask(request).expect("an answer");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        self.process.cpu().total()
    }
}

/// One who signs, and listens.
pub struct Running {
    pub peer: Peer,
    /// None for nobody in between.
    process: Option<Process>,
    dir: TempDir,
    /// The ledger, on the disk that the build is on.
    _disk: TempDir,
}

impl Running {
    pub fn start(peer: Peer, kms: &Kms) -> Self {
        // A socket's path is short; a build's may be long.
        let dir = tempfile::tempdir().expect("a folder");
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let socket = dir.path().join("signer.sock").display().to_string();
        let command = match peer {
            Peer::Keygate => {
                let config = dir.path().join("keygate.toml");
                std::fs::write(&config, keygate(kms, disk.path())).expect("our own folder");
                let program = std::env::var("VERSUS_KEYGATE").unwrap_or(env!("CARGO_BIN_EXE_keygate").to_owned());
                vec![program, "signer".into(), "-c".into(), config.display().to_string()]
            }
            Peer::Alloy => vec![variable("VERSUS_ALLOY"), socket, kms.arn.clone(), kms.url.clone()],
            Peer::Node => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/versus/signer/node/server.mjs");
                vec!["node".into(), script.into(), socket, kms.arn.clone(), kms.url.clone()]
            }
            Peer::Kms => return Self { peer, process: None, dir, _disk: disk },
        };
        let mut process = start(dir.path(), &command);
        let socket = dir.path().join("signer.sock");
        wait(&mut process, || Connection::unix(&socket).ok());
        Self { peer, process: Some(process), dir, _disk: disk }
    }

    pub fn connect(&self, kms: &Kms) -> Connection {
        if self.peer == Peer::Kms {
            return kms.connect();
        }
        Connection::unix(&self.dir.path().join("signer.sock")).expect("it listens")
    }

    /// The request for a payment with this nonce.
    pub fn request(&self, kms: &Kms, nonce: u64) -> Vec<u8> {
        if self.peer == Peer::Kms {
            let digest = STANDARD.encode(alloy_primitives::keccak256(nonce.to_be_bytes()));
            let fields = json!({
                "KeyId": kms.arn, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256",
            });
            return call("Sign", &fields);
        }
        let body = format!(
            r#"{{"chainId":{CHAIN},"type":2,"nonce":{nonce},"to":"{RECIPIENT}","value":"{VALUE}","gas":{GAS},"#
        ) + &format!(r#""maxFeePerGas":"{MAX_FEE}","maxPriorityFeePerGas":"{PRIORITY_FEE}"}}"#);
        let key = format!("Content-Type: application/json\r\nIdempotency-Key: payout-{nonce}\r\n");
        post("/v1/keys/hot-wallet/transactions", &key, &body)
    }

    /// Processor time so far, of all its processes.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map_or(Duration::ZERO, |process| process.cpu().total())
    }
}

/// Every rule of a policy, all of which let the payment pass.
fn keygate(kms: &Kms, disk: &Path) -> String {
    let Kms { url, arn, key, .. } = kms;
    let uid = rustix::process::geteuid().as_raw();
    let ledger = PathBuf::from(disk).join("ledger.db");
    format!(
        r#"
        [signer]
        listen = "unix:signer.sock"
        ledger = "sqlite:{}"
        [signer.keys.hot-wallet]
        kms = {{ key_id = "{arn}", endpoint = "{url}", rate = 10000, queue = 10000 }}
        address = "{key}"
        [signer.chains.polygon]
        id = {CHAIN}
        [signer.policies.payouts]
        chains = ["polygon"]
        sign = ["transaction"]
        to = ["{RECIPIENT}"]
        max_value = "1 ether"
        daily_value = "1000000 ether"
        max_fee = "0.05 ether"
        [signer.callers.payments]
        uid = {uid}
        keys = ["hot-wallet"]
        policy = "payouts"
        "#,
        ledger.display()
    )
}

/// A call of KMS, signed by nobody, which the stub does not look at.
fn call(action: &str, body: &Value) -> Vec<u8> {
    let head = format!(
        "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: TrentService.{action}\r\nAuthorization: \
         AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0\r\n"
    );
    post("/", &head, &body.to_string())
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: signer\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// On all cores, with credentials that the stub does not look at.
fn start<S: AsRef<str>>(dir: &Path, command: &[S]) -> Process {
    let environment = [
        "env",
        "AWS_ACCESS_KEY_ID=AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY=secret",
        "AWS_REGION=us-east-1",
        "AWS_EC2_METADATA_DISABLED=true",
    ];
    let command: Vec<&str> = environment.into_iter().chain(command.iter().map(AsRef::as_ref)).collect();
    Process::start("0-1023", dir, &dir.join("stdout.log"), &command)
}

#[track_caller]
fn wait<T>(process: &mut Process, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        if let Some(ended) = process.ended() {
            panic!("it does not start: {ended}");
        }
        assert!(Instant::now() < deadline, "it does not start:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As the script sets it.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by benches/versus/signer/run"))
}
