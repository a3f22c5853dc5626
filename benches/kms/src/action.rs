//! KMS's actions, as its API reference has them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::error::Category;
use sha2::{Digest, Sha256};

use crate::Stub;
use crate::fault::Mode;
use crate::key::Key;

/// An error, as KMS answers it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        let code = if error.classify() == Category::Data { "ValidationException" } else { "SerializationException" };
        Self::new(code, error.to_string())
    }
}

/// The region that a request is signed for, if it is signed (`Credential=ID/DATE/REGION/kms/aws4_request`).
pub(crate) fn region(authorization: &str) -> Option<&str> {
    let (_, scope) = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split_once("Credential=")?;
    let mut parts = scope.split(['/', ',']).skip(2);
    let region = parts.next()?;
    (parts.next() == Some("kms") && parts.next() == Some("aws4_request")).then_some(region)
}

/// The id of the key that a call is about: by id or by ARN.
pub(crate) fn key_id(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(rename = "KeyId", borrow)]
        key_id: Cow<'a, str>,
    }
    let id = serde_json::from_slice::<Call<'_>>(body).ok()?.key_id;
    Some(match id {
        Cow::Borrowed(id) => Cow::Borrowed(id.rsplit('/').next().unwrap_or_default()),
        Cow::Owned(id) => Cow::Owned(id.rsplit('/').next().unwrap_or_default().to_owned()),
    })
}

/// That a key is asked for which can be made here.
pub(crate) fn check_create_key(body: &[u8]) -> Result<(), Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Call {
        key_spec: String,
        key_usage: String,
    }
    let Call { key_spec, key_usage } = serde_json::from_slice(body)?;
    if (key_spec.as_str(), key_usage.as_str()) == ("ECC_SECG_P256K1", "SIGN_VERIFY") {
        Ok(())
    } else {
        Err(Failure::new("ValidationException", "the stub has keys of ECC_SECG_P256K1 and SIGN_VERIFY alone"))
    }
}

/// `Sign`: right, or as wrong as `mode` wants it.
pub(crate) fn sign(stub: &Stub, key: &Key, mode: Mode, body: &[u8]) -> Result<Vec<u8>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Call<'a> {
        #[serde(borrow)]
        message: Cow<'a, str>,
        message_type: Option<Cow<'a, str>>,
        signing_algorithm: Cow<'a, str>,
    }
    let invalid = |what: &'static str| Failure::new("ValidationException", what);
    let call: Call<'_> = serde_json::from_slice(body)?;
    if call.signing_algorithm != "ECDSA_SHA_256" {
        return Err(invalid("SigningAlgorithm: the key has ECDSA_SHA_256"));
    }
    let message = STANDARD.decode(call.message.as_bytes());
    let message = message.map_err(|_| Failure::new("SerializationException", "Message is not Base64"))?;
    if message.is_empty() || message.len() > 4096 {
        return Err(invalid("Message: expected 1 to 4096 bytes"));
    }
    let mut digest: [u8; 32] = match call.message_type.as_deref() {
        None | Some("RAW") => Sha256::digest(&message).into(),
        Some("DIGEST") => message.try_into().map_err(|_| invalid("Digest is invalid length for algorithm"))?,
        Some(_) => return Err(invalid("MessageType: expected RAW or DIGEST")),
    };
    if mode == Mode::OtherDigest {
        digest[0] ^= 1;
    }
    let signer = if mode == Mode::WrongSignature { &stub.another } else { key };
    let internal =
        |_| Failure { status: StatusCode::INTERNAL_SERVER_ERROR, ..Failure::new("KMSInternalException", "") };
    let mut signature = match mode {
        Mode::NotDer => vec![0; 71],
        Mode::Zero => vec![0x30, 6, 2, 1, 0, 2, 1, 0],
        Mode::Empty => Vec::new(),
        _ => signer.sign(&digest, stub.deterministic).map_err(internal)?,
    };
    if mode == Mode::TrailingBytes {
        signature.push(0);
    }
    // Nothing of it needs escaping.
    let (arn, signature) = (&key.arn, STANDARD.encode(signature));
    let answer = format!(r#"{{"KeyId":"{arn}","Signature":"{signature}","SigningAlgorithm":"ECDSA_SHA_256"}}"#);
    Ok(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_keys_are_found() {
        let signed =
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(region(signed), Some("eu-west-1"));
        for other in
            ["", "Bearer x", "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/s3/aws4_request, Signature=0"]
        {
            assert_eq!(region(other), None, "{other}");
        }
        assert_eq!(key_id(br#"{"KeyId": "arn:aws:kms:eu-west-1:1:key/2"}"#).as_deref(), Some("2"));
        assert_eq!(key_id(br#"{"Message": "", "KeyId": "a\u0062"}"#).as_deref(), Some("ab"));
        assert_eq!(key_id(b"{}"), None);
    }
}
