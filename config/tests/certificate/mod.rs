//! Certificates for the tests of files.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Writes a certificate for `a.test`, valid for so many days from now, and its key, under this name.
pub fn certificate(dir: &Path, name: &str, days: u64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(86_400 * days)).into();
    fs::write(dir.join(name).with_extension("crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join(name).with_extension("key"), key.serialize_pem()).unwrap();
}
