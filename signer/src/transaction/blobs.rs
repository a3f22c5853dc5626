//! What goes with a transaction of type 3 (EIP-4844) and is not signed: blobs, their commitments and proofs.

use alloy_eips::eip4844::{BYTES_PER_BLOB, Bytes48};
use alloy_eips::eip7594::{CELLS_PER_EXT_BLOB, EIP_7594_WRAPPER_VERSION};
use alloy_primitives::{B256, Bytes};
use ethers_core::utils::rlp::{Rlp, RlpStream};
use sha2::{Digest, Sha256};

use crate::json::Json;
use crate::strict::{FieldError, Fields, bytes, fixed_bytes, items, wrong};

/// Most blobs of one transaction (EIP-7594).
pub(crate) const MAX_BLOBS: usize = 6;
/// What a versioned hash begins with (EIP-4844): the rest is of the SHA-256 of a KZG commitment.
const VERSION: u8 = 0x01;

/// A sidecar, as EIP-4844 has it (a proof a blob) or EIP-7594 (128 cell proofs a blob).
///
/// Its commitments are those that the transaction's versioned hashes are of. Whether blobs and proofs go with the
/// commitments is for the node to see, which refuses them otherwise.
///
/// alloy's own has blobs as arrays, which its code moves over the stack: six of them do not fit one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    blobs: Vec<Bytes>,
    commitments: Vec<Bytes48>,
    proofs: Vec<Bytes48>,
}

/// What was given is no signed transaction of type 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signed transaction of type 3")]
pub struct NotBlobs;

impl Sidecar {
    /// Takes `blobs`, `commitments` and `proofs`, which come together or not at all.
    pub(super) fn take(fields: &mut Fields, hashes: &[B256]) -> Result<Option<Self>, FieldError> {
        let blobs = fields.optional("blobs", |at, list| items(at, list, blob))?;
        let commitments = fields.optional("commitments", |at, list| items(at, list, fixed_bytes::<48>))?;
        let proofs = fields.optional("proofs", |at, list| items(at, list, fixed_bytes::<48>))?;
        let (blobs, commitments, proofs) = match (blobs, commitments, proofs) {
            (None, None, None) => return Ok(None),
            (Some(blobs), Some(commitments), Some(proofs)) => (blobs, commitments, proofs),
            (None, ..) => return wrong("blobs", "missing: commitments and proofs are of blobs"),
            (_, None, _) => return wrong("commitments", "missing: blobs come with theirs"),
            (_, _, None) => return wrong("proofs", "missing: blobs come with theirs"),
        };
        for (name, count) in [("blobs", blobs.len()), ("commitments", commitments.len())] {
            if count != hashes.len() {
                return wrong(name, format!("expected {}, one for each versioned hash, found {count}", hashes.len()));
            }
        }
        for (i, (commitment, hash)) in commitments.iter().zip(hashes).enumerate() {
            if versioned_hash(commitment) != *hash {
                return wrong(&format!("blobVersionedHashes[{i}]"), format!("not the hash of commitments[{i}]"));
            }
        }
        if proofs.len() != blobs.len() && proofs.len() != blobs.len() * CELLS_PER_EXT_BLOB {
            let found = proofs.len();
            let expected = format!("a proof for each blob (EIP-4844) or {CELLS_PER_EXT_BLOB} (EIP-7594)");
            return wrong("proofs", format!("expected {expected}, found {found}"));
        }
        Ok(Some(Self { blobs, commitments, proofs }))
    }

    /// Whether the proofs are of cells (EIP-7594).
    fn of_cells(&self) -> bool {
        self.proofs.len() != self.blobs.len()
    }

