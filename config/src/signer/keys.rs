//! Keys that sign.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EthAddress, Signer};
use crate::Diagnostic;
use crate::place::At;
use crate::units::Period;

/// A signing key: exactly one of `kms` and `local`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A key in AWS KMS.
    pub kms: Option<Kms>,
    /// A key in a file.
    pub local: Option<Local>,
    /// The address the key must have, pinned.
    pub address: Option<EthAddress>,
}

/// A key in AWS KMS, of spec `ECC_SECG_P256K1` and usage `SIGN_VERIFY`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Key id or ARN. Not an alias: that can be pointed at another key.
    pub key_id: At<String>,
    /// The region; left out, the ARN's, else the environment's.
    pub region: Option<At<String>>,
    /// An emulator's URL.
    pub endpoint: Option<At<String>>,
    /// The regions of a multi-region key (`mrk-...`), in the order in which they are asked; in place of `region`.
    pub regions: Option<At<Vec<String>>>,
    /// Emulators' URLs, one for each of `regions`.
    pub endpoints: Option<At<Vec<String>>>,
    /// How long one signature may take, with its time in the queue and all its retries.
    #[serde(default = "default_kms_timeout")]
    pub timeout: Period,
    /// How often a second KMS is asked to sign at most, retries included. AWS lets an account ask about 1,000 times in
    /// each region, for all keys of its kind together.
    #[serde(default = "default_kms_rate")]
    pub rate: u32,
    /// So many requests wait for their turn at most; beyond that, the answer is 503 with `Retry-After`.
    #[serde(default = "default_kms_queue")]
    pub queue: u32,
}

fn default_kms_timeout() -> Period {
    Period(std::time::Duration::from_secs(10))
}

fn default_kms_rate() -> u32 {
    500
}

fn default_kms_queue() -> u32 {
    1000
}

/// More than any account is allowed.
const HIGHEST_RATE: u32 = 100_000;
/// A request that waits takes some hundred bytes.
const LONGEST_QUEUE: u32 = 100_000;

/// Where a key is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsRegion {
    /// The region; none is the environment's.
    pub region: Option<String>,
    /// What names the key there: an ARN has its region in it.
    pub key_id: String,
    /// An emulator's URL.
    pub endpoint: Option<String>,
}

impl Kms {
    /// The regions, in the order in which they are asked. One at least, in a file that was validated.
    #[must_use]
    pub fn regions(&self) -> Vec<KmsRegion> {
        let Some(regions) = &self.regions else {
            let region = self.region.as_ref().map(|region| &*region.value).or_else(|| arn_region(&self.key_id));
            return vec![KmsRegion {
                region: region.map(str::to_owned),
                key_id: self.key_id.value.clone(),
                endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.value.clone()),
            }];
        };
        let endpoint = |n| self.endpoints.as_ref().and_then(|endpoints| endpoints.get(n)).cloned();
        let regions = regions.iter().enumerate().map(|(n, region)| KmsRegion {
            region: Some(region.clone()),
            key_id: in_region(&self.key_id, region),
            endpoint: endpoint(n),
        });
        regions.collect()
    }
}

/// The region in a key's ARN (`arn:aws:kms:REGION:ACCOUNT:key/ID`).
fn arn_region(key_id: &str) -> Option<&str> {
    let mut parts = key_id.split(':');
    let arn = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kms");
    parts.next().filter(|region| arn && !region.is_empty())
}

/// What names a multi-region key in another region: the same id, and in an ARN that region.
fn in_region(key_id: &str, region: &str) -> String {
    if arn_region(key_id).is_none() {
        return key_id.to_owned();
    }
    let replaced = key_id.split(':').enumerate().map(|(n, part)| if n == 3 { region } else { part });
    replaced.collect::<Vec<_>>().join(":")
}

