//! What must hold for any bytes: the signer's readers are never more lenient than others, and mean the same.

mod calldata;
mod json;
mod signature;
mod transaction;
mod typed_data;

pub use crate::signer::api::json_rpc::checks::json_rpc;
pub use calldata::calldata;
pub use signature::signature;
pub use transaction::transaction;
pub use typed_data::typed_data;
