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
    key: SigningKey,
    pub(crate) endpoint: String,
    /// What `GetPublicKey` says.
    pub(crate) spec: Mutex<(&'static str, &'static str)>,
    /// How the next calls of `Sign` go; then, well.
    pub(crate) turns: Mutex<VecDeque<Turn>>,
    /// Calls of `Sign`.
    pub(crate) signs: AtomicU32,
}

impl FakeKms {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kms = Arc::new(Self {
            key: SigningKey::random(&mut OsRng),
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            spec: Mutex::new(("ECC_SECG_P256K1", "SIGN_VERIFY")),
            turns: Mutex::default(),
            signs: AtomicU32::new(0),
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

    /// The key in this KMS, loaded as the signer loads it, with a deadline.
    pub(crate) async fn key(&self, timeout: Duration) -> Result<Key, LoadError> {
        let text = format!(
            "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.keys.hot]\nkms = {{ key_id = \
             \"arn:aws:kms:eu-west-1:1:key/2\", endpoint = \"{}\", timeout = \"{}ms\" }}",
            self.endpoint,
            timeout.as_millis()
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
        let (kms, public) = kms::Kms::load_with(loader, config.keys["hot"].kms.as_ref().unwrap()).await?;
        Ok(Key { name: "hot".into(), public, secret: Secret::Kms(kms) })
    }
}

async fn answer(State(kms): State<Arc<FakeKms>>, headers: HeaderMap, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["KeyId"], "arn:aws:kms:eu-west-1:1:key/2");
    assert!(headers[header::AUTHORIZATION].to_str().unwrap().contains("/eu-west-1/kms/"));
    match headers["x-amz-target"].to_str().unwrap() {
        "TrentService.GetPublicKey" => {
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
                Turn::Error(code) => {
                    let body = json!({"__type": code, "message": "secret detail"}).to_string();
                    let status = if code == "KMSInternalException" { 500 } else { 400 };
                    let status = StatusCode::from_u16(status).unwrap();
                    return (status, [("content-type", "application/x-amz-json-1.1")], body).into_response();
                }
                Turn::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
                Turn::Broken => std::panic::resume_unwind(Box::new(())),
                Turn::OtherKey => by(&SigningKey::random(&mut OsRng)),
                Turn::Bytes(bytes) => bytes,
            };
            well(json!({"KeyId": body["KeyId"], "Signature": base64(&der), "SigningAlgorithm": "ECDSA_SHA_256"}))
        }
        other => panic!("{other}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyError;

    const LONG: Duration = Duration::from_secs(20);

    async fn outcome(timeout: Duration, turns: Vec<Turn>) -> (Result<(), KeyError>, u32) {
        let kms = FakeKms::start().await;
        let key = kms.key(timeout).await.unwrap();
        kms.plan(turns);
        let signed = key.sign(&[5; 32]).await.map(|_| ());
        (signed, kms.signs())
    }

    #[tokio::test]
    async fn signs_and_tries_again() {
        assert_eq!(outcome(LONG, vec![]).await, (Ok(()), 1));
        for again in [Turn::Error("ThrottlingException"), Turn::Error("KMSInternalException"), Turn::Status(503)] {
            assert_eq!(outcome(LONG, vec![again.clone(), again.clone()]).await, (Ok(()), 3), "{again:?}");
        }
    }

    #[tokio::test]
    async fn many_at_once_each_try_again() {
        let kms = FakeKms::start().await;
        let key = Arc::new(kms.key(LONG).await.unwrap());
        kms.plan(vec![Turn::Error("ThrottlingException"); 150]);
        let signing: Vec<_> = (0..100)
            .map(|_| {
                let key = Arc::clone(&key);
                tokio::spawn(async move { key.sign(&[5; 32]).await.map(|_| ()) })
            })
            .collect();
        for signed in signing {
            assert_eq!(signed.await.unwrap(), Ok(()));
        }
        assert_eq!(kms.signs(), 250);
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_is_given_up() {
        let hang = Turn::Slowly(Duration::from_secs(60));
        assert_eq!(outcome(Duration::from_secs(2), vec![hang]).await, (Ok(()), 2));
    }

    #[tokio::test]
    async fn the_deadline_holds() {
        let start = std::time::Instant::now();
        let timeout = Duration::from_millis(600);
        let hang = Turn::Slowly(Duration::from_secs(60));
        assert_eq!(outcome(timeout, vec![hang; 9]).await.0, Err(KeyError::TimedOut(timeout)));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn failures_have_names_and_tell_no_secrets() {
        let throttled = vec![Turn::Error("ThrottlingException"); 9];
        assert_eq!(outcome(LONG, throttled).await, (Err(KeyError::Throttled), 6));
        let (broken, signs) = outcome(LONG, vec![Turn::Broken; 9]).await;
        assert_eq!((broken.as_ref().unwrap_err().kind(), signs), ("unreachable", 6), "{broken:?}");
        assert!(!broken.unwrap_err().nothing_signed());
        for (turn, kind) in [
            (Turn::Error("AccessDeniedException"), "access-denied"),
            (Turn::Error("DisabledException"), "key-unusable"),
            (Turn::Error("KMSInvalidStateException"), "key-unusable"),
            (Turn::Error("NotFoundException"), "key-unusable"),
            (Turn::Error("NeverHeardOfException"), "other"),
            (Turn::Status(403), "access-denied"),
            (Turn::OtherKey, "bad-answer"),
            (Turn::Bytes(vec![]), "bad-answer"),
            (Turn::Bytes(vec![0x30, 6, 2, 1, 1, 2, 1, 1]), "bad-answer"),
        ] {
            let (result, signs) = outcome(LONG, vec![turn.clone()]).await;
            let error = result.unwrap_err();
            assert_eq!((error.kind(), signs), (kind, 1), "{turn:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_unreachable() {
        let kms = FakeKms::start().await;
        let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let gone = FakeKms {
            key: kms.key.clone(),
            endpoint: format!("http://{unused}"),
            spec: Mutex::default(),
            turns: Mutex::default(),
            signs: AtomicU32::new(0),
        };
        let error = gone.key(LONG).await.unwrap_err();
        assert!(matches!(error, LoadError::Kms(KeyError::Unreachable(_))), "{error:?}");
    }

    #[tokio::test]
    async fn another_kind_of_key_is_refused() {
        let kms = FakeKms::start().await;
        for (spec, usage, named) in
            [("ECC_NIST_P256", "SIGN_VERIFY", "ECC_NIST_P256"), ("ECC_SECG_P256K1", "KEY_AGREEMENT", "KEY_AGREEMENT")]
        {
            *kms.spec.lock().unwrap() = (spec, usage);
            let error = kms.key(LONG).await.unwrap_err();
            assert!(matches!(error, LoadError::WrongKind { .. }) && error.to_string().contains(named), "{error}");
        }
    }
}
