//! One region of a key, and how it fares.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kms::Client;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyOutput;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};

use super::breaker::{Breaker, Leave};
use super::errors::{Failure, Fault};
use super::metrics::Metrics;
use crate::key::{KeyError, LoadError, PublicKey};

/// A refusal to sign is news for so long. Then the key is thought to be as its last check found it.
const RECENT: Duration = Duration::from_secs(60);

/// A key in one region.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) key_id: String,
    /// How long a request may take, for messages.
    timeout: Duration,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    key: Known,
    /// The last refusal to sign, or answer that was none.
    refused: Option<(Instant, String)>,
    /// What the last check found.
    failing: Option<String>,
}

impl State {
    /// Whether the key here is the one that is meant, or may turn out to be.
    fn usable(&self) -> bool {
        match self.key {
            Known::Same => true,
            Known::Nothing => self.failing.is_none(),
            Known::Another => false,
        }
    }
}

/// What is known of the key in this region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    /// That it is the one that is meant.
    Same,
    /// That it is not: it is never asked to sign.
    Another,
}

/// Leave to ask, to be followed by what came of it. If nothing does, it is given up.
pub(super) struct Asking<'a> {
    region: &'a Region,
    leave: Leave,
    told: bool,
}

impl Region {
    pub(super) fn new(name: String, client: Client, key_id: String, timeout: Duration, metrics: Metrics) -> Self {
        let state = State { breaker: Breaker::NEW, key: Known::Nothing, refused: None, failing: None };
        metrics.breaker(&name, state.breaker.level());
        Self { name, client, key_id, timeout, metrics, state: Mutex::new(state) }
    }

