//! Messages of EIP-191, version 0x45: `personal_sign`.

use alloy_primitives::{B256, keccak256};

use crate::strict::{FieldError, Fields, Reader, bytes, text, wrong};
use crate::transaction::MAX_BODY;

/// A message to sign. What is signed is never the message's own hash, but the one of it behind a prefix that no
/// transaction begins with: 32 bytes that are a digest of something else are a message like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Reads a message from JSON: `message`, which is text, unless `encoding` is `hex`: then it is bytes.
    ///
    /// Text that begins with 0x is text all the same: what is meant is never guessed from how it looks.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong, and why.
    pub fn parse(json: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Fields::read(json, MAX_BODY, &["message", "encoding"])?;
        let encoding = fields.optional("encoding", text)?;
        let text: Reader<Vec<u8>> = |at, value| text(at, value).map(String::into_bytes);
        let message = match encoding.as_deref() {
            None | Some("utf-8") => fields.required("message", text)?,
            Some("hex") => fields.required("message", |at, value| bytes(at, value).map(Vec::from))?,
            Some(_) => return wrong("encoding", "expected \"utf-8\", which is the default, or \"hex\""),
        };
        Ok(Self(message))
    }

    /// The message itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the key signs: the Keccak-256 of `0x19 "Ethereum Signed Message:\n"`, the length in decimal digits, and the
    /// message.
    #[must_use]
    pub fn signing_hash(&self) -> B256 {
        keccak256([format!("\x19Ethereum Signed Message:\n{}", self.0.len()).as_bytes(), &self.0].concat())
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parse(json: &Value) -> Result<Message, FieldError> {
        Message::parse(json.to_string().as_bytes())
    }

    /// Digests that ethers 6 and eth-account 0.14 give.
    #[test]
    fn the_prefix_and_the_length_in_bytes() {
        let digest = |json: &Value| hex::encode(parse(json).unwrap().signing_hash());
        let hello = "50b2c43fd39106bafbba0da34fc430e1f91e3c96ea2acee2bc34119f92b37750";
        assert_eq!(digest(&json!({"message": "hello"})), hello);
        assert_eq!(digest(&json!({"message": "hello", "encoding": "utf-8"})), hello);
        assert_eq!(digest(&json!({"message": "0x68656c6c6f", "encoding": "hex"})), hello);
        assert_ne!(digest(&json!({"message": "0x68656c6c6f"})), hello);
        assert_eq!(digest(&json!({"message": ""})), "5f35dce98ba4fba25530a026ed80b2cecdaa31091ba4958b99b52ea1d068adad");
        // Bytes are counted, not characters.
        assert_eq!(parse(&json!({"message": "é"})).unwrap().bytes().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, field) in [
            (json!({}), "message"),
            (json!({"message": null}), "message"),
            (json!({"message": 1}), "message"),
            (json!({"message": ["x"]}), "message"),
            (json!({"message": "x", "encoding": "hex"}), "message"),
            (json!({"message": "0x1", "encoding": "hex"}), "message"),
            (json!({"message": "68", "encoding": "hex"}), "message"),
            (json!({"message": "x", "encoding": "base64"}), "encoding"),
            (json!({"message": "x", "encoding": null}), "encoding"),
            (json!({"message": "x", "digest": "0x"}), "digest"),
            (json!({"digest": "0x00"}), "digest"),
        ] {
            assert_eq!(parse(&json).unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        assert_eq!(parse(&json!("x")).unwrap_err().field, None);
        let long = json!({"message": "x".repeat(MAX_BODY)});
        assert!(parse(&long).unwrap_err().problem.contains("longer"));
    }

    proptest! {
        #[test]
        fn text_and_hex_are_the_same_message(text: String) {
            let hex = json!({"message": hex::encode_prefixed(&text), "encoding": "hex"});
            let message = parse(&json!({"message": text})).unwrap();
            prop_assert_eq!(&message, &parse(&hex).unwrap());
            prop_assert_eq!(message.signing_hash(), alloy_primitives::eip191_hash_message(&text));
        }
    }
}