/// A key in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// 64 hex digits, in a file of mode 0600.
    pub path: PathBuf,
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    for (name, key) in &signer.keys {
        match (&key.kms, &key.local) {
            (Some(kms), None) => {
                kms_regions(kms, found);
                kms_queue(kms, &key.span, found);
                if kms.key_id.is_empty() {
                    let help = "what `aws kms create-key` answers as KeyId or Arn";
                    found.push(Diagnostic::error("key_id is empty").at(&kms.key_id.span).help(help));
                }
                if kms.key_id.starts_with("alias/") || kms.key_id.contains(":alias/") {
                    found.push(
                        Diagnostic::error("a KMS key is named by its id or ARN")
                            .at(&kms.key_id.span)
                            .label("an alias can be pointed at another key"),
                    );
                }
                let url = |text: &String| text.starts_with("http://") || text.starts_with("https://");
                let one = kms.endpoint.as_ref().filter(|endpoint| !url(endpoint)).map(|endpoint| &endpoint.span);
                let many = kms.endpoints.as_ref().filter(|all| !all.iter().all(url)).map(|all| &all.span);
                for span in one.into_iter().chain(many) {
                    found.push(Diagnostic::error("a KMS endpoint is a URL").at(span));
                }
            }
            (None, Some(_)) if !signer.allow_local_keys => found.push(
                Diagnostic::error(format!("key {name:?} is kept in a file"))
                    .at(&key.span)
                    .help("for development, set allow_local_keys = true under [signer]; for money, use kms"),
            ),
            (None, Some(_)) => {}
            (one, _) => {
                let has = if one.is_some() { "both kms and local" } else { "neither kms nor local" };
                found.push(Diagnostic::error(format!("key {name:?} has {has}")).at(&key.span).help(
                    "a key is in one place: kms = { key_id = \"...\" }, or for development local = { path = \"...\" }",
                ));
            }
        }
    }
    same_keys(signer, found);
}

fn kms_regions(kms: &Kms, found: &mut Vec<Diagnostic>) {
    let Some(regions) = &kms.regions else {
        if let Some(endpoints) = &kms.endpoints {
            found.push(Diagnostic::error("endpoints are for regions").at(&endpoints.span).help("one is `endpoint`"));
        }
        return;
    };
    let mut wrong = |message: &str, span: &Range<usize>, help: &str| {
        found.push(Diagnostic::error(message).at(span).help(help));
    };
    for (name, one) in [("region", &kms.region), ("endpoint", &kms.endpoint)] {
        if let Some(one) = one {
            wrong(&format!("{name} and regions say the same twice"), &one.span, &format!("write it in {name}s"));
        }
    }
    let multi_region = kms.key_id.rsplit('/').next().is_some_and(|id| id.starts_with("mrk-"));
    if regions.len() > 1 && !multi_region {
        let help = "only a multi-region key, whose id begins with mrk-, is the same key in several regions";
        wrong("this key is in one region", &kms.key_id.span, help);
    }
    match arn_region(&kms.key_id) {
        Some(region) if !regions.iter().any(|known| known == region) => {
            wrong("the key's ARN has a region that is not listed", &regions.span, &format!("list {region:?} as well"));
        }
        _ => {}
    }
    let distinct: BTreeSet<_> = regions.iter().collect();
    if regions.is_empty() || distinct.len() < regions.len() || distinct.iter().any(|region| region.is_empty()) {
        wrong("regions lists each region once, and one at least", &regions.span, "the first is asked first");
    }
    if let Some(endpoints) = &kms.endpoints
        && endpoints.len() != regions.len()
    {
        wrong("endpoints has one for each of regions", &endpoints.span, "leave it out, if these are AWS' own");
    }
}

fn kms_queue(kms: &Kms, span: &Range<usize>, found: &mut Vec<Diagnostic>) {
    for (name, value, most) in [("rate", kms.rate, HIGHEST_RATE), ("queue", kms.queue, LONGEST_QUEUE)] {
        if !(1..=most).contains(&value) {
            found.push(Diagnostic::error(format!("{name} must be from 1 to {most}")).at(span));
        }
    }
}

