//! A key in AWS KMS, which it never leaves.
//!
//! A multi-region key is the same key in several regions: they are asked in order, one at a time, and the next when one
//! does not answer, fails or throttles. A region that fails time and again is left alone for a while (`breaker.rs`).
//! Every call has its turn, below the account's quota and fairly among callers (`pace.rs`): retries, too, which are
//! made here and not by the SDK.
//!
//! Public keys are fetched at start, must be the same everywhere, and are what every signature is verified against.

mod breaker;
mod errors;
mod metrics;
mod pace;
mod queue;
mod region;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region as RegionName, SdkConfig};
use aws_sdk_kms::Client;
use keygate_config::KmsRegion;
use prometheus::Registry;
use tokio::task::JoinSet;

pub(crate) use self::errors::Failure;
use self::errors::Fault;
use self::metrics::Metrics;
use self::pace::{Busy, Pace};
pub(crate) use self::region::public_key_of;
use self::region::{NoPublicKey, Region};
use super::{KeyError, LoadError, PublicKey};
use crate::signature::{self, Signature};

/// So often a request is tried, if the deadline allows.
const ATTEMPTS: u32 = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// Connecting within a region takes milliseconds.
const CONNECT: Duration = Duration::from_secs(2);

/// A key in KMS.
pub struct Kms {
    regions: Vec<Arc<Region>>,
    public: PublicKey,
    timeout: Duration,
    pace: Pace,
    metrics: Metrics,
}

