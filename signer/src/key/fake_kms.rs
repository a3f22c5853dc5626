//! As much of KMS as the signer speaks to, with faults on demand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_kms::config::Credentials;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use k256::ecdsa::SigningKey;
use k256::ecdsa::signature::hazmat::PrehashSigner;
use k256::elliptic_curve::rand_core::OsRng;
use serde_json::{Value, json};

use super::{Key, LoadError, Secret, kms};

/// How a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// As it should.
    Well,
    /// As it should, after a while.
    Slowly(Duration),
    /// With an error of this code.
    Error(&'static str),
    /// With a status and no body.
    Status(u16),
    /// Not at all: the connection breaks off.
    Broken,
    /// With a signature by another key.
    OtherKey,
    /// With these bytes in a signature's place.
    Bytes(Vec<u8>),
}

pub(crate) struct FakeKms {
    pub(crate) key: SigningKey,
    region: &'static str,
    pub(crate) endpoint: String,
    /// What `GetPublicKey` says.
    pub(crate) spec: Mutex<(&'static str, &'static str)>,
    /// How the next calls of `Sign` go; then, well.
    pub(crate) turns: Mutex<VecDeque<Turn>>,
    /// How the next calls of `GetPublicKey` go; then, well.
    pub(crate) public_turns: Mutex<VecDeque<Turn>>,
    /// Calls of `Sign`.
    pub(crate) signs: AtomicU32,
    /// Calls of `GetPublicKey`.
    pub(crate) public_keys: AtomicU32,
}

impl FakeKms {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_in("eu-west-1", SigningKey::random(&mut OsRng)).await
    }

    /// In this region, with this key.
    pub(crate) async fn start_in(region: &'static str, key: SigningKey) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kms = Arc::new(Self {
            key,
            region,
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            spec: Mutex::new(("ECC_SECG_P256K1", "SIGN_VERIFY")),
            turns: Mutex::default(),
            public_turns: Mutex::default(),
            signs: AtomicU32::new(0),
            public_keys: AtomicU32::new(0),
        });
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&kms));
        tokio::spawn(async { axum::serve(listener, router).await });
        kms
    }

    pub(crate) fn plan(&self, turns: impl IntoIterator<Item = Turn>) {
        self.turns.lock().unwrap().extend(turns);
    }

    pub(crate) fn signs(&self) -> u32 {
        self.signs.load(Ordering::SeqCst)
    }

    pub(crate) fn public_keys(&self) -> u32 {
        self.public_keys.load(Ordering::SeqCst)
    }

    /// The key in this KMS, loaded as the signer loads it, with a deadline.
    pub(crate) async fn key(&self, timeout: Duration) -> Result<Key, LoadError> {
        load(&format!("endpoint = \"{}\", timeout = \"{}ms\"", self.endpoint, timeout.as_millis())).await
    }
}

/// A key of these KMS, with more in its table.
pub(crate) async fn load(fields: &str) -> Result<Key, LoadError> {
    let text = format!(
        "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.keys.hot]\nkms = {{ key_id = \
         \"arn:aws:kms:eu-west-1:1:key/mrk-2\", {fields} }}",
    );
    let source = keygate_config::Source { path: "keygate.toml".into(), text };
    let config = keygate_config::parse(source).unwrap().config.signer.unwrap();
    let loader = aws_config::defaults(BehaviorVersion::latest()).credentials_provider(Credentials::new(
        "AKIDEXAMPLE",
        "secret",
        None,
        None,
        "test",
    ));
    let kms = kms::Kms::load_with(loader, "hot", config.keys["hot"].kms.as_ref().unwrap()).await?;
    Ok(Key { name: "hot".into(), public: kms.public(), secret: Secret::Kms(kms) })
}

async fn answer(State(kms): State<Arc<FakeKms>>, headers: HeaderMap, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["KeyId"], format!("arn:aws:kms:{}:1:key/mrk-2", kms.region));
    assert!(headers[header::AUTHORIZATION].to_str().unwrap().contains(&format!("/{}/kms/", kms.region)));
    match headers["x-amz-target"].to_str().unwrap() {
        "TrentService.GetPublicKey" => {
            kms.public_keys.fetch_add(1, Ordering::SeqCst);
            let turn = kms.public_turns.lock().unwrap().pop_front().unwrap_or(Turn::Well);
            if let Some(failure) = failure(&turn) {
                return failure;
            }
            let point = kms.key.verifying_key().to_encoded_point(false);
            let der = [super::public::SPKI_PREFIX.as_slice(), point.as_bytes()].concat();
            let (spec, usage) = *kms.spec.lock().unwrap();
            well(json!({"KeyId": body["KeyId"], "KeySpec": spec, "KeyUsage": usage, "PublicKey": base64(&der)}))
        }
        "TrentService.Sign" => {
            kms.signs.fetch_add(1, Ordering::SeqCst);
            assert_eq!((&body["MessageType"], &body["SigningAlgorithm"]), (&json!("DIGEST"), &json!("ECDSA_SHA_256")));
            let digest = unbase64(body["Message"].as_str().unwrap());
            let turn = kms.turns.lock().unwrap().pop_front().unwrap_or(Turn::Well);
            let by = |key: &SigningKey| {
                // High S, as half of KMS's own.
                let signature: k256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
                let (r, s) = signature.split_scalars();
                k256::ecdsa::Signature::from_scalars(r, -s).unwrap().to_der().as_bytes().to_vec()
            };
            let der = match turn {
                Turn::Well => by(&kms.key),
                Turn::Slowly(time) => {
                    tokio::time::sleep(time).await;
                    by(&kms.key)
                }
                Turn::Error(_) | Turn::Status(_) | Turn::Broken => return failure(&turn).unwrap(),
                Turn::OtherKey => by(&SigningKey::random(&mut OsRng)),
                Turn::Bytes(bytes) => bytes,
            };
            well(json!({"KeyId": body["KeyId"], "Signature": base64(&der), "SigningAlgorithm": "ECDSA_SHA_256"}))
        }
        other => panic!("{other}"),
    }
}

/// The answer that is none.
fn failure(turn: &Turn) -> Option<Response> {
    match turn {
        Turn::Error(code) => {
            let body = json!({"__type": code, "message": "secret detail"}).to_string();
            let status = if *code == "KMSInternalException" { 500 } else { 400 };
            let status = StatusCode::from_u16(status).unwrap();
            Some((status, [("content-type", "application/x-amz-json-1.1")], body).into_response())
        }
        Turn::Status(status) => Some(StatusCode::from_u16(*status).unwrap().into_response()),
        Turn::Broken => std::panic::resume_unwind(Box::new(())),
        _ => None,
    }
}

fn well(body: Value) -> Response {
    ([("content-type", "application/x-amz-json-1.1")], body.to_string()).into_response()
}

fn base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}

fn unbase64(text: &str) -> Vec<u8> {
    aws_smithy_types::base64::decode(text).unwrap()
}
