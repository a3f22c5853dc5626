//! As much of AWS KMS as keygate speaks to, for tests and benches: AWS JSON 1.1 over HTTP/1.1, real signatures of keys
//! that are kept in memory, and faults on demand.
//!
//! `CreateKey`, `DescribeKey`, `GetPublicKey` and `Sign` of keys of spec `ECC_SECG_P256K1`. As with KMS, half of the
//! signatures have a high S, and signing again gives another signature, unless RFC 6979 was asked for. A request must
//! be signed; by whom is not looked at. Its own part of a `Sign` is little beside the one signature that it makes.
//!
//! Faults are ordered over HTTP, as of `tests/parts/kms.py`, which is moto; what they share is the same:
//!
//! ```text
//! POST /_faults   {"mode": "throttle", "count": 2, "key": "KEY-ID", "action": "Sign", "seconds": 0}
//! GET  /_faults?key=KEY-ID   how often each action was asked for, for that key: {"Sign": 3, "GetPublicKey": 1}
//! POST /_latency  {"milliseconds": [20]}   what Sign takes from now on; of several, each in turn
//! ```
//!
//! The next `count` calls of `action` (left out: Sign) for `key` (left out: any) are treated so; [`Mode`] names the
//! modes, and `none` ends it.

mod action;
mod fault;
mod key;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

pub use fault::Mode;

use action::Failure;
use fault::{Fault, Faults};
use key::Key;

/// No request is longer, in bytes: a message has 4,096 at most.
const MAX_BODY: usize = 64 << 10;
/// A hang without a time of its own ends after this.
const HANG: Duration = Duration::from_secs(3600);

/// How a stub is.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The same digest has the same signature (RFC 6979).
    pub deterministic: bool,
    /// What `Sign` takes, rounded up to milliseconds; of several, each in turn, which makes a distribution. Nothing is
    /// as fast as it can.
    pub latency: Vec<Duration>,
}

/// A KMS in this process.
#[derive(Debug)]
pub struct Stub {
    deterministic: bool,
    latency: RwLock<Vec<Duration>>,
    keys: RwLock<HashMap<String, Arc<Key>>>,
    /// Signs in a key's place where a signature is to be wrong.
    another: Key,
    faults: Mutex<Faults>,
    requests: AtomicU64,
}

/// The connection ends here, without an answer.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut, as ordered")
    }
}

impl std::error::Error for Broken {}

type Answer = Response<Either<Full<Bytes>, Half>>;

