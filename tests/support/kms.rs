use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Identity, Process, Response, SOON, curl, python};

/// A KMS: moto, through `tests/parts/kms.py`, or the stub of `benches/kms`. Both can be told to fail.
pub struct Kms {
    /// None for the stub, which is a thread.
    process: Option<Process>,
    pub url: String,
}

/// A key in it.
#[derive(Debug, Clone)]
pub struct KmsKey {
    pub id: String,
    pub arn: String,
}

impl Kms {
    /// The one that all tests share. Faults are ordered for one key, and every test has its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kms> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of its own, for a test that ends it.
    pub fn start() -> Self {
        let mut process = Process::spawn("kms.py", python("kms.py").arg("0"));
        let url = process.wait_until(SOON, "the KMS says its address", |p| first_line(&p.stdout()));
        Self { process: Some(process), url }
    }

    /// The stub. It ends with the tests.
    pub fn stub(options: keygate_kms_stub::Options) -> Self {
        let (ready, url) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let address = listener.local_addr().expect("it is bound");
                ready.send(format!("http://{address}")).expect("the test waits for it");
                keygate_kms_stub::Stub::new(options).serve(listener).await;
            });
        });
        Self { process: None, url: url.recv().expect("the stub starts") }
    }

    /// A key as keygate needs it.
    pub fn create_key(&self) -> KmsKey {
        self.create_key_as("ECC_SECG_P256K1", "SIGN_VERIFY")
    }

    /// A key of any spec and usage.
    pub fn create_key_as(&self, spec: &str, usage: &str) -> KmsKey {
        let made = self.call("CreateKey", &json!({ "KeySpec": spec, "KeyUsage": usage }));
        let text = |name: &str| made["KeyMetadata"][name].as_str().expect("a key").to_owned();
        KmsKey { id: text("KeyId"), arn: text("Arn") }
    }

    /// The key's address and uncompressed public key, as ethers derives them.
    pub fn identity(&self, key: &KmsKey) -> Identity {
        let answer = self.call("GetPublicKey", &json!({ "KeyId": key.id }));
        Identity::of_spki(answer["PublicKey"].as_str().expect("a public key"))
    }

    /// A multi-region key of `us-east-1`, and its replica in `region`, which has the same id.
    pub fn create_multi_region_key(&self, region: &str) -> KmsKey {
        let key = json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "MultiRegion": true });
        let made = self.call("CreateKey", &key);
        let text = |name: &str| made["KeyMetadata"][name].as_str().expect("a key").to_owned();
        let key = KmsKey { id: text("KeyId"), arn: text("Arn") };
        self.call("ReplicateKey", &json!({ "KeyId": key.id, "ReplicaRegion": region }));
        key
    }

    /// The next `count` calls of Sign with this key fail so: see `tests/parts/kms.py` for the modes.
    pub fn fault(&self, key: &KmsKey, mode: &str, count: u32) {
        self.order(&json!({ "mode": mode, "key": key.id, "count": count }));
    }

    /// The next call of Sign with this key is answered after so many seconds, when it has signed.
    pub fn slow(&self, key: &KmsKey, seconds: f64) {
        self.order(&json!({ "mode": "latency", "key": key.id, "seconds": seconds }));
    }

    /// Any fault.
    pub fn order(&self, fault: &Value) {
        let answer = curl(["-X", "POST", "-d", &fault.to_string(), &format!("{}/_faults", self.url)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// How often `action` was asked for with this key.
    pub fn calls(&self, key: &KmsKey, action: &str) -> u64 {
        curl([format!("{}/_faults?key={}", self.url, key.id)]).json()[action].as_u64().unwrap_or(0)
    }

    /// The same, in one region.
    pub fn calls_in(&self, region: &str, key: &KmsKey, action: &str) -> u64 {
        let url = format!("{}/_faults?key={}&region={region}", self.url, key.id);
        curl([url]).json()[action].as_u64().unwrap_or(0)
    }

    fn call(&self, action: &str, body: &Value) -> Value {
        let answer = self.try_call(action, &body.to_string());
        let logs = self.process.as_ref().map(Process::logs).unwrap_or_default();
        assert_eq!(answer.status, 200, "{action}: {}\n{logs}", answer.text());
        answer.json()
    }

    /// Any call, right or wrong.
    pub fn try_call(&self, action: &str, body: &str) -> Response {
        curl([
            "-H",
            "Content-Type: application/x-amz-json-1.1",
            "-H",
            &format!("X-Amz-Target: TrentService.{action}"),
            "-H",
            "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, Signature=none",
            "-d",
            body,
            &self.url,
        ])
    }
}

/// The first line, once it is whole.
pub(super) fn first_line(text: &str) -> Option<String> {
    text.split_once('\n').map(|(line, _)| line.to_owned())
}