    /// What tells it from others.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        // The transaction says how many blobs there are, and all parts of a kind have one length.
        let mut hash = Sha256::new_with_prefix([u8::from(self.of_cells())]);
        self.blobs.iter().for_each(|blob| hash.update(blob));
        self.commitments.iter().chain(&self.proofs).for_each(|part| hash.update(part));
        hash.finalize().into()
    }

    /// Joins it with the signed transaction that it goes with: `0x03 || rlp([tx, blobs, commitments, proofs])`
    /// (EIP-4844, "Networking"), or `0x03 || rlp([tx, 0x01, blobs, commitments, cell_proofs])` (EIP-7594).
    ///
    /// # Errors
    /// [`NotBlobs`] when `raw` is none.
    pub fn network_form(&self, raw: &[u8]) -> Result<Vec<u8>, NotBlobs> {
        let tx = raw.strip_prefix(&[0x03]).ok_or(NotBlobs)?;
        let rlp = Rlp::new(tx);
        if !rlp.is_list() || rlp.payload_info().ok().map(|info| info.total()) != Some(tx.len()) {
            return Err(NotBlobs);
        }
        let mut network = RlpStream::new_list(if self.of_cells() { 5 } else { 4 });
        network.append_raw(tx, 1);
        if self.of_cells() {
            network.append(&EIP_7594_WRAPPER_VERSION);
        }
        network.begin_list(self.blobs.len());
        for blob in &self.blobs {
            network.append(&blob.as_ref());
        }
        for parts in [&self.commitments, &self.proofs] {
            network.begin_list(parts.len());
            for part in parts {
                network.append(&part.as_slice());
            }
        }
        Ok([&[0x03], network.out().as_ref()].concat())
    }
}

/// The versioned hash of a commitment (EIP-4844, `kzg_to_versioned_hash`).
pub(super) fn versioned_hash(commitment: &Bytes48) -> B256 {
    let mut hash = B256::from(<[u8; 32]>::from(Sha256::digest(commitment)));
    hash[0] = VERSION;
    hash
}

pub(super) fn versioned_hashes(field: &str, value: Json) -> Result<Vec<B256>, FieldError> {
    let hashes = items(field, value, |at, hash| match fixed_bytes(at, hash)? {
        hash if B256::from(hash)[0] == VERSION => Ok(hash),
        _ => wrong(at, "expected a hash of version 1: it begins with 0x01 (EIP-4844)"),
    })?;
    if (1..=MAX_BLOBS).contains(&hashes.len()) {
        Ok(hashes)
    } else {
        wrong(
            field,
            format!("a transaction has from 1 to {MAX_BLOBS} blobs (EIP-4844, EIP-7594), not {}", hashes.len()),
        )
    }
}

