//! A key in AWS KMS, which it never leaves.
//!
//! The public key is fetched once, at start. A signature is one `Sign` of a digest, tried again with backoff by the
//! SDK (standard mode: throttling, timeouts and failures of the service or the network) until the configured deadline.
//! Errors are named here, and carry KMS's codes, never the SDK's own dumps: those may quote a request.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::get_public_key::GetPublicKeyOutput;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};

use super::{KeyError, LoadError, PublicKey};

/// So often a request is tried, if the deadline allows.
const ATTEMPTS: u32 = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// Connecting within a region takes milliseconds.
const CONNECT: Duration = Duration::from_secs(2);

/// A key in KMS.
pub struct Kms {
    client: Client,
    key_id: String,
    timeout: Duration,
}

impl Kms {
    /// Fetches the public key, and sees that the key is for signing on secp256k1.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(config: &keygate_config::Kms) -> Result<(Self, PublicKey), LoadError> {
        Self::load_with(aws_config::defaults(BehaviorVersion::latest()), config).await
    }

    pub(super) async fn load_with(
        loader: ConfigLoader,
        config: &keygate_config::Kms,
    ) -> Result<(Self, PublicKey), LoadError> {
        let timeout = config.timeout.0;
        // An attempt that hangs leaves time for others.
        let attempt = timeout / 4;
        let mut loader = loader
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(FIRST_BACKOFF)
                    .with_max_backoff(LONGEST_BACKOFF),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT.min(attempt))
                    .operation_attempt_timeout(attempt)
                    .build(),
            );
        if let Some(region) = config.region.clone().or_else(|| region(&config.key_id).map(str::to_owned)) {
            loader = loader.region(Region::new(region));
        }
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint.value.clone());
        }
        let load = async {
            // The SDK's quota for all retries of a process, 100 of them, would leave the requests of a burst untried
            // again. Here each has its own: the attempts above, and the deadline.
            let retries = RetryPartition::custom("keygate").token_bucket(TokenBucket::unlimited()).build();
            let loaded = aws_sdk_kms::config::Builder::from(&loader.load().await).retry_partition(retries);
            let client = Client::from_conf(loaded.build());
            let answer = client.get_public_key().key_id(&config.key_id.value).send().await;
            Ok::<_, KeyError>((client, answer.map_err(|error| named(&error, timeout))?))
        };
        let (client, answer) = within(timeout, load).await?;
        let wrong = |found: &str, wanted| LoadError::WrongKind { found: format!("a key of {found}"), wanted };
        match spec(&answer) {
            Some(spec) if spec == KeySpec::EccSecgP256K1.as_str() => {}
            other => return Err(wrong(other.unwrap_or("no spec"), "ECC_SECG_P256K1")),
        }
        match answer.key_usage() {
            Some(KeyUsageType::SignVerify) => {}
            other => return Err(wrong(other.map_or("no usage", KeyUsageType::as_str), "SIGN_VERIFY")),
        }
        let public = PublicKey::from_spki(answer.public_key().map(AsRef::as_ref).unwrap_or_default())?;
        Ok((Self { client, key_id: config.key_id.value.clone(), timeout }, public))
    }

    /// Has KMS sign a digest, and answers KMS's DER, unchecked.
    ///
    /// # Errors
    /// [`KeyError`], never [`KeyError::BadAnswer`].
    pub async fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let request = self
            .client
            .sign()
            .key_id(&self.key_id)
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .message(Blob::new(digest.as_slice()));
        let sign = async { request.send().await.map_err(|error| named(&error, self.timeout)) };
        let answer = within(self.timeout, sign).await?;
        // No signature is a signature of no bytes: it does not verify.
        Ok(answer.signature.map(Blob::into_inner).unwrap_or_default())
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The key's spec: under its name of today, or under the old one that KMS answers as well, and emulators alone.
fn spec(answer: &GetPublicKeyOutput) -> Option<&str> {
    #[expect(deprecated, reason = "it is the old name")]
    let old = answer.customer_master_key_spec().map(|spec| spec.as_str());
    answer.key_spec().map(KeySpec::as_str).or(old)
}

/// The deadline of everything: attempts, pauses, credentials.
async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, KeyError>>) -> Result<T, KeyError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(KeyError::TimedOut(timeout)))
}

/// The region in a key's ARN (`arn:aws:kms:REGION:ACCOUNT:key/ID`).
fn region(key_id: &str) -> Option<&str> {
    let mut parts = key_id.split(':');
    let arn = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kms");
    parts.next().filter(|region| arn && !region.is_empty())
}

