//! Keys: "sign this digest".
//!
//! Whatever a key answers is checked against its public key before anyone else sees it.

#[cfg(test)]
pub(crate) mod fake_kms;
pub mod kms;
pub mod local;
mod public;
mod watch;

use std::time::Duration;

use alloy_primitives::Address;

pub use public::{NotAPublicKey, PublicKey};
pub(crate) use watch::watch;

use crate::signature::{self, Signature, SignatureError};

/// A key that is loaded, checked, and ready to sign.
#[derive(Debug)]
pub struct Key {
    name: String,
    public: PublicKey,
    secret: Secret,
}

/// Where the secret is.
#[derive(Debug)]
enum Secret {
    Kms(kms::Kms),
    Local(local::Local),
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyInfo {
    /// The key's name in the file.
    pub name: String,
    /// `kms` or `local`.
    pub kind: &'static str,
    /// The public key as SEC 1 writes it uncompressed, in hex: 130 digits.
    pub public_key: String,
    /// The address, in EIP-55's mixed case.
    pub address: String,
}

/// Why a key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// As many wait for the key as may, or longer than there is time. KMS was not asked.
    #[error("too many signatures are asked of the key: the next turn is in {} s", .retry_after.as_secs_f32().ceil())]
    Busy {
        /// When there is likely to be room.
        retry_after: Duration,
    },
    /// KMS failed so often, in every region, that it is left alone for a while. It was not asked.
    #[error("KMS failed time and again, and is left alone for {} s", .retry_after.as_secs_f32().ceil())]
    Unavailable {
        /// When it is asked again.
        retry_after: Duration,
    },
    /// KMS limits the rate, and did so until the deadline or the last attempt.
    #[error("KMS throttles requests")]
    Throttled,
    /// No answer before the deadline. Whether the key signed is unknown.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// KMS cannot be reached, or is not available.
    #[error("KMS cannot be reached: {0}")]
    Unreachable(&'static str),
    /// KMS knows the caller not, or does not let it use the key.
    #[error("KMS denies access: {0}")]
    AccessDenied(String),
    /// The key is disabled, pending deletion, not there, or not for signing.
    #[error("the key cannot be used: {0}")]
    Unusable(String),
    /// What the key answered is no signature of the digest.
    #[error("the key's answer is wrong: {0}")]
    BadAnswer(#[from] SignatureError),
    /// Anything else, by the code that KMS gives it.
    #[error("KMS failed: {0}")]
    Other(String),
}

impl KeyError {
    /// A short name, for metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Unavailable { .. } => "unavailable",
            Self::Throttled => "throttled",
            Self::TimedOut(_) => "timed-out",
            Self::Unreachable(_) => "unreachable",
            Self::AccessDenied(_) => "access-denied",
            Self::Unusable(_) => "key-unusable",
            Self::BadAnswer(_) => "bad-answer",
            Self::Other(_) => "other",
        }
    }

    /// Whether it is certain that there is no signature in the world: KMS refused, or was not asked, in every attempt.
    #[must_use]
    pub fn nothing_signed(&self) -> bool {
        use KeyError::{AccessDenied, Busy, Throttled, Unavailable, Unusable};
        matches!(self, Busy { .. } | Unavailable { .. } | Throttled | AccessDenied(_) | Unusable(_))
    }
}

/// Why a key cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file says neither or both of where the key is.
    #[error("it needs one of kms and local")]
    NotOne,
    /// A key in a file, without leave.
    #[error("it is kept in a file, and allow_local_keys is not set")]
    LocalNotAllowed,
    /// The file of a local key.
    #[error(transparent)]
    Local(#[from] local::LocalError),
    /// KMS did not give the public key.
    #[error(transparent)]
    Kms(#[from] KeyError),
    /// KMS has it, and it is of another kind.
    #[error("it is {found} in KMS, and must be {wanted}")]
    WrongKind {
        /// What KMS says it is.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// The public key that KMS gave is none.
    #[error("KMS gives a public key that is wrong: {0}")]
    PublicKey(#[from] NotAPublicKey),
    /// Two regions have different keys under one name.
    #[error("it is not the same key in all regions: {one}, {another}")]
    NotOneKey {
        /// A region, and the address there.
        one: String,
        /// Another.
        another: String,
    },
    /// The metrics cannot be made.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// It is another key than the one pinned.
    #[error("its address is {found}, and {pinned} is pinned")]
    WrongAddress {
        /// What the file pins.
        pinned: Address,
        /// What the key has.
        found: Address,
    },
}

impl Key {
    /// Loads the key `name` of the file, and sees that it is the one that is meant.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(name: &str, config: &keygate_config::Key, allow_local: bool) -> Result<Self, LoadError> {
        let (public, secret) = match (&config.kms, &config.local) {
            (Some(config), None) => {
                let kms = kms::Kms::load(name, config).await?;
                (kms.public(), Secret::Kms(kms))
            }
            (None, Some(_)) if !allow_local => return Err(LoadError::LocalNotAllowed),
            (None, Some(config)) => {
                let (local, public) = local::Local::load(&config.path)?;
                (public, Secret::Local(local))
            }
            _ => return Err(LoadError::NotOne),
        };
        match config.address {
            Some(pinned) if pinned.0 != public.address() => {
                Err(LoadError::WrongAddress { pinned: pinned.0, found: public.address() })
            }
            _ => Ok(Self { name: name.to_owned(), public, secret }),
        }
    }

    /// Signs a digest for `caller`, who takes turns with others, and verifies what comes back.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn sign(&self, digest: &[u8; 32], caller: &str) -> Result<Signature, KeyError> {
        match &self.secret {
            Secret::Kms(kms) => kms.sign(digest, caller).await,
            Secret::Local(local) => Ok(signature::assemble(&local.sign(digest)?, digest, &self.public)?),
        }
    }

    /// Asks KMS for the public key, which needs no more than signing does, and remembers what came of it.
    pub async fn check(&self) {
        if let Secret::Kms(kms) = &self.secret {
            kms.check().await;
        }
    }

    /// Why it would not sign, as far as is known: by the last answers of KMS, and the last check.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.secret {
            Secret::Kms(kms) => kms.trouble(),
            Secret::Local(_) => None,
        }
    }

    /// Has the key's own metrics in `registry`.
    ///
    /// # Errors
    /// Another key of this name is registered.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        match &self.secret {
            Secret::Kms(kms) => kms.register(registry),
            Secret::Local(_) => Ok(()),
        }
    }

    /// The key's name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the key is: `kms` or `local`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.secret {
            Secret::Kms(_) => "kms",
            Secret::Local(_) => "local",
        }
    }

    /// The key's address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.public.address()
    }

    /// What is known of the key.
    #[must_use]
    pub fn info(&self) -> KeyInfo {
        KeyInfo {
            name: self.name.clone(),
            kind: self.kind(),
            public_key: hex::encode(self.public.uncompressed()),
            address: self.address().to_checksum(None),
        }
    }
}
