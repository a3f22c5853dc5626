//! Faults: ordered beforehand, and taken by the calls that they are for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::action::Failure;

/// How a call goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Well.
    #[default]
    None,
    /// Well, and is answered so many seconds later.
    Latency,
    /// The connection ends after so many seconds, without an answer; after an hour if they are 0.
    Hang,
    /// The connection ends at once, without an answer.
    Reset,
    /// The connection ends in the middle of the answer.
    Cut,
    /// `ThrottlingException`.
    Throttle,
    /// `KMSInternalException`, status 500.
    Error,
    /// `KeyUnavailableException`, status 503.
    Unavailable,
    /// `DisabledException`.
    Disabled,
    /// `AccessDeniedException`.
    Denied,
    /// `KMSInvalidStateException`.
    PendingDeletion,
    /// Another key's signature.
    WrongSignature,
    /// The key's signature of another digest.
    OtherDigest,
    /// 71 zeros in the signature's place.
    NotDer,
    /// The signature, and one byte behind it.
    TrailingBytes,
    /// A signature whose r and s are 0.
    Zero,
    /// No bytes in the signature's place.
    Empty,
}

impl Mode {
    /// The error that is answered, if that is what is ordered.
    pub(crate) fn failure(self) -> Option<Failure> {
        let (status, code, message) = match self {
            Self::Throttle => (StatusCode::BAD_REQUEST, "ThrottlingException", "Rate exceeded"),
            Self::Error => (StatusCode::INTERNAL_SERVER_ERROR, "KMSInternalException", "injected"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "KeyUnavailableException", "injected"),
            Self::Disabled => (StatusCode::BAD_REQUEST, "DisabledException", "the key is disabled"),
            Self::Denied => (StatusCode::BAD_REQUEST, "AccessDeniedException", "not authorized"),
            Self::PendingDeletion => {
                (StatusCode::BAD_REQUEST, "KMSInvalidStateException", "the key is pending deletion")
            }
            _ => return None,
        };
        Some(Failure { status, code, message: message.into() })
    }
}

/// What a call takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fault {
    pub(crate) mode: Mode,
    pub(crate) time: Duration,
}

/// What is ordered, and the calls so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    orders: Vec<Order>,
    /// By key, then by action.
    calls: HashMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    mode: Mode,
    #[serde(default = "sign")]
    action: String,
    key: Option<String>,
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    seconds: f64,
    #[serde(skip)]
    time: Duration,
}

fn sign() -> String {
    "Sign".into()
}

fn one() -> u32 {
    1
}

impl Faults {
    /// Takes an order, in place of one for the same action and key.
    pub(crate) fn order(&mut self, body: &[u8]) -> Result<(), String> {
        let mut order: Order = serde_json::from_slice(body).map_err(|error| format!("no such fault: {error}"))?;
        order.time = Duration::try_from_secs_f64(order.seconds).map_err(|error| format!("seconds: {error}"))?;
        self.orders.retain(|other| (&other.action, &other.key) != (&order.action, &order.key));
        if order.mode != Mode::None && order.count > 0 {
            self.orders.push(order);
        }
        Ok(())
    }

    /// The fault for this call, if any. Counts the call.
    pub(crate) fn take(&mut self, action: &str, key: &str) -> Option<Fault> {
        // Without an allocation, but for the first.
        match self.calls.get_mut(key).and_then(|calls| calls.get_mut(action)) {
            Some(count) => *count += 1,
            None => *self.calls.entry(key.to_owned()).or_default().entry(action.to_owned()).or_default() = 1,
        }
        let for_this =
            |order: &Order| order.action == action && order.key.as_deref().is_none_or(|wanted| wanted == key);
        let at = self.orders.iter().position(for_this)?;
        let order = &mut self.orders[at];
        let fault = Fault { mode: order.mode, time: order.time };
        order.count -= 1;
        if order.count == 0 {
            self.orders.remove(at);
        }
        Some(fault)
    }

    /// How often each action was asked for, for a key.
    pub(crate) fn calls(&self, key: &str) -> Value {
        json!(self.calls.get(key).cloned().unwrap_or_default())
    }
}

/// Reads what `Sign` is to take.
pub(crate) fn latency(body: &[u8]) -> Result<Vec<Duration>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Latency {
        milliseconds: Vec<u64>,
    }
    let Latency { milliseconds } = serde_json::from_slice(body)?;
    Ok(milliseconds.into_iter().map(Duration::from_millis).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(faults: &mut Faults, action: &str, key: &str) -> Mode {
        faults.take(action, key).unwrap_or_default().mode
    }

    #[test]
    fn faults_are_for_their_action_and_key_and_end() {
        let mut faults = Faults::default();
        faults.order(br#"{"mode": "throttle", "key": "a", "count": 2}"#).unwrap();
        faults.order(br#"{"mode": "cut", "action": "GetPublicKey"}"#).unwrap();
        assert_eq!(taken(&mut faults, "Sign", "b"), Mode::None);
        assert_eq!(taken(&mut faults, "GetPublicKey", "b"), Mode::Cut);
        assert_eq!(taken(&mut faults, "GetPublicKey", "b"), Mode::None);
        assert_eq!([(); 3].map(|()| taken(&mut faults, "Sign", "a")), [Mode::Throttle, Mode::Throttle, Mode::None]);
        assert_eq!(faults.calls("a"), json!({ "Sign": 3 }));
        assert_eq!(faults.calls("b"), json!({ "Sign": 1, "GetPublicKey": 2 }));
        // A second order is in place of the first.
        faults.order(br#"{"mode": "zero", "count": 9}"#).unwrap();
        faults.order(br#"{"mode": "none"}"#).unwrap();
        assert_eq!(taken(&mut faults, "Sign", "a"), Mode::None);
    }

    #[test]
    fn orders_that_are_not_understood_are_refused() {
        let mut faults = Faults::default();
        for bad in ["", "{}", r#"{"mode": "x"}"#, r#"{"mode": "hang", "second": 1}"#, r#"{"mode":"hang","seconds":-1}"#]
        {
            assert!(faults.order(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(latency(br#"{"milliseconds": [-1]}"#).is_err());
        assert_eq!(latency(br#"{"milliseconds": [5, 20]}"#).unwrap(), [5, 20].map(Duration::from_millis));
    }
}
