//! What a chain's nodes are asked, typed.

use alloy_primitives::{Address, B256, U256};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fees::{self, Market};
use super::rejected::Rejected;
use super::rpc::{LIMIT_EXCEEDED, NodeError, Rpc, RpcError};
use super::search::{Ask, Search};
use super::shown::hash_if_of;

/// JSON-RPC: a node does not have the method.
const NO_METHOD: i64 = -32601;
/// A thousand a second for thirty years. A node that says more is broken, or lies.
const MOST_TRANSACTIONS: u64 = 1 << 40;
/// So many blocks are looked at for the tip.
const TIP_BLOCKS: u8 = 10;

/// As of when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The latest block.
    Latest,
    /// With what waits in the node's pool.
    Pending,
    /// The block of this number.
    Block(u64),
}

/// A block's head, as far as fees need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// The gas that all its transactions may use.
    pub gas_limit: u64,
    /// In wei; none before EIP-1559.
    pub base_fee: Option<u128>,
}

/// A mined transaction's receipt, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of its block.
    pub block: u64,
    /// Whether what it called did not revert.
    pub success: bool,
}

/// A transaction that used a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The number of its block.
    pub block: u64,
    /// Its hash.
    pub hash: B256,
}

/// What became of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The node took it, now or before.
    Accepted,
    /// It did not. That says nothing of other nodes, nor of an earlier try: one of them may have it all the same.
    Rejected(Rejected, String),
}

impl Moment {
    fn param(self) -> Value {
        match self {
            Self::Latest => json!("latest"),
            Self::Pending => json!("pending"),
            Self::Block(number) => json!(format!("{number:#x}")),
        }
    }
}

