//! What was spent: of each asset, under each policy, by each address, on each chain.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, U256, Uint};

use super::db::{Row, Sql, Value, values};
use super::{LedgerError, millis};
use crate::policy::{Asset, Denied, Spend, judge_window};

/// A sum of amounts: no number of them fills it.
pub(super) type Total = Uint<320, 5>;

/// A clock that is this much behind the last request's is taken for one that was set right: what comes in is counted as
/// if it had not moved. Beyond, nothing is reserved that a window is for: counted ahead, it would count until that time
/// has come, and counted as the clock says, it might be forgotten too soon.
const BEHIND: Duration = Duration::from_secs(5 * 60);

/// Whose spending it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account<'a> {
    pub(super) policy: &'a str,
    pub(super) address: Address,
    pub(super) chain_id: u64,
}

/// Why something may not be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    Denied(Denied),
    /// The clock is this much behind what was counted last.
    ClockBehind(Duration),
}

/// What is to be written down.
#[derive(Debug)]
pub(super) struct Entry {
    asset: Asset,
    amount: U256,
    total: Total,
    counted_at: i64,
}

/// The end of an account's running total of one asset, at some moment.
struct Standing {
    /// When the last of it was counted, in milliseconds since 1970.
    last_at: i64,
    total: Total,
}

/// Whether the windows let all of it be spent.
pub(super) fn judge(
    db: &mut dyn Sql,
    account: Account<'_>,
    spends: &[Spend],
    now: SystemTime,
) -> Result<Result<Vec<Entry>, Refused>, LedgerError> {
    let mut by_asset: BTreeMap<Asset, U256> = BTreeMap::new();
    for spend in spends {
        let amount = by_asset.entry(spend.asset).or_default();
        *amount = amount.saturating_add(spend.amount);
    }
    let mut entries = Vec::new();
    for (asset, amount) in by_asset {
        // What spends nothing is let through, even if a limit was lowered below what is spent.
        if amount.is_zero() {
            continue;
        }
        let last = standing(db, account, asset, i64::MAX)?;
        let windows: Vec<_> = spends.iter().filter(|spend| spend.asset == asset).flat_map(|s| &s.windows).collect();
        let behind = Duration::from_millis(u64::try_from(last.last_at.saturating_sub(millis(now))).unwrap_or(0));
        if !windows.is_empty() && behind > BEHIND {
            return Ok(Err(Refused::ClockBehind(behind)));
        }
        for window in windows {
            let spent = spent_of(db, account, asset, last.total, window.period, now)?;
            if let Err(denied) = judge_window(asset, window, spent, amount) {
                return Ok(Err(Refused::Denied(denied)));
            }
        }
        entries.push(Entry {
            asset,
            amount,
            total: last.total.saturating_add(Total::from(amount)),
            // A clock that goes back opens no second window.
            counted_at: millis(now).max(last.last_at),
        });
    }
    Ok(Ok(entries))
}

/// What was spent of an asset in the last `period`.
pub(super) fn spent(
    db: &mut dyn Sql,
    account: Account<'_>,
    asset: Asset,
    period: Duration,
    now: SystemTime,
) -> Result<U256, LedgerError> {
    let total = standing(db, account, asset, i64::MAX)?.total;
    spent_of(db, account, asset, total, period, now)
}

/// How much of a running total is of the last `period`. What is exactly as old as that is out of it.
fn spent_of(
    db: &mut dyn Sql,
    account: Account<'_>,
    asset: Asset,
    total: Total,
    period: Duration,
    now: SystemTime,
) -> Result<U256, LedgerError> {
    let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
    let before = standing(db, account, asset, millis(now).saturating_sub(period))?.total;
    Ok(U256::saturating_from(total.saturating_sub(before)))
}

/// Writes down what is spent, for a request or for what is none; by these ids it can be taken back.
pub(super) fn insert(
    db: &mut dyn Sql,
    account: Account<'_>,
    entries: &[Entry],
    request: Option<i64>,
) -> Result<Vec<i64>, LedgerError> {
    let mut ids = Vec::new();
    for entry in entries {
        let inserted = db.first(
            "INSERT INTO spends (request, policy, address, chain_id, asset, amount, total, counted_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
            values![
                request,
                account.policy,
                account.address.into_array(),
                account.chain_id,
                column(entry.asset),
                entry.amount.to_be_bytes::<32>(),
                entry.total.to_be_bytes::<40>(),
                entry.counted_at,
            ],
        )?;
        ids.extend(inserted.map(|row| row.int(0)).transpose()?);
    }
    Ok(ids)
}

/// Takes back what a request spends.
pub(super) fn take_back_of(db: &mut dyn Sql, request: i64) -> Result<(), LedgerError> {
    for row in db.query("SELECT id FROM spends WHERE request = ?1 ORDER BY id", values![request])? {
        take_back(db, row.int(0)?)?;
    }
    Ok(())
}

/// Takes back an amount, and takes it out of the totals that came after it.
pub(super) fn take_back(db: &mut dyn Sql, id: i64) -> Result<(), LedgerError> {
    let deleted =
        db.first("DELETE FROM spends WHERE id = ?1 RETURNING policy, address, chain_id, asset, amount", values![id])?;
    let Some(Row(columns)) = deleted.clone() else { return Ok(()) };
    let amount = Total::from(U256::from_be_bytes(Row(columns.clone()).array::<32>(4)?));
    let mut account = columns;
    account[4] = Value::from(id);
    // Few: what was asked for while this waited for its key.
    let later = db.query(
        "SELECT id, total FROM spends
         WHERE policy = ?1 AND address IS NOT DISTINCT FROM ?2 AND chain_id = ?3 AND asset = ?4 AND id > ?5",
        &account,
    )?;
    for row in later {
        let total = Total::from_be_bytes(row.array::<40>(1)?).saturating_sub(amount);
        db.execute("UPDATE spends SET total = ?2 WHERE id = ?1", values![row.int(0)?, total.to_be_bytes::<40>()])?;
    }
    Ok(())
}

/// The account of an asset as it was at `at`.
fn standing(db: &mut dyn Sql, account: Account<'_>, asset: Asset, at: i64) -> Result<Standing, LedgerError> {
    let found = db.first(
        "SELECT counted_at, total FROM spends
         WHERE policy = ?1 AND address = ?2 AND chain_id = ?3 AND asset = ?4 AND counted_at <= ?5
         ORDER BY counted_at DESC, id DESC LIMIT 1",
        values![account.policy, account.address.into_array(), account.chain_id, column(asset), at],
    )?;
    match found {
        Some(row) => Ok(Standing { last_at: row.int(0)?, total: Total::from_be_bytes(row.array::<40>(1)?) }),
        None => Ok(Standing { last_at: i64::MIN, total: Total::ZERO }),
    }
}

/// A token's address; nothing for the chain's own currency.
fn column(asset: Asset) -> Value {
    match asset {
        Asset::Native => Value::Bytes(Vec::new()),
        Asset::Token(token) => Value::from(token.into_array()),
    }
}