impl Kms {
    /// Fetches the public key of every region, and sees that it is the same key, for signing on secp256k1. A region
    /// that does not give it is a warning if another does; there it is verified before it is used.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(name: &str, config: &keygate_config::Kms) -> Result<Self, LoadError> {
        Self::load_with(aws_config::defaults(BehaviorVersion::latest()), name, config).await
    }

    pub(super) async fn load_with(
        loader: ConfigLoader,
        name: &str,
        config: &keygate_config::Kms,
    ) -> Result<Self, LoadError> {
        let timeout = config.timeout.0;
        let metrics = Metrics::new(name)?;
        let load = async { Ok(clients_with(loader, config).await) };
        let (_, clients) = within(timeout, load).await?;
        let region = |At { region, client, key_id }| Region::new(region, client, key_id, timeout, metrics.clone());
        let regions: Vec<_> = clients.into_iter().map(|at| Arc::new(region(at))).collect();
        let public = public_key(name, &regions, timeout).await?;
        let pace = Pace::new(config.rate, config.queue, metrics.clone());
        Ok(Self { regions, public, timeout, pace, metrics })
    }

    /// The key's public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Has KMS sign a digest for `caller`, and verifies what it answers.
    ///
    /// # Errors
    /// [`KeyError`]: one after which nothing is signed only if that holds for every attempt.
    pub async fn sign(&self, digest: &[u8; 32], caller: &str) -> Result<Signature, KeyError> {
        let mut unknown = None;
        let signed = within(self.timeout, self.try_to_sign(digest, caller, &mut unknown)).await;
        match (signed, unknown) {
            (Err(error), Some(unknown)) if error.nothing_signed() => {
                tracing::warn!(%error, %unknown, "KMS refused after an attempt whose outcome is not known");
                Err(unknown)
            }
            (signed, _) => signed,
        }
    }

    /// As [`Self::sign`]. The first failure after which there may be a signature all the same is `unknown`.
    async fn try_to_sign(
        &self,
        digest: &[u8; 32],
        caller: &str,
        unknown: &mut Option<KeyError>,
    ) -> Result<Signature, KeyError> {
        let deadline = Instant::now() + self.timeout;
        // What is answered if there is no further attempt.
        let mut last = None;
        let (mut from, mut pause) = (0, FIRST_BACKOFF);
        for _ in 0..ATTEMPTS {
            if let Some(retry_after) = self.shut_for(Instant::now()) {
                last.get_or_insert(KeyError::Unavailable { retry_after });
                break;
            }
            if let Err(Busy(retry_after)) = self.pace.turn(caller, deadline).await {
                last.get_or_insert(KeyError::Busy { retry_after });
                break;
            }
            let now = Instant::now();
            let open = |(n, region): (usize, &'_ Arc<Region>)| region.shut_for(now).is_none().then_some(n);
            let regions = self.regions.iter().enumerate();
            let next = regions.clone().skip(from).find_map(open).or_else(|| regions.clone().find_map(open));
            // None, if others took the last leave meanwhile.
            let Some((n, asking)) = next.and_then(|n| Some((n, self.regions[n].admit(now)?))) else { continue };
            let region = &self.regions[n];
            let Failure { error, fault } = match region.sign(asking, digest, &self.public).await {
                Ok(der) => return self.verified(region, &der, digest),
                Err(failure) => failure,
            };
            if fault == Fault::Refused {
                return Err(error);
            }
            tracing::debug!(region = region.name, %error, "KMS did not sign");
            if !error.nothing_signed() {
                unknown.get_or_insert_with(|| error.clone());
            }
            let certain = error.nothing_signed();
            last = Some(error);
            from = n + 1;
            let more = self.regions.iter().skip(from).any(|region| region.shut_for(Instant::now()).is_none());
            if !more {
                // All were asked: the first once more, after a while, and not at the same moment as all others.
                from = 0;
                let left = deadline.saturating_duration_since(Instant::now());
                let mut rest = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                if rest >= left {
                    if certain {
                        break;
                    }
                    rest = left / 2;
                }
                tokio::time::sleep(rest).await;
                pause = (pause * 2).min(LONGEST_BACKOFF);
            }
        }
        Err(last.unwrap_or(KeyError::Unavailable { retry_after: LONGEST_BACKOFF }))
    }

    fn verified(&self, region: &Region, der: &[u8], digest: &[u8; 32]) -> Result<Signature, KeyError> {
        match signature::assemble(der, digest, &self.public) {
            Ok(signature) => {
                region.signed();
                Ok(signature)
            }
            Err(error) => {
                let error = error.into();
                region.refused(&error);
                Err(error)
            }
        }
    }

    /// How long until a region may be asked, if none may now.
    fn shut_for(&self, now: Instant) -> Option<Duration> {
        let waits: Option<Vec<_>> = self.regions.iter().map(|region| region.shut_for(now)).collect();
        waits?.into_iter().min()
    }

    /// Asks every region for its public key, and remembers what came of it.
    pub async fn check(&self) {
        let mut checks = JoinSet::new();
        for region in &self.regions {
            let (region, public) = (Arc::clone(region), self.public);
            checks.spawn(async move { region.check(&public).await });
        }
        while checks.join_next().await.is_some() {}
    }

    /// Why the key would not sign in any region, as far as is known.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        let troubles = self.regions.iter().map(|region| Some((&region.name, region.trouble(now)?)));
        let all: Option<Vec<_>> = troubles.collect();
        all.map(|all| all.iter().map(|(region, why)| format!("{region}: {why}")).collect::<Vec<_>>().join("; "))
    }

    /// Has its metrics in `registry`.
    ///
    /// # Errors
    /// Another key of this name is registered.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.metrics.register(registry)
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions: Vec<_> = self.regions.iter().map(|region| (&region.name, &region.key_id)).collect();
        f.debug_struct("Kms").field("regions", &regions).finish_non_exhaustive()
    }
}

/// A key in a region.
pub(crate) struct At {
    /// The region's name.
    pub(crate) region: String,
    pub(crate) client: Client,
    pub(crate) key_id: String,
}

/// What all regions of a key share, and each of them. They share credentials, which come from where the environment
/// says, or from the first region.
pub(crate) async fn clients(config: &keygate_config::Kms) -> (SdkConfig, Vec<At>) {
    clients_with(aws_config::defaults(BehaviorVersion::latest()), config).await
}