impl Rpc {
    /// How many transactions of `sender` there are: the nonce of its next one.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn transaction_count(&self, sender: Address, moment: Moment) -> Result<u64, RpcError> {
        let count = number(&self.call("eth_getTransactionCount", &json!([sender, moment.param()])).await?)?;
        if count > MOST_TRANSACTIONS {
            return Err(RpcError::BadAnswer("more transactions of one sender than there can be"));
        }
        Ok(count)
    }

    /// The latest block's number.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn block_number(&self) -> Result<u64, RpcError> {
        number(&self.call("eth_blockNumber", &json!([])).await?)
    }

    /// The latest block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn latest_block(&self) -> Result<Block, RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            number: Box<RawValue>,
            gas_limit: Box<RawValue>,
            base_fee_per_gas: Option<Box<RawValue>>,
        }
        let head: Head = read(&self.call("eth_getBlockByNumber", &json!(["latest", false])).await?)?;
        Ok(Block {
            number: number(&head.number)?,
            gas_limit: number(&head.gas_limit)?,
            base_fee: head.base_fee_per_gas.as_deref().map(number).transpose()?,
        })
    }

    /// What gas costs, after this latest block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn market(&self, latest: Block) -> Result<Market, RpcError> {
        match latest.base_fee {
            None => Ok(Market::Legacy { gas_price: number(&self.call("eth_gasPrice", &json!([])).await?)? }),
            Some(base_fee) => Ok(Market::Eip1559 { base_fee, tip: self.tip().await? }),
        }
    }

    async fn tip(&self) -> Result<u128, RpcError> {
        #[derive(Deserialize)]
        struct History {
            #[serde(default)]
            reward: Vec<Vec<Box<RawValue>>>,
        }
        match self.call("eth_maxPriorityFeePerGas", &json!([])).await {
            Ok(tip) => number(&tip),
            Err(RpcError::Refused(NodeError { code: NO_METHOD, .. })) => {
                let params = json!([format!("{TIP_BLOCKS:#x}"), "latest", [50]]);
                let history: History = read(&self.call("eth_feeHistory", &params).await?)?;
                let rewards: Result<Vec<u128>, _> =
                    history.reward.iter().flatten().map(|reward| number(reward)).collect();
                Ok(fees::tip(&rewards?))
            }
            Err(error) => Err(error),
        }
    }

    /// What a gas of blobs costs in the next block, in wei.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn blob_base_fee(&self) -> Result<u128, RpcError> {
        number(&self.call("eth_blobBaseFee", &json!([])).await?)
    }

    /// The gas that a call would use now, without a margin ([`fees::gas_limit`]).
    ///
    /// # Errors
    /// [`RpcError::Refused`] when it would revert.
    pub async fn estimate_gas(&self, call: &Value) -> Result<u64, RpcError> {
        number(&self.call("eth_estimateGas", &json!([call])).await?)
    }

    /// The receipt, if a block has the transaction.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            transaction_hash: B256,
            block_number: Option<Box<RawValue>>,
            status: Option<Box<RawValue>>,
        }
        let found: Option<Found> = read(&self.call_long("eth_getTransactionReceipt", &json!([hash])).await?)?;
        match found {
            Some(found) if found.transaction_hash != hash => {
                Err(RpcError::BadAnswer("a receipt of another transaction"))
            }
            // Some nodes have receipts of pending transactions.
            Some(Found { block_number: Some(block), status: Some(status), .. }) => {
                Ok(Some(Receipt { block: number(&block)?, success: number::<u64>(&status)? == 1 }))
            }
            Some(Found { block_number: Some(_), status: None, .. }) => {
                Err(RpcError::BadAnswer("a receipt without a status"))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// By what a nonce of `sender` was used: the block of a [`Search`], and the hash of its transaction. None where that is
    /// not to be seen: the node knows no such block, or its block has no such transaction, signed by `sender`. Who is told
    /// that another took its place may pay again, so a node cannot make one up.
    ///
    /// # Errors
    /// [`RpcError`]; [`RpcError::Refused`] by nodes that keep no state as old as that.
    pub async fn used_by(&self, sender: Address, nonce: u64, mut search: Search) -> Result<Option<Used>, RpcError> {
        #[derive(Deserialize)]
        struct Full {
            transactions: Vec<Box<RawValue>>,
        }
        /// What a node says: it finds the one, and proves nothing.
        #[derive(Deserialize)]
        struct One {
            from: Address,
            nonce: Box<RawValue>,
        }
        loop {
            match search.ask() {
                Ask::Nothing => return Ok(None),
                Ask::Count(block) => {
                    search = search.told(block, self.transaction_count(sender, Moment::Block(block)).await?);
                }
                Ask::Block(block) => {
                    let params = json!([format!("{block:#x}"), true]);
                    let full: Option<Full> = read(&self.call_long("eth_getBlockByNumber", &params).await?)?;
                    for shown in full.into_iter().flat_map(|full| full.transactions) {
                        let One { from, nonce: its } = read(&shown)?;
                        if from == sender
                            && quantity(&its) == Some(nonce)
                            && let Some(hash) = hash_if_of(sender, self.chain_id(), nonce, &shown)
                        {
                            return Ok(Some(Used { block, hash }));
                        }
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Whether the node knows the transaction: in its pool, or in a block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn knows(&self, hash: B256) -> Result<bool, RpcError> {
        Ok(self.call("eth_getTransactionByHash", &json!([hash])).await?.get() != "null")
    }

    /// Sends a signed transaction. To send it again does no harm.
    ///
    /// # Errors
    /// [`RpcError`] when it is not known whether a node has it.
    pub async fn send(&self, raw: &[u8]) -> Result<Sent, RpcError> {
        match self.call("eth_sendRawTransaction", &json!([format!("0x{}", hex::encode(raw))])).await {
            Ok(_) => Ok(Sent::Accepted),
            Err(RpcError::Refused(error)) if error.code != LIMIT_EXCEEDED => Ok(match Rejected::of(&error) {
                Rejected::AlreadyKnown => Sent::Accepted,
                rejected => Sent::Rejected(rejected, error.message),
            }),
            Err(error) => Err(error),
        }
    }
}

/// A quantity as nodes write it, if it is one and fits.
pub(super) fn quantity<T: TryFrom<U256>>(value: &RawValue) -> Option<T> {
    let text: std::borrow::Cow<'_, str> = serde_json::from_str(value.get()).ok()?;
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    // Some nodes pad with zeros.
    if digits.is_empty() { None } else { U256::from_str_radix(digits, 16).ok()?.try_into().ok() }
}

fn number<T: TryFrom<U256>>(value: &RawValue) -> Result<T, RpcError> {
    quantity(value).ok_or(RpcError::BadAnswer("expected a quantity"))
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, RpcError> {
    serde_json::from_str(value.get()).map_err(|_| RpcError::BadAnswer("a field is missing, or not as it must be"))
}
