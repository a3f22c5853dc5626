//! Keys in KMS, and who asks for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::Address;
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyState, MessageType, SigningAlgorithmSpec};
use k256::elliptic_curve::rand_core::{OsRng, RngCore};
use keygate_config::{Kms as KmsConfig, Signer};
use sha2::{Digest, Sha256};

use super::Findings;
use crate::key::kms::{At, Failure, clients, public_key_of};
use crate::key::{KeyError, PublicKey};
use crate::signature;

/// Calls that the latency is the median of.
const CALLS: usize = 5;
/// AWS takes no signed request whose time is further off (Signature Version 4).
const MOST_SKEW: u64 = 300;
/// Clocks that are kept agree within this.
const SKEW: u64 = 60;
/// Within a region it is a few milliseconds; from elsewhere, a hundred or so.
const SLOW: Duration = Duration::from_millis(250);

/// Whose credentials these are. Asked of STS, which needs no permission, once: keys share them.
pub(super) async fn identity(config: &Signer, findings: &mut Findings) {
    let Some(kms) = config.keys.values().find_map(|key| key.kms.as_ref()) else { return };
    let (shared, _) = clients(kms).await;
    let check = "credentials";
    let found = match shared.credentials_provider() {
        Some(provider) => tokio::time::timeout(kms.timeout.0, provider.provide_credentials()).await,
        None => return findings.fail(check, "there are none", CREDENTIALS),
    };
    match found {
        Ok(Ok(_)) => {}
        // Its sources may quote a file or an answer.
        Ok(Err(error)) => return findings.fail(check, error.to_string(), CREDENTIALS),
        Err(_) => return findings.fail(check, "nobody answered who should give them", CREDENTIALS),
    }
    match tokio::time::timeout(kms.timeout.0, caller(&shared)).await {
        Ok(Some(arn)) if arn.ends_with(":root") => {
            findings.warn(
                check,
                arn,
                "this is the account's root user: give the signer a role that may use its keys alone",
            );
        }
        Ok(Some(arn)) => findings.ok(check, arn),
        Ok(None) | Err(_) => findings.warn(
            check,
            "there are some; STS does not say whose",
            "let the signer reach STS if you want to know; it works without",
        ),
    }
}

const CREDENTIALS: &str = "give the signer's process credentials in one of the ways of docs/kms.md";

async fn caller(shared: &SdkConfig) -> Option<String> {
    let answer = aws_sdk_sts::Client::new(shared).get_caller_identity().send().await;
    answer.ok()?.arn
}

/// A key, in each of its regions.
pub(super) async fn key(name: &str, config: &KmsConfig, pinned: Option<Address>, findings: &mut Findings) {
    let (_, regions) = clients(config).await;
    let mut known: Option<PublicKey> = None;
    for At { region, client, key_id } in &regions {
        let check = |what: &str| format!("key {name} {region} {what}");
        let Some(public) = public_key(&check, client, key_id, config.timeout.0, findings).await else { continue };
        match (known, pinned) {
            (Some(known), _) if known != public => {
                let found = format!("{}, and {} in another region", public.address(), known.address());
                findings.fail(&check("address"), found, "regions must be those of one multi-region key");
            }
            (_, Some(pinned)) if pinned != public.address() => {
                let found = format!("{}, and {pinned} is pinned", public.address());
                findings.fail(
                    &check("address"),
                    found,
                    "it is another key: name the right one, or pin this one's address",
                );
            }
            (_, Some(_)) => findings.ok(&check("address"), format!("{}, as pinned", public.address())),
            (_, None) => findings.warn(
                &check("address"),
                public.address().to_string(),
                format!("pin it, so that no other key is taken for it: address = \"{}\"", public.address()),
            ),
        }
        known = known.or(Some(public));
        sign(&check("sign"), client, key_id, &public, config.timeout.0, findings).await;
        state(&check("state"), client, key_id, findings).await;
        more_than_needed(&check("permissions"), client, key_id, findings).await;
    }
}

/// The public key, how long KMS takes to give it, and what time it is there.
async fn public_key(
    check: &impl Fn(&str) -> String,
    client: &Client,
    key_id: &str,
    timeout: Duration,
    findings: &mut Findings,
) -> Option<PublicKey> {
    let date = DateSeen::default();
    let (mut public, mut took) = (None, Vec::new());
    for _ in 0..CALLS {
        let start = Instant::now();
        let answer = client.get_public_key().key_id(key_id).customize().interceptor(date.clone()).send().await;
        took.push(start.elapsed());
        match answer.map_err(|error| Failure::of(&error, timeout).error) {
            Ok(answer) => public = Some(public_key_of(&answer)),
            Err(error) => {
                clock(&check("clock"), &date, findings);
                findings.fail(&check("public key"), error.to_string(), fix(&error, "kms:GetPublicKey"));
                return None;
            }
        }
    }
    clock(&check("clock"), &date, findings);
    took.sort();
    let median = took[CALLS / 2];
    let found = format!("{:.0} ms", median.as_secs_f64() * 1000.0);
    if median > SLOW {
        findings.warn(&check("latency"), found, "run the signer in, or near, the key's region");
    } else {
        findings.ok(&check("latency"), found);
    }
    match public? {
        Ok(public) => {
            findings.ok(&check("public key"), "ECC_SECG_P256K1, SIGN_VERIFY");
            Some(public)
        }
        Err(error) => {
            let fix = "make one with: aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY";
            findings.fail(&check("public key"), error.to_string(), fix);
            None
        }
    }
}

