//! A key in a file: for development.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use alloy_primitives::Address;
use k256::ecdsa::SigningKey;
use k256::ecdsa::signature::hazmat::PrehashSigner;
use k256::elliptic_curve::rand_core::OsRng;
use zeroize::Zeroizing;

use super::{KeyError, PublicKey};

/// A secret key in memory; wiped when dropped.
pub struct Local(SigningKey);

/// What is wrong with a local key's file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct LocalError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; never what it holds.
    pub problem: String,
}

impl Local {
    /// Reads a key: 64 hex digits, with or without 0x before and a line's end behind, in a regular file that is this
    /// user's and nobody else's.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn load(path: &Path) -> Result<(Self, PublicKey), LocalError> {
        let wrong = |problem: &str| LocalError { path: path.to_owned(), problem: problem.to_owned() };
        let io = |error: std::io::Error| wrong(&error.to_string());
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(wrong("not a regular file"));
        }
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o777;
            return Err(wrong(&format!(
                "others may touch it (mode {mode:04o}): chmod 600 it, and think who has read it"
            )));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(wrong("belongs to another user"));
        }
        // Room for all that is read, so that no copy of it is left behind in growing.
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        file.take(100).read_to_end(&mut text).map_err(io)?;
        let digits = text.strip_suffix(b"\n").unwrap_or(&text);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| wrong("expected 64 hex digits"))?;
        let key = SigningKey::from_slice(bytes.as_slice()).map_err(|_| wrong("no secret key of secp256k1"))?;
        let public = public(&key).map_err(|error| wrong(&error))?;
        Ok((Self(key), public))
    }

    /// Signs a digest (RFC 6979), and answers DER.
    ///
    /// # Errors
    /// [`KeyError::Other`] if the curve's arithmetic fails, which has a chance of nothing.
    pub fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let signature: k256::ecdsa::Signature =
            self.0.sign_prehash(digest).map_err(|error| KeyError::Other(error.to_string()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local(..)")
    }
}

/// Makes a fresh random key in a new file of mode 0600, and answers its address.
///
/// # Errors
/// [`LocalError`], also when the file is there already: a key is never written over.
pub fn create(path: &Path) -> Result<Address, LocalError> {
    let wrong = |problem: String| LocalError { path: path.to_owned(), problem };
    let key = SigningKey::random(&mut OsRng);
    let secret = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
    let mut line = Zeroizing::new([0; 65]);
    line[64] = b'\n';
    // Cannot fail: the slice has room for 64 digits.
    hex::encode_to_slice(secret.as_slice(), &mut line[..64]).map_err(|error| wrong(error.to_string()))?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(line.as_slice())?;
        file.sync_all()
    });
    written.map_err(|error| wrong(error.to_string()))?;
    public(&key).map(|public| public.address()).map_err(wrong)
}

fn public(key: &SigningKey) -> Result<PublicKey, String> {
    let point = key.verifying_key().to_encoded_point(false);
    PublicKey::from_sec1(point.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::signature::assemble;

    const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn reads_hex_however_it_is_dressed() {
        for text in [ONE.to_owned(), format!("0x{ONE}"), format!("{ONE}\n"), format!("0x{ONE}\r\n")] {
            let (_dir, path) = file(&text, 0o600);
            let (key, public) = Local::load(&path).unwrap();
            assert_eq!(public.address().to_string(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
            assert!(assemble(&key.sign(&[3; 32]).unwrap(), &[3; 32], &public).is_ok());
            assert_eq!(format!("{key:?}"), "Local(..)");
        }
        let (_dir, path) = file(ONE, 0o400);
        assert!(Local::load(&path).is_ok());
    }

    #[test]
    fn refuses_what_is_no_key_and_does_not_repeat_it() {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let zero = "0".repeat(64);
        for text in ["", "0x", &ONE[1..], &format!("{ONE}0"), &format!("{ONE}\n\n"), &zero, order, &"f".repeat(200)] {
            let (_dir, path) = file(text, 0o600);
            let error = Local::load(&path).unwrap_err();
            assert!(text.len() < 3 || !error.problem.contains(text), "{error}");
        }
    }

    #[test]
    fn refuses_a_file_that_others_may_touch() {
        for mode in [0o640, 0o604, 0o644, 0o660, 0o610, 0o601] {
            let (_dir, path) = file(ONE, mode);
            let error = Local::load(&path).unwrap_err();
            assert!(error.problem.contains(&format!("mode {mode:04o}")), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(Local::load(dir.path()).is_err());
        assert!(Local::load(&dir.path().join("none")).is_err());
    }

    #[test]
    fn creates_a_key_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.key");
        let address = create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Local::load(&path).unwrap().1.address(), address);
        assert!(create(&path).is_err());
        assert_ne!(create(&dir.path().join("other.key")).unwrap(), address);
    }
}
