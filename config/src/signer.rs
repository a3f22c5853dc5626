//! The signer's part of the file, as operators write it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::function::Function;
use crate::model::Address;
use crate::place::At;
use crate::units::{Period, Wei};

/// The signing core.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// `unix:PATH`: one, or a list.
    pub listen: OneOrMany<At<Address>>,
    /// `sqlite:PATH`: what was signed, and what for.
    pub ledger: At<Ledger>,
    /// Keys in files are refused unless this is true.
    #[serde(default)]
    pub allow_local_keys: bool,
    /// Keys, by name. A key has one.
    #[serde(default)]
    pub keys: BTreeMap<String, At<Key>>,
    /// Chains that may be signed for, by name.
    #[serde(default)]
    pub chains: BTreeMap<String, At<Chain>>,
    /// What a caller may have signed, by name.
    #[serde(default)]
    pub policies: BTreeMap<String, At<Policy>>,
    /// Who may ask, by name. Nobody else is allowed anything. Idempotency keys go by the name: a caller that is renamed
    /// has used none.
    #[serde(default)]
    pub callers: BTreeMap<String, At<Caller>>,
}

/// One value, or a list of them.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany<At<Address>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own untagged enums lose the place in the file.
        let found = At::<toml::Value>::deserialize(deserializer)?;
        let address = |text: &str| -> Result<At<Address>, D::Error> {
            let value = text.parse().map_err(|why| de::Error::custom(format!("{why}, found {text:?}")))?;
            Ok(At { span: found.span.clone(), value })
        };
        match &found.value {
            toml::Value::String(text) => Ok(Self::One(address(text)?)),
            toml::Value::Array(list) => list
                .iter()
                .map(|item| item.as_str().ok_or_else(|| de::Error::custom("expected strings")).and_then(address))
                .collect::<Result<_, _>>()
                .map(Self::Many),
            _ => Err(de::Error::custom("expected \"unix:PATH\" or a list of them")),
        }
    }
}

/// Where the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A SQLite database at this path.
    Sqlite(PathBuf),
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err(de::Error::custom(format!("expected \"sqlite:PATH\", found {text:?}"))),
        }
    }
}

impl JsonSchema for Ledger {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ledger".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^sqlite:.+" })
    }
}

/// A signing key: exactly one of `kms` and `local`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A key in AWS KMS.
    pub kms: Option<Kms>,
    /// A key in a file.
    pub local: Option<Local>,
    /// The address the key must have, pinned.
    pub address: Option<EthAddress>,
}

/// A key in AWS KMS, of spec `ECC_SECG_P256K1` and usage `SIGN_VERIFY`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Key id or ARN. Not an alias: that can be pointed at another key.
    pub key_id: At<String>,
    /// The region; left out, the ARN's, else the environment's.
    pub region: Option<String>,
    /// An emulator's URL.
    pub endpoint: Option<At<String>>,
    /// How long one signature may take, with all its retries.
    #[serde(default = "default_kms_timeout")]
    pub timeout: Period,
}

fn default_kms_timeout() -> Period {
    Period(std::time::Duration::from_secs(10))
}

/// A key in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// 64 hex digits, in a file of mode 0600.
    pub path: PathBuf,
}

/// A chain that may be signed for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// EIP-155 chain id.
    pub id: u64,
}

/// What a caller may have signed. A field left out does not restrict.
///
/// `max_value` and `daily_value` count the chain's own currency only: not tokens, which `to` is for, and not fees, which
/// `max_fee` is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Names of `chains`.
    pub chains: Option<Vec<At<String>>>,
    /// Kinds of thing; left out, all of them, but for messages where `to` restricts: nobody can hold a message to it.
    pub sign: Option<Vec<Signable>>,
    /// Contracts and recipients. For token transfers and approvals, recipients are read from the call and must be
    /// listed as well; any other call is allowed by `functions` only.
    pub to: Option<Vec<EthAddress>>,
    /// Functions that may be called on what `to` lists, besides token transfers and approvals: selectors
    /// (`"0xd0e30db0"`) or signatures (`"deposit()"`). Recipients in their arguments are not read.
    pub functions: Option<Vec<Function>>,
    /// Contracts whose typed data is signed though it is not read, besides permits and authorizations of tokens that
    /// `to` lists.
    pub verifying_contracts: Option<Vec<EthAddress>>,
    /// Contracts whose code an account may be given (EIP-7702). Left out, none.
    pub delegates: Option<Vec<EthAddress>>,
    /// Most of the chain's currency in one transaction: not tokens, not fees.
    pub max_value: Option<Wei>,
    /// Most of the chain's currency in any 24 hours: not tokens, not fees; each chain and key apart.
    pub daily_value: Option<Wei>,
    /// Most that one transaction may cost in fees: gas times the highest gas price, that of blobs included.
    pub max_fee: Option<Wei>,
    /// Whether a transaction may create a contract.
    #[serde(default)]
    pub allow_contract_creation: bool,
}

/// A kind of thing to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signable {
    /// A transaction.
    Transaction,
    /// A message (EIP-191).
    Message,
    /// Typed data (EIP-712).
    TypedData,
    /// An authorization of EIP-7702, of a delegate that `delegates` lists.
    Authorization,
}

/// Who may ask: exactly one of `token_file` and `uid`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// A file with the caller's bearer token.
    pub token_file: Option<PathBuf>,
    /// The caller's Unix user id.
    pub uid: Option<u32>,
    /// Names of `keys` it may use.
    pub keys: Vec<At<String>>,
    /// A name of `policies`. A caller without one may have nothing signed.
    pub policy: Option<At<String>>,
}

/// An address; where upper and lower case are mixed, its EIP-55 checksum must be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EthAddress(pub alloy_primitives::Address);

impl std::str::FromStr for EthAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").filter(|d| d.len() == 40 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        let (Some(digits), Ok(address)) = (digits, text.parse::<alloy_primitives::Address>()) else {
            return Err(format!("expected an address of 0x and 40 hex digits, found {text:?}"));
        };
        let mixed = digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
        if mixed && alloy_primitives::Address::parse_checksummed(text, None).is_err() {
            return Err(format!("{text} has a wrong checksum (EIP-55): a digit may be mistyped"));
        }
        Ok(Self(address))
    }
}

impl fmt::Display for EthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for EthAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for EthAddress {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EthAddress".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{40}$" })
    }
}

impl Signer {
    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        for address in self.listen.as_mut_slice() {
            if let Address::Unix(path) = &mut address.value {
                resolve(path);
            }
        }
        let Ledger::Sqlite(path) = &mut self.ledger.value;
        resolve(path);
        for key in self.keys.values_mut() {
            if let Some(local) = &mut key.value.local {
                resolve(&mut local.path);
            }
        }
        for caller in self.callers.values_mut() {
            if let Some(path) = &mut caller.value.token_file {
                resolve(path);
            }
        }
    }
}