async fn clients_with(mut loader: ConfigLoader, config: &keygate_config::Kms) -> (SdkConfig, Vec<At>) {
    let named = config.regions();
    if let Some(region) = named.first().and_then(|region| region.region.clone()) {
        loader = loader.region(RegionName::new(region));
    }
    let shared = loader.load().await;
    let regions = named.into_iter().map(|KmsRegion { region, key_id, endpoint }| {
        let name = region.clone().or_else(|| shared.region().map(ToString::to_string));
        let client = client(&shared, region, endpoint, config.timeout.0);
        At { region: name.unwrap_or_else(|| "none".to_owned()), client, key_id }
    });
    let regions = regions.collect();
    (shared, regions)
}

fn client(shared: &SdkConfig, region: Option<String>, endpoint: Option<String>, timeout: Duration) -> Client {
    // An attempt that hangs leaves time for others.
    let attempt = timeout / 4;
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT.min(attempt)).operation_attempt_timeout(attempt);
    let mut config = aws_sdk_kms::config::Builder::from(shared)
        // Each attempt has its turn, and the regions have theirs: the SDK knows neither.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    if let Some(region) = region {
        config = config.region(RegionName::new(region));
    }
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

/// The one public key that all regions have which give it.
async fn public_key(name: &str, regions: &[Arc<Region>], timeout: Duration) -> Result<PublicKey, LoadError> {
    let mut asking = JoinSet::new();
    for (n, region) in regions.iter().enumerate() {
        let region = Arc::clone(region);
        asking.spawn(async move { (n, within(timeout, ask_for_public_key(&region)).await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(n, _)| *n);
    let mut found: Option<(&str, PublicKey)> = None;
    let mut failed: Vec<(&str, KeyError)> = Vec::new();
    for (n, answer) in answers {
        let region = &*regions[n].name;
        match (answer, found) {
            (Ok(Ok(public)), None) => found = Some((region, public)),
            (Ok(Ok(public)), Some((_, same))) if public == same => {}
            (Ok(Ok(public)), Some((other, same))) => {
                let (one, another) =
                    (format!("{other}: {}", same.address()), format!("{region}: {}", public.address()));
                return Err(LoadError::NotOneKey { one, another });
            }
            (Ok(Err(error)), _) => return Err(error),
            (Err(error), _) => failed.push((region, error)),
        }
    }
    let Some((_, public)) = found else {
        let first = failed.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or_else(|| KeyError::Other("it is in no region".to_owned())).into());
    };
    for (region, error) in &failed {
        tracing::warn!(key = name, region, %error, "the key is not to be had in this region: it is asked when others fail");
    }
    for region in regions.iter().filter(|region| failed.iter().all(|(failed, _)| *failed != region.name)) {
        // Found to be so just now.
        let _ = region.verify(Ok(public), &public);
    }
    Ok(public)
}

/// Asks for the public key as often as for a signature.
async fn ask_for_public_key(region: &Region) -> Result<Result<PublicKey, LoadError>, KeyError> {
    let mut pause = FIRST_BACKOFF;
    let mut attempt = 1;
    loop {
        let asking = region.admit(Instant::now()).ok_or(KeyError::Unavailable { retry_after: LONGEST_BACKOFF })?;
        match region.public_key(asking).await {
            Ok(public) => return Ok(Ok(public)),
            Err(NoPublicKey::Wrong(error)) => return Ok(Err(error)),
            Err(NoPublicKey::NotGiven(Failure { error, fault })) => {
                if fault == Fault::Refused || attempt == ATTEMPTS {
                    return Err(error);
                }
            }
        }
        attempt += 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_BACKOFF);
    }
}

/// The deadline of everything: turns, attempts, pauses, credentials.
async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, KeyError>>) -> Result<T, KeyError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(KeyError::TimedOut(timeout)))
}