/// Has one digest signed, verifies the signature, and forgets it.
///
/// The digest is SHA-256 of a text that says what it is, and 32 random bytes. What Ethereum signs are Keccak-256
/// digests: for this one to be a transaction's, a message's or typed data's, somebody would have to find a preimage.
async fn sign(
    check: &str,
    client: &Client,
    key_id: &str,
    public: &PublicKey,
    timeout: Duration,
    findings: &mut Findings,
) {
    let mut random = [0; 32];
    OsRng.fill_bytes(&mut random);
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"keygate signer doctor: nothing is signed\0")
        .chain_update(random)
        .finalize()
        .into();
    let request = client
        .sign()
        .key_id(key_id)
        .message_type(MessageType::Digest)
        .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
        .message(Blob::new(digest));
    match request.send().await.map_err(|error| Failure::of(&error, timeout).error) {
        Err(error) => findings.fail(check, error.to_string(), fix(&error, "kms:Sign")),
        Ok(answer) => {
            let der = answer.signature.map(Blob::into_inner).unwrap_or_default();
            match signature::assemble(&der, &digest, public) {
                Ok(_) => findings.ok(check, "it signs, and the signature verifies"),
                Err(error) => {
                    findings.fail(check, error.to_string(), "whoever answers is not KMS: see what is in between")
                }
            }
        }
    }
}

/// What `DescribeKey` says, if these credentials may ask: they need not.
async fn state(check: &str, client: &Client, key_id: &str, findings: &mut Findings) {
    let answer = client.describe_key().key_id(key_id).send().await;
    let Some(key) = answer.ok().and_then(|answer| answer.key_metadata) else {
        return findings.ok(check, "kms:DescribeKey is not permitted, and not needed");
    };
    let origin = key.origin().map_or("origin unknown", |origin| origin.as_str());
    let regions = if key.multi_region() == Some(true) { "multi-region" } else { "in one region" };
    let state = key.key_state().map_or("unknown", KeyState::as_str);
    let found = format!("{state}, {origin}, {regions}");
    match key.key_state() {
        Some(KeyState::Enabled) => findings.ok(check, found),
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => findings.fail(
            check,
            found,
            "if you need the key: aws kms cancel-key-deletion, then aws kms enable-key; after its waiting period it is gone",
        ),
        Some(KeyState::Disabled) => findings.fail(check, found, "if nobody meant it: aws kms enable-key"),
        _ => findings.fail(check, found, "see docs/kms.md"),
    }
}

/// Permissions beyond the two that are needed, as far as reading shows them: nothing is tried that could change anything.
async fn more_than_needed(check: &str, client: &Client, key_id: &str, findings: &mut Findings) {
    let mut granted = Vec::new();
    if client.get_key_policy().key_id(key_id).send().await.is_ok() {
        granted.push("kms:GetKeyPolicy");
    }
    if client.list_grants().key_id(key_id).limit(1).send().await.is_ok() {
        granted.push("kms:ListGrants");
    }
    if client.list_resource_tags().key_id(key_id).limit(1).send().await.is_ok() {
        granted.push("kms:ListResourceTags");
    }
    if granted.is_empty() {
        return findings.ok(check, "no more than is needed, as far as can be seen");
    }
    findings.warn(
        check,
        format!("more than is needed: {}", granted.join(", ")),
        "allow kms:GetPublicKey and kms:Sign on this key, and nothing else: the policy is in docs/kms.md",
    );
}

fn clock(check: &str, date: &DateSeen, findings: &mut Findings) {
    // Who cannot be reached is found elsewhere.
    let Some(skew) = date.skew() else { return };
    let found = format!("{skew} s from KMS'");
    match skew {
        MOST_SKEW.. => findings.fail(check, found, "set the clock, and keep it with NTP: AWS refuses signed requests"),
        SKEW.. => findings.warn(check, found, "keep the clock with NTP: at 300 s AWS refuses signed requests"),
        _ => findings.ok(check, found),
    }
}

fn fix(error: &KeyError, action: &str) -> String {
    match error {
        KeyError::AccessDenied(_) => {
            format!("allow {action} on this key, in the policy of the signer's role and the key's own: see docs/kms.md")
        }
        KeyError::Unusable(_) => {
            "see that the id and the region are right, and that the key is enabled: aws kms describe-key".to_owned()
        }
        KeyError::Throttled => {
            "something else uses the account's quota up: see CloudWatch, and ask AWS for more".to_owned()
        }
        KeyError::TimedOut(_) | KeyError::Unreachable(_) => {
            "see that this machine reaches KMS: name resolution, port 443, a VPC endpoint of the region".to_owned()
        }
        _ => "see docs/kms.md".to_owned(),
    }
}

/// The `Date` of the last answer, and when it was seen: of an error's, too.
#[derive(Debug, Clone, Default)]
struct DateSeen(Arc<Mutex<Option<(SystemTime, SystemTime)>>>);

impl DateSeen {
    /// Seconds that the clock differs by.
    fn skew(&self) -> Option<u64> {
        let (there, here) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let skew = here.duration_since(there).unwrap_or_else(|error| error.duration());
        Some(skew.as_secs())
    }
}

impl Intercept for DateSeen {
    fn name(&self) -> &'static str {
        "DateSeen"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|date| httpdate::parse_http_date(date).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(|there| (there, SystemTime::now()));
        Ok(())
    }
}
