//! Typed data, beside alloy's own reader.

use alloy_dyn_abi::eip712;

use crate::typed_data::TypedData;

/// What is read strictly has one digest; where alloy's reader, which guesses, takes it too, it has the same.
pub fn typed_data(body: &[u8]) {
    super::json::json(body);
    let Ok(ours) = TypedData::parse(body) else { return };
    let digest = ours.signing_hash().expect("both agree");
    let Ok(theirs) = serde_json::from_slice::<eip712::TypedData>(body) else { return };
    if let Ok(theirs) = theirs.eip712_signing_hash() {
        assert_eq!(digest, theirs);
    }
}