fn blob(field: &str, value: Json) -> Result<Bytes, FieldError> {
    match bytes(field, value)? {
        blob if blob.len() == BYTES_PER_BLOB => Ok(blob),
        blob => wrong(field, format!("expected {BYTES_PER_BLOB} bytes, found {}", blob.len())),
    }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::TxEip4844WithSidecar;
    use alloy_consensus::transaction::{RlpEcdsaDecodableTx, RlpEcdsaEncodableTx};
    use alloy_eips::eip7594::BlobTransactionSidecarVariant;
    use alloy_primitives::hex;
    use serde_json::{Value, json};

    use super::*;
    use crate::transaction::{MAX_BODY, MAX_BODY_WITH_BLOBS, Transaction};

    const ONE: alloy_primitives::Signature =
        alloy_primitives::Signature::new(alloy_primitives::U256::ONE, alloy_primitives::U256::ONE, true);

    /// With `count` blobs and so many proofs. They prove nothing, which is for nodes to see.
    fn with_blobs(count: usize, proofs: usize) -> Value {
        let blob = |i: usize| format!("0x{}", format!("{i:02x}").repeat(131_072));
        let commitment = |i: usize| Bytes48::repeat_byte(u8::try_from(i).unwrap());
        let hashes: Vec<_> = (0..count).map(|i| versioned_hash(&commitment(i)).to_string()).collect();
        json!({"chainId": 137, "type": 3, "nonce": 7, "to": "0x3535353535353535353535353535353535353535", "gas": 21000,
               "maxFeePerGas": 2, "maxPriorityFeePerGas": 1, "maxFeePerBlobGas": 1, "blobVersionedHashes": hashes,
               "blobs": (0..count).map(blob).collect::<Vec<_>>(),
               "commitments": (0..count).map(|i| commitment(i).to_string()).collect::<Vec<_>>(),
               "proofs": (0..proofs).map(|i| Bytes48::repeat_byte(i as u8).to_string()).collect::<Vec<_>>()})
    }

    fn parse(json: &Value) -> Result<Transaction, FieldError> {
        Transaction::parse(json.to_string().as_bytes())
    }

    /// The example of EIP-4844's `kzg_to_versioned_hash` for the empty blob, whose commitment is the point at infinity.
    #[test]
    fn hashes_are_of_commitments() {
        let mut infinity = Bytes48::ZERO;
        infinity[0] = 0xc0;
        assert_eq!(
            hex::encode(versioned_hash(&infinity)),
            "010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014"
        );
    }

    #[test]
    fn most_blobs_fit_a_body_and_come_out_again() {
        for proofs in [6, 6 * 128] {
            let json = with_blobs(6, proofs);
            assert!(json.to_string().len() + MAX_BODY / 2 < MAX_BODY_WITH_BLOBS);
            let mut tx = parse(&json).unwrap();
            let sidecar = tx.take_sidecar().unwrap();
            assert_eq!(tx.take_sidecar(), None);
            let bare = tx.signing_bytes().unwrap();
            assert_eq!(tx, {
                let mut json = json.clone();
                for field in ["blobs", "commitments", "proofs"] {
                    json.as_object_mut().unwrap().remove(field);
                }
                parse(&json).unwrap()
            });
            assert!(bare.len() < 400, "what is signed has no blobs");
            let mut signed = Vec::new();
            let super::super::Kind::Eip4844(tx) = tx.kind else { panic!() };
            tx.eip2718_encode(&ONE, &mut signed);
            let network = sidecar.clone().network_form(&signed).unwrap();
            // What alloy reads is the same.
            let reading = std::thread::Builder::new().stack_size(256 << 20).spawn(move || {
                let mut rest = network.as_slice();
                let read = TxEip4844WithSidecar::<BlobTransactionSidecarVariant>::eip2718_decode(&mut rest).unwrap();
                assert!(rest.is_empty());
                let sidecar = &read.tx().sidecar;
                let blobs = sidecar.blobs().iter().map(|blob| Bytes::copy_from_slice(blob.as_slice())).collect();
                let proofs = match sidecar {
                    BlobTransactionSidecarVariant::Eip4844(sidecar) => sidecar.proofs.clone(),
                    BlobTransactionSidecarVariant::Eip7594(sidecar) => sidecar.cell_proofs.clone(),
                };
                let tx = read.tx().tx.clone();
                (Sidecar { blobs, commitments: sidecar.commitments().to_vec(), proofs }, tx, *read.signature())
            });
            let (read, read_tx, signature) = reading.unwrap().join().unwrap();
            assert!(read == sidecar);
            assert_eq!((read_tx, signature), (tx, ONE));
            assert_eq!(sidecar.network_form(&signed[..signed.len() - 1]), Err(NotBlobs));
            assert_eq!(sidecar.network_form(&signed[1..]), Err(NotBlobs));
            assert_eq!(sidecar.network_form(&[&[2], &signed[1..]].concat()), Err(NotBlobs));
            signed.push(0);
            assert_eq!(sidecar.network_form(&signed), Err(NotBlobs));
        }
    }

    #[test]
    fn another_sidecar_has_another_digest() {
        let digest = |json: &Value| parse(json).unwrap().take_sidecar().unwrap().digest();
        let one = with_blobs(1, 1);
        assert_eq!(digest(&one), digest(&one));
        let mut other = one.clone();
        other["blobs"][0] = json!(format!("0x01{}", "00".repeat(131_071)));
        assert_ne!(digest(&one), digest(&other));
        let mut other = one.clone();
        other["proofs"][0] = json!(Bytes48::repeat_byte(9).to_string());
        assert_ne!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&with_blobs(1, 128)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, field) in [
            (("blobs", json!([])), "blobs"),
            (("blobs", json!(["0x00"])), "blobs[0]"),
            (("commitments", json!([])), "commitments"),
            (("commitments", json!(["0x00"])), "commitments[0]"),
            (("commitments", json!([Bytes48::repeat_byte(9).to_string()])), "blobVersionedHashes[0]"),
            (("proofs", json!([])), "proofs"),
            (("proofs", json!([1])), "proofs[0]"),
            (("proofs", json!(vec![Bytes48::ZERO.to_string(); 2])), "proofs"),
        ] {
            let mut json = with_blobs(1, 1);
            json[change.0] = change.1;
            assert_eq!(parse(&json).unwrap_err().field.as_deref(), Some(field), "{}", change.0);
        }
        for missing in ["blobs", "commitments", "proofs"] {
            let mut json = with_blobs(1, 1);
            json.as_object_mut().unwrap().remove(missing);
            assert_eq!(parse(&json).unwrap_err().field.as_deref(), Some(missing));
        }
    }
}
