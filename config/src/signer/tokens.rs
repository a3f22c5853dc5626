//! How much of a token may be spent, and who may have it.

use alloy_primitives::U256;
use schemars::JsonSchema;
use serde::Deserialize;

use super::EthAddress;
use crate::units::Period;

/// A token that may be moved. A field left out does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Token {
    /// Its contract; none where the table's name says it.
    pub address: Option<EthAddress>,
    /// Most in one request.
    pub max_amount: Option<U256>,
    /// Most in any period.
    pub windows: Vec<TokenWindow>,
    /// Who may have it, or be allowed to take it.
    pub recipients: Option<Vec<EthAddress>>,
    /// Above this, somebody else must approve it.
    pub approval_above: Option<U256>,
}

/// Most of a token in any period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWindow {
    /// How long.
    pub period: Period,
    /// How much, in the token's smallest unit.
    pub max: U256,
}

/// A token, as operators write it. Amounts are in its smallest unit, or in decimals if `decimals` is there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Token")]
struct Written {
    /// The token's contract. May be left out where the table is named by it.
    address: Option<EthAddress>,
    /// Decimals of the token: amounts may then be written with as many digits behind the point.
    #[serde(default)]
    decimals: u8,
    /// Most in one request: transfers, approvals and permits together.
    max_amount: Option<String>,
    /// Most in any period of these lengths, each chain and key apart; approvals and permits count as transfers do.
    #[serde(default)]
    windows: Vec<WrittenWindow>,
    /// Who may be sent it or allowed to take it, besides being listed in `to` where that is there.
    recipients: Option<Vec<EthAddress>>,
    /// Above this in one request, one of the policy's `require_approval.from` must approve it first.
    approval_above: Option<String>,
}

/// Most of a token in any period.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TokenWindow")]
struct WrittenWindow {
    /// How long.
    period: Period,
    /// How much.
    max: String,
}

super::schema_as!(Token, Written);

impl TryFrom<Written> for Token {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        let units = |amount: &String| units(amount, written.decimals);
        let windows = written.windows.iter().map(|window| {
            let max = units(&window.max)?;
            Ok(TokenWindow { period: window.period, max })
        });
        Ok(Self {
            address: written.address,
            max_amount: written.max_amount.as_ref().map(units).transpose()?,
            windows: windows.collect::<Result<_, String>>()?,
            approval_above: written.approval_above.as_ref().map(units).transpose()?,
            recipients: written.recipients,
        })
    }
}

/// An amount with at most so many decimals, in units of the last of them; exact.
fn units(text: &str, decimals: u8) -> Result<U256, String> {
    let places = usize::from(decimals);
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || text.ends_with('.') || !digits(whole) || !digits(part) {
        return Err(format!("expected an amount such as \"1000\" or, with `decimals`, \"0.5\", found {text:?}"));
    }
    if part.len() > places {
        return Err(format!("{text:?} has more decimals than the token's `decimals`, {decimals}"));
    }
    U256::from_str_radix(&format!("{whole}{part:0<places$}"), 10).map_err(|_| format!("{text:?} is beyond 256 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let read = |text, decimals| units(text, decimals).ok();
        assert_eq!(read("1000", 0), Some(U256::from(1000)));
        assert_eq!(read("1000", 6), Some(U256::from(1_000_000_000)));
        assert_eq!(read("0.000001", 6), Some(U256::ONE));
        assert_eq!(read("1.5", 18), Some(U256::from(15) * U256::from(10).pow(U256::from(17))));
        assert_eq!(units(&U256::MAX.to_string(), 0), Ok(U256::MAX));
        for (bad, decimals) in [
            ("", 6),
            (".5", 6),
            ("1.", 6),
            ("1.5", 0),
            ("0.0000001", 6),
            ("-1", 6),
            ("+1", 6),
            ("1e6", 6),
            ("0x10", 0),
            ("1_000", 0),
            (" 1", 0),
            ("1.2.3", 6),
            ("1", 78),
            ("115792089237316195423570985008687907853269984665640564039457584007913129639936", 0),
        ] {
            assert_eq!(read(bad, decimals), None, "{bad} {decimals}");
        }
    }
}