    /// Leave to ask this region, if it is worth asking.
    pub(super) fn admit(&self, now: Instant) -> Option<Asking<'_>> {
        let mut state = self.state();
        let leave = if state.usable() { state.breaker.admit(now) } else { None };
        self.metrics.breaker(&self.name, state.breaker.level());
        leave.map(|leave| Asking { region: self, leave, told: false })
    }

    /// How long nobody will have leave, if nobody has now.
    pub(super) fn shut_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        if state.usable() { state.breaker.shut_for(now) } else { Some(RECENT) }
    }

    /// Asks once for the public key.
    pub(super) async fn public_key(&self, asking: Asking<'_>) -> Result<PublicKey, NoPublicKey> {
        let call = self.client.get_public_key().key_id(&self.key_id).send();
        let answer = asking.told(async { call.await.map_err(|error| Failure::of(&error, self.timeout)) }).await;
        let answer = answer.map_err(NoPublicKey::NotGiven)?;
        public_key_of(&answer).map_err(NoPublicKey::Wrong)
    }

    /// Asks once for a signature of a digest: DER, unchecked. `public` is what the key here must be.
    pub(super) async fn sign(
        &self,
        asking: Asking<'_>,
        digest: &[u8; 32],
        public: &PublicKey,
    ) -> Result<Vec<u8>, Failure> {
        if self.state().key == Known::Nothing {
            // It was not to be had at start.
            let found = self.public_key(Asking { region: self, leave: asking.leave, told: false }).await;
            if let Err(Failure { error, fault }) = self.verify(found, public) {
                tracing::warn!(region = self.name, %error, "the key is not to be had in this region");
                if fault == Fault::Refused {
                    // From now on it is for the checks to find out.
                    self.state().failing = Some(error.to_string());
                }
                // It was not asked to sign, and the next may be.
                return Err(Failure { error: KeyError::Unavailable { retry_after: RECENT }, fault: Fault::Region });
            }
        }
        let request = self
            .client
            .sign()
            .key_id(&self.key_id)
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .message(Blob::new(digest.as_slice()));
        let call = async { request.send().await.map_err(|error| Failure::of(&error, self.timeout)) };
        let answer = asking.told(call).await.inspect_err(|failure| {
            if failure.fault == Fault::Refused {
                self.refused(&failure.error);
            }
        })?;
        // No signature is a signature of no bytes: it does not verify.
        Ok(answer.signature.map(Blob::into_inner).unwrap_or_default())
    }

    /// Asks for the public key and remembers what came of it: for when nobody has anything signed.
    pub(super) async fn check(&self, public: &PublicKey) {
        // Whether it is worth asking is what this finds out; and it is no probe.
        let asking = Asking { region: self, leave: Leave::Ordinary, told: false };
        let found = self.public_key(asking).await;
        match self.verify(found, public) {
            Ok(()) => self.state().failing = None,
            Err(Failure { fault: Fault::Throttled, .. }) => {}
            Err(failure) => self.state().failing = Some(failure.error.to_string()),
        }
    }

    /// Sees whether what was found is the key that is meant.
    pub(super) fn verify(&self, found: Result<PublicKey, NoPublicKey>, public: &PublicKey) -> Result<(), Failure> {
        let why = match found {
            Ok(found) if found == *public => {
                self.state().key = Known::Same;
                return Ok(());
            }
            Err(NoPublicKey::NotGiven(failure)) => return Err(failure),
            Ok(found) => format!("its address is {}, and not {}", found.address(), public.address()),
            Err(NoPublicKey::Wrong(error)) => error.to_string(),
        };
        tracing::error!(region = self.name, "another key than that of the other regions: it is not used: {why}");
        self.state().key = Known::Another;
        // For the next region it says nothing.
        Err(Failure { error: KeyError::Unusable(format!("in {}: {why}", self.name)), fault: Fault::Region })
    }

    /// It signed, and the signature is one.
    pub(super) fn signed(&self) {
        let mut state = self.state();
        (state.refused, state.failing) = (None, None);
    }

    /// It did not sign, and said why; or what it answered was no signature.
    pub(super) fn refused(&self, error: &KeyError) {
        self.state().refused = Some((Instant::now(), error.to_string()));
    }

    /// Why it would not sign, as far as is known.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let recent = state.refused.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < RECENT);
        match (&state.failing, recent, state.key) {
            (_, _, Known::Another) => Some("it is another key there".to_owned()),
            (_, Some((_, why)), _) | (Some(why), None, _) => Some(why.clone()),
            (None, None, _) => {
                state.breaker.shut_for(now).map(|_| "it failed so often that it is left alone for a while".to_owned())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// Waits for the answer, and tells the region's breaker.
    async fn told<T>(mut self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let start = Instant::now();
        let answer = call.await;
        let Self { region, .. } = self;
        self.told = true;
        region.metrics.answered(&region.name, start.elapsed());
        let mut state = region.state();
        match &answer {
            Err(Failure { fault: Fault::Region, .. }) => state.breaker.failed(Instant::now()),
            // A refusal is an answer, too.
            _ => state.breaker.succeeded(),
        }
        region.metrics.breaker(&region.name, state.breaker.level());
        if let Err(failure) = &answer {
            region.metrics.failed(&region.name, failure.error.kind());
        }
        answer
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.region.state().breaker.given_up(self.leave, Instant::now());
        }
    }
}

/// Why there is no public key: KMS did not give it, or it is no such key.
#[derive(Debug)]
pub(super) enum NoPublicKey {
    NotGiven(Failure),
    Wrong(LoadError),
}

/// The public key, if the key is for signing on secp256k1.
pub(crate) fn public_key_of(answer: &GetPublicKeyOutput) -> Result<PublicKey, LoadError> {
    let wrong = |found: &str, wanted| LoadError::WrongKind { found: format!("a key of {found}"), wanted };
    match spec(answer) {
        Some(spec) if spec == KeySpec::EccSecgP256K1.as_str() => {}
        other => return Err(wrong(other.unwrap_or("no spec"), "ECC_SECG_P256K1")),
    }
    match answer.key_usage() {
        Some(KeyUsageType::SignVerify) => {}
        other => return Err(wrong(other.map_or("no usage", KeyUsageType::as_str), "SIGN_VERIFY")),
    }
    Ok(PublicKey::from_spki(answer.public_key().map(AsRef::as_ref).unwrap_or_default())?)
}

/// The key's spec: under its name of today, or under the old one that KMS answers as well, and emulators alone.
fn spec(answer: &GetPublicKeyOutput) -> Option<&str> {
    #[expect(deprecated, reason = "it is the old name")]
    let old = answer.customer_master_key_spec().map(|spec| spec.as_str());
    answer.key_spec().map(KeySpec::as_str).or(old)
}
