use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

/// A certificate (with its chain) and a key, as PEM.
#[derive(Debug, Clone)]
pub struct Pem {
    pub cert: String,
    pub key: String,
}

impl Pem {
    /// This certificate with another key: they do not match.
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self { cert: self.cert.clone(), key: other.key.clone() }
    }
}

/// A certificate authority of the tests.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// For curl's `--cacert` and openssl's `-CAfile`.
    pub cert: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "keygate tests");
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), cert }
    }

    /// A certificate for these names: host names, `*.` wildcards, IP addresses.
    pub fn leaf(&self, names: &[&str]) -> Pem {
        self.issue(names, |_| ())
    }

    /// A certificate of who is known by this URI.
    pub fn client(&self, uri: &str) -> Pem {
        let uri = SanType::URI(uri.try_into().expect("ASCII"));
        self.issue(&[], |params| params.subject_alt_names.push(uri))
    }

    /// One whose time is over.
    pub fn expired(&self, names: &[&str]) -> Pem {
        self.issue(names, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    /// One whose time has not begun.
    pub fn not_yet_valid(&self, names: &[&str]) -> Pem {
        self.issue(names, |params| {
            params.not_before = rcgen::date_time_ymd(2100, 1, 1);
            params.not_after = rcgen::date_time_ymd(2101, 1, 1);
        })
    }

    fn issue(&self, names: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Pem {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names of hosts");
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pem { cert: cert.pem(), key: key.serialize_pem() }
    }
}