fn named<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>, timeout: Duration) -> KeyError {
    match error {
        SdkError::TimeoutError(_) => KeyError::TimedOut(timeout),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => KeyError::TimedOut(timeout),
        SdkError::DispatchFailure(failure) if failure.is_io() => KeyError::Unreachable("the connection failed"),
        // One that was made, and broke off before there was an answer: that has a kind.
        SdkError::DispatchFailure(failure) if failure.as_other().is_some() => {
            KeyError::Unreachable("the connection broke off")
        }
        SdkError::ServiceError(answer) => by_code(answer.err().code(), answer.raw().status().as_u16(), timeout),
        SdkError::ResponseError(answer) => by_code(None, answer.raw().status().as_u16(), timeout),
        SdkError::ConstructionFailure(_) => KeyError::Other("no request could be made".to_owned()),
        _ if without_credentials(error) => KeyError::AccessDenied("there are no credentials".to_owned()),
        _ => KeyError::Other("the request failed before there was an answer: is a region configured?".to_owned()),
    }
}

/// Whether it failed before anything was sent, for want of credentials.
fn without_credentials(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<CredentialsError>())
}

/// KMS's common errors and those of `Sign` and `GetPublicKey`, by their codes.
fn by_code(code: Option<&str>, status: u16, timeout: Duration) -> KeyError {
    let Some(code) = code else {
        return match status {
            429 => KeyError::Throttled,
            401 | 403 => KeyError::AccessDenied(format!("status {status}")),
            502..=504 => KeyError::Unreachable("a gateway before it answers in its place"),
            _ => KeyError::Other(format!("status {status}, without a code")),
        };
    };
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "SlowDown" => KeyError::Throttled,
        "AccessDeniedException"
        | "AccessDenied"
        | "NotAuthorized"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "OptInRequired"
        | "InvalidGrantTokenException" => KeyError::AccessDenied(code.to_owned()),
        "DisabledException"
        | "KMSInvalidStateException"
        | "NotFoundException"
        | "InvalidArnException"
        | "InvalidKeyUsageException"
        | "UnsupportedOperationException" => KeyError::Unusable(code.to_owned()),
        "DependencyTimeoutException" | "RequestTimeout" | "RequestTimeoutException" => KeyError::TimedOut(timeout),
        "KeyUnavailableException" | "ServiceUnavailable" | "ServiceUnavailableException" => {
            KeyError::Unreachable("it says that it is unavailable")
        }
        // The service's word, bounded: it is shown to callers and logged.
        other => KeyError::Other(other.chars().filter(char::is_ascii_alphanumeric).take(64).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_come_from_arns() {
        assert_eq!(region("arn:aws:kms:eu-central-1:111122223333:key/1234abcd"), Some("eu-central-1"));
        assert_eq!(region("arn:aws-us-gov:kms:us-gov-west-1:1:key/mrk-1"), Some("us-gov-west-1"));
        for other in ["1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:s3:us-east-1:1:x", "arn:aws:kms::1:key/2", ""] {
            assert_eq!(region(other), None, "{other}");
        }
    }

    #[test]
    fn errors_have_names() {
        let kind = |code, status| by_code(code, status, Duration::from_secs(1)).kind();
        assert_eq!(kind(Some("ThrottlingException"), 400), "throttled");
        assert_eq!(kind(Some("AccessDeniedException"), 400), "access-denied");
        assert_eq!(kind(Some("DisabledException"), 400), "key-unusable");
        assert_eq!(kind(Some("KMSInvalidStateException"), 400), "key-unusable");
        assert_eq!(kind(Some("NotFoundException"), 400), "key-unusable");
        assert_eq!(kind(Some("DependencyTimeoutException"), 500), "timed-out");
        assert_eq!(kind(Some("KeyUnavailableException"), 500), "unreachable");
        assert_eq!(kind(Some("KMSInternalException"), 500), "other");
        assert_eq!(kind(None, 429), "throttled");
        assert_eq!(kind(None, 503), "unreachable");
        assert_eq!(kind(None, 200), "other");
    }

    #[test]
    fn only_a_certain_refusal_frees_a_reservation() {
        let free = |code| by_code(Some(code), 400, Duration::from_secs(1)).nothing_signed();
        assert!(free("ThrottlingException") && free("AccessDeniedException") && free("DisabledException"));
        assert!(
            !free("DependencyTimeoutException") && !free("KMSInternalException") && !free("KeyUnavailableException")
        );
    }
}