/// A key has one name: under a second it would have a second `daily_value`.
fn same_keys(signer: &Signer, found: &mut Vec<Diagnostic>) {
    // By its id alone: an ARN ends with it, and a multi-region key has it in every region.
    let id = |key_id: &str| key_id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let (mut kms, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (name, key) in &signer.keys {
        let endpoint = |kms: &Kms| kms.regions().into_iter().next().and_then(|region| region.endpoint);
        let in_kms = key.kms.as_ref().map(|kms| (id(&kms.key_id), endpoint(kms)));
        let other = in_kms.and_then(|key| kms.insert(key, name));
        let other = other.or_else(|| key.local.as_ref().and_then(|local| files.insert(&local.path, name)));
        if let Some(other) = other {
            found.push(
                Diagnostic::error(format!("keys {other:?} and {name:?} are the same key"))
                    .at(&key.span)
                    .help("a key has one name: each would have its own daily_value and idempotency keys"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kms(fields: &str) -> Result<Kms, String> {
        let text =
            format!("[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.keys.hot]\nkms = {{ {fields} }}");
        let source = crate::Source { path: "keygate.toml".into(), text };
        let loaded = crate::parse(source).map_err(|found| found.render(false))?;
        Ok(loaded.config.signer.and_then(|mut signer| signer.keys.remove("hot")?.value.kms).expect("the key"))
    }

    #[test]
    fn regions_come_from_arns() {
        assert_eq!(arn_region("arn:aws:kms:eu-central-1:111122223333:key/1234abcd"), Some("eu-central-1"));
        assert_eq!(arn_region("arn:aws-us-gov:kms:us-gov-west-1:1:key/mrk-1"), Some("us-gov-west-1"));
        for other in ["1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:s3:us-east-1:1:x", "arn:aws:kms::1:key/2", ""] {
            assert_eq!(arn_region(other), None, "{other}");
        }
    }

    #[test]
    fn a_multi_region_key_has_its_arn_in_each_region() {
        let key =
            kms("key_id = \"arn:aws:kms:eu-west-1:1:key/mrk-2\", regions = [\"eu-central-1\", \"eu-west-1\"]").unwrap();
        let region = |name: &str| KmsRegion {
            region: Some(name.into()),
            key_id: format!("arn:aws:kms:{name}:1:key/mrk-2"),
            endpoint: None,
        };
        assert_eq!(key.regions(), [region("eu-central-1"), region("eu-west-1")]);
        assert_eq!((key.rate, key.queue), (500, 1000));
        let key =
            kms("key_id = \"mrk-2\", regions = [\"a\", \"b\"], endpoints = [\"http://a\", \"http://b\"]").unwrap();
        let region = |name: &str| KmsRegion {
            region: Some(name.into()),
            key_id: "mrk-2".into(),
            endpoint: Some(format!("http://{name}")),
        };
        assert_eq!(key.regions(), [region("a"), region("b")]);
    }

    #[test]
    fn one_region_is_the_files_or_the_arns() {
        let region = |fields| kms(fields).unwrap().regions().remove(0).region;
        assert_eq!(region("key_id = \"k\""), None);
        assert_eq!(region("key_id = \"arn:aws:kms:eu-west-1:1:key/2\"").as_deref(), Some("eu-west-1"));
        assert_eq!(
            region("key_id = \"arn:aws:kms:eu-west-1:1:key/2\", region = \"us-east-1\"").as_deref(),
            Some("us-east-1")
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let mrk = "key_id = \"arn:aws:kms:a:1:key/mrk-2\"";
        for (fields, says) in [
            ("key_id = \"arn:aws:kms:a:1:key/2\", regions = [\"a\", \"b\"]".to_owned(), "in one region"),
            (format!("{mrk}, regions = [\"b\", \"c\"]"), "not listed"),
            (format!("{mrk}, regions = [\"a\", \"a\"]"), "each region once"),
            ("key_id = \"mrk-2\", regions = []".to_owned(), "one at least"),
            (format!("{mrk}, regions = [\"a\"], region = \"a\""), "twice"),
            (format!("{mrk}, regions = [\"a\"], endpoint = \"http://a\""), "twice"),
            (format!("{mrk}, regions = [\"a\", \"b\"], endpoints = [\"http://a\"]"), "one for each"),
            (format!("{mrk}, regions = [\"a\"], endpoints = [\"a\"]"), "is a URL"),
            (format!("{mrk}, endpoints = [\"http://a\"]"), "for regions"),
            ("key_id = \"\"".to_owned(), "key_id is empty"),
            (format!("{mrk}, rate = 0"), "rate must be"),
            (format!("{mrk}, queue = 0"), "queue must be"),
            (format!("{mrk}, rate = 100001"), "rate must be"),
        ] {
            let error = kms(&fields).unwrap_err();
            assert!(error.contains(says) && error.contains("keygate.toml:"), "{fields}: {error}");
        }
    }
}