impl Stub {
    /// One without keys.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            deterministic: options.deterministic,
            latency: RwLock::new(options.latency),
            keys: RwLock::default(),
            another: Key::random("us-east-1"),
            faults: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// Serves until it is dropped; connections that are open then end with the runtime.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&self).connection(stream));
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // An error is the client's affair, or was ordered.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| self.answer(request));
        let _ = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Broken> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Broken)?.to_bytes();
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/_faults") => {
                Ok(ordered(lock(&self.faults).order(&body).map(|()| json!({})).map_err(|error| error.to_string())))
            }
            (&Method::GET, "/_faults") => {
                let key = head.uri.query().and_then(|query| query.strip_prefix("key=")).unwrap_or_default();
                Ok(ordered(Ok::<_, Infallible>(lock(&self.faults).calls(key))))
            }
            (&Method::POST, "/_latency") => {
                let set = |latency| *self.latency.write().unwrap_or_else(PoisonError::into_inner) = latency;
                Ok(ordered(fault::latency(&body).map(set).map(|()| json!({}))))
            }
            (&Method::POST, "/") => {
                let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
                let target = header("x-amz-target").and_then(|target| target.strip_prefix("TrentService."));
                self.call(target.unwrap_or_default(), header(AUTHORIZATION.as_str()), &body).await
            }
            _ => Ok(json_answer(StatusCode::NOT_FOUND, b"{}".to_vec())),
        }
    }

    /// A call of KMS.
    async fn call(&self, action: &str, authorization: Option<&str>, body: &[u8]) -> Result<Answer, Broken> {
        let Some(region) = authorization.and_then(action::region) else {
            return Ok(failed(&Failure::new("MissingAuthenticationTokenException", "the request is not signed")));
        };
        let key_id = action::key_id(body);
        let fault = lock(&self.faults).take(action, key_id.as_deref().unwrap_or_default());
        let Fault { mode, time } = fault.unwrap_or_default();
        match mode {
            Mode::Hang => {
                tokio::time::sleep(if time.is_zero() { HANG } else { time }).await;
                return Err(Broken);
            }
            Mode::Reset => return Err(Broken),
            _ => {}
        }
        let done = match mode.failure() {
            Some(failure) => Err(failure),
            None => match action {
                "CreateKey" => self.create_key(region, body),
                "DescribeKey" => self.key(key_id.as_deref()).map(|key| key.metadata().to_string().into_bytes()),
                "GetPublicKey" => self.key(key_id.as_deref()).map(|key| key.public().to_string().into_bytes()),
                "Sign" => self.key(key_id.as_deref()).and_then(|key| action::sign(self, &key, mode, body)),
                _ => Err(Failure::new("UnknownOperationException", "the stub does not have it")),
            },
        };
        if action == "Sign" {
            let latency = self.latency();
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
        }
        if mode == Mode::Latency {
            // The signature is made: what a caller that gives up now does not know.
            tokio::time::sleep(time).await;
        }
        match done {
            Ok(body) if mode == Mode::Cut => Ok(cut(body)),
            Ok(body) => Ok(self.identified(json_answer(StatusCode::OK, body))),
            Err(failure) => Ok(self.identified(failed(&failure))),
        }
    }

    fn create_key(&self, region: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        action::check_create_key(body)?;
        let key = Arc::new(Key::random(region));
        let metadata = key.metadata().to_string();
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key.id.clone(), key);
        Ok(metadata.into_bytes())
    }

    fn key(&self, id: Option<&str>) -> Result<Arc<Key>, Failure> {
        let id = id.ok_or_else(|| Failure::new("ValidationException", "KeyId is missing"))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).cloned().ok_or_else(|| Failure::new("NotFoundException", format!("Key '{id}' does not exist")))
    }

    fn latency(&self) -> Duration {
        let latency = self.latency.read().unwrap_or_else(PoisonError::into_inner);
        let turn = usize::try_from(self.requests.load(Ordering::Relaxed)).unwrap_or_default();
        if latency.is_empty() { Duration::ZERO } else { latency[turn % latency.len()] }
    }

    /// As every answer of AWS has: what its support asks for.
    fn identified(&self, mut answer: Answer) -> Answer {
        let id = format!("00000000-0000-0000-0000-{:012x}", self.requests.fetch_add(1, Ordering::Relaxed));
        answer.headers_mut().insert("x-amzn-requestid", id.try_into().expect("it is ASCII"));
        answer
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json_answer(status: StatusCode, body: Vec<u8>) -> Answer {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/x-amz-json-1.1");
    answer.body(Either::Left(Full::new(body.into()))).expect("its headers are right")
}

fn failed(failure: &Failure) -> Answer {
    let body = json!({ "__type": failure.code, "message": failure.message }).to_string();
    json_answer(failure.status, body.into_bytes())
}

fn ordered(done: Result<Value, impl std::fmt::Display>) -> Answer {
    match done {
        Ok(body) => json_answer(StatusCode::OK, body.to_string().into_bytes()),
        Err(error) => json_answer(StatusCode::BAD_REQUEST, format!("{error}\n").into_bytes()),
    }
}

/// The head of an answer, half of its body, and no more.
fn cut(body: Vec<u8>) -> Answer {
    let answer = Response::builder().header(CONTENT_TYPE, "application/x-amz-json-1.1");
    let (answer, body) = (answer.header(CONTENT_LENGTH, body.len()), Bytes::from(body));
    let half = body.slice(..body.len() / 2);
    answer.body(Either::Right(Half(Some(half)))).expect("its headers are right")
}

/// A body that breaks off.
#[derive(Debug)]
struct Half(Option<Bytes>);

impl Body for Half {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(Broken)))
    }
}
