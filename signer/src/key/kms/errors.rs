//! KMS's errors, named. They carry KMS's codes, never the SDK's own dumps: those may quote a request.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use crate::key::KeyError;

/// How a call of KMS failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: KeyError,
    pub(super) fault: Fault,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The region's, which does not answer, or fails: another may not.
    Region,
    /// Nobody's: it is asked too often. Another region has a quota of its own.
    Throttled,
    /// KMS says no. It is not asked again, nor is another region: who disables a key, or takes leave to use it away,
    /// means it.
    Refused,
}

impl Failure {
    pub(crate) fn of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>, timeout: Duration) -> Self {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let error = named(error, timeout);
        let fault = match &error {
            KeyError::Throttled => Fault::Throttled,
            KeyError::TimedOut(_) | KeyError::Unreachable(_) => Fault::Region,
            KeyError::Other(_) if status.is_some_and(|status| status >= 500) => Fault::Region,
            _ => Fault::Refused,
        };
        Self { error, fault }
    }
}

pub(super) fn named<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>, timeout: Duration) -> KeyError {
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
pub(super) fn without_credentials(error: &(dyn Error + 'static)) -> bool {
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
