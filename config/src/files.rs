//! What a configuration refers to outside its file: certificates, private keys, tokens, folders, sockets, addresses.

use std::cell::LazyCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, FsWord, OFlags, PROC_SUPER_MAGIC};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::claims::real;
use crate::{Address, Certificate, Config, Diagnostic, Ledger, Loaded, SignerAddress, UpstreamTls};

/// A warning comes this long before a certificate expires.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// File systems in which there is what the kernel shows, and nothing else: proc, sysfs, cgroup2.
const KERNELS_OWN: [FsWord; 3] = [PROC_SUPER_MAGIC, 0x6265_6572, 0x6367_7270];

/// A certificate chain that matches its key, and what its leaf says.
#[derive(Debug, Clone)]
pub struct LoadedCertificate {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// DNS names (lower case, wildcards as `*.name`) and IP addresses of the leaf.
    pub names: Vec<String>,
    /// The leaf's last moment.
    pub not_after: SystemTime,
    /// The leaf's first moment.
    pub not_before: SystemTime,
}

/// Reads a certificate and its key, and sees that they belong together. Says nothing of their time.
///
/// # Errors
/// One line that names the file and what is wrong with it.
pub fn load_certificate(files: &Certificate, provider: &CryptoProvider) -> Result<LoadedCertificate, String> {
    let at = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let content = |path: &Path| read(path).map_err(|error| at(path, &error));
    let chain = CertificateDer::pem_slice_iter(&content(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| at(&files.cert, &error))?;
    let Some(leaf) = chain.first() else {
        return Err(at(&files.cert, &"holds no certificate"));
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| at(&files.cert, &format!("not an X.509 certificate: {error}")))?;
    let names = names(&parsed);
    let moment = |time: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
    };
    let (not_before, not_after) = (moment(parsed.validity().not_before), moment(parsed.validity().not_after));
    let key = PrivateKeyDer::from_pem_slice(&content(&files.key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => at(&files.key, &"holds no private key"),
        other => at(&files.key, &other),
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| at(&files.key, &error))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => {
            return Err(format!("{}: is not the key of {}", files.key.display(), files.cert.display()));
        }
    }
    Ok(LoadedCertificate { key: Arc::new(certified), names, not_after, not_before })
}

/// What TLS to an upstream's servers needs of files.
#[derive(Debug, Clone)]
pub struct LoadedUpstreamTls {
    /// The authorities that are trusted.
    pub roots: Vec<CertificateDer<'static>>,
    /// The certificate that is shown to servers.
    pub client: Option<LoadedCertificate>,
}

/// Reads what TLS to an upstream's servers needs. `system` is where the system's authorities come from.
///
/// # Errors
/// One line that says what is wrong, and where in the file the cause is named, if it is.
pub fn load_upstream_tls(
    tls: &UpstreamTls,
    provider: &CryptoProvider,
    system: impl FnOnce() -> Result<Vec<CertificateDer<'static>>, String>,
) -> Result<LoadedUpstreamTls, (String, Option<Range<usize>>)> {
    let roots = match &tls.ca {
        Some(path) => load_authorities(path).map_err(|why| (why, Some(path.span.clone())))?,
        None => system().map_err(|why| (why, None))?,
    };
    let client = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let files = Certificate { cert: cert.value.clone(), key: key.value.clone() };
            Some(load_certificate(&files, provider).map_err(|why| (why, Some(cert.span.clone())))?)
        }
        _ => None,
    };
    Ok(LoadedUpstreamTls { roots, client })
}

/// Reads certificates of authorities, at least one.
///
/// # Errors
/// One line that names the file.
pub fn load_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let at = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let content = read(path).map_err(|error| at(&error))?;
    let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>().map_err(|error| at(&error))?;
    if found.is_empty() {
        return Err(at(&"holds no certificate"));
    }
    for certificate in &found {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| at(&error))?;
    }
    Ok(found)
}

/// The authorities that this machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// When there are none.
pub fn system_authorities() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    // One that cannot be read takes none of the others away.
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("this machine trusts no authority{why}: name a file of them as tls.ca"));
    }
    Ok(found.certs)
}

/// Reads a file that is one: a pipe would be waited for, and a device has no end.
///
/// # Errors
/// Those of the system, without the path.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without waiting for somebody to write to it.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// Reads a bearer token: the file's first line, at least 16 visible characters.
///
/// # Errors
/// One line that names the file; never its content.
pub fn load_token(path: &Path) -> Result<String, String> {
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{}: a token is at least 16 visible ASCII characters", path.display()));
    }
    Ok(token.to_owned())
}

/// Reads a password that keygate shows to somebody: the first line of its file.
///
/// # Errors
/// What is wrong, in one line that names the file.
pub fn load_password(path: &Path) -> Result<String, String> {
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8(text).map_err(|_| format!("{}: a password is text", path.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(format!("{}: its first line, the password, is empty", path.display())),
    }
}

/// What others than its owner and group could do with a secret's file, in one line that names it.
#[must_use]
pub fn exposed(path: &Path) -> Option<String> {
    // What is no file is refused for that.
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mode = file.permissions().mode() & 0o777;
    (mode & 0o006 != 0)
        .then(|| format!("{}: anybody on this machine may read or write this secret (mode {mode:04o})", path.display()))
}

/// Looks at everything the configuration refers to, as of `now` and as this user: what a start would stumble over.
#[must_use]
pub fn check(loaded: &Loaded, now: SystemTime) -> Vec<Diagnostic> {
    let config: &Config = &loaded.config;
    let mut found = check_certificates(loaded, now);
    if let Some(path) = &config.admin.token_file {
        found.extend(load_token(path).err().map(|why| Diagnostic::error(why).at(&path.span)));
    }
    if !config.listeners.is_empty() {
        check_gateway(config, &mut found);
    }
    if let Some(signer) = &config.signer {
        check_signer(signer, &mut found);
        found.extend(check_own_mode(&loaded.source.path));
    }
    if config.listeners.is_empty() && config.signer.is_none() {
        found.push(Diagnostic::error("nothing to run: neither [listeners] nor [signer]"));
    }
    found
}

fn check_gateway(config: &Config, found: &mut Vec<Diagnostic>) {
    let mut error = |what: &str, checked: Result<(), String>| {
        found.extend(checked.err().map(|why| Diagnostic::error(format!("{what}: {why}"))));
    };
    let state_dir = &config.process.state_dir;
    error("process.state_dir", check_folder(state_dir));
    if let Some(path) = config.access_log.file() {
        let made = match path.parent() {
            // The start makes the state folder before it opens the log.
            Some(folder) if real(state_dir).starts_with(real(folder)) && !folder.exists() => check_folder(folder),
            _ => check_log(path),
        };
        error("access_log.path", made);
    }
    let admin = &config.admin.listen;
    if let Address::Unix(path) = &admin.value {
        error("admin.listen", check_socket(path));
    }
    let listeners = config.listeners.values().flat_map(|listener| &listener.bind).map(|bind| (bind.value, &bind.span));
    let admin = match &admin.value {
        Address::Tcp(address) => Some((*address, &admin.span)),
        Address::Unix(_) => None,
    };
    for (address, span) in listeners.chain(admin) {
        found.extend(check_bind(address).map(|warning| warning.at(span)));
    }
}

/// Warns of an address that this machine does not have.
fn check_bind(address: SocketAddr) -> Option<Diagnostic> {
    // As UDP, so that no client can meet it. It may well be in use, or take a privilege that the service has.
    let error = UdpSocket::bind(address).err()?;
    let wrong = !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    wrong.then(|| Diagnostic::warning(format!("{address} cannot be bound on this machine: {error}")))
}

/// Whether the machine has this user.
fn known_user(name: &str) -> bool {
    matches!(nix::unistd::User::from_name(name), Ok(Some(_)))
}

/// A folder that is there, or can be made, and in which files can be made.
fn check_folder(path: &Path) -> Result<(), String> {
    for folder in path.ancestors() {
        let at = |why: &dyn std::fmt::Display| Err(format!("{}: {why}", folder.display()));
        match folder.metadata() {
            Ok(found) if !found.is_dir() => return at(&"there is a file that is no folder"),
            Ok(_) => {
                access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
                // Root may write there, as far as permissions go.
                return match rustix::fs::statfs(folder) {
                    Ok(found) if KERNELS_OWN.contains(&found.f_type) => {
                        at(&"the kernel's own: no files are made there")
                    }
                    _ => Ok(()),
                };
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return at(&error),
            Err(_) if folder.is_symlink() => return at(&"a link that leads nowhere"),
            // What is missing is made at the start, in the nearest folder that is there.
            Err(_) => {}
        }
    }
    Ok(())
}

/// A file that can be appended to, or made: its folder is not. A pipe without a reader would be waited for; what is
/// never read back, as /dev/null, is as good as a file.
///
/// # Errors
/// One line that names the file.
pub fn check_log(path: &Path) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(format!("{}: is a folder", path.display())),
        Ok(found) if !found.is_file() && !found.file_type().is_char_device() => Err(format!(
            "{}: neither a file nor a character device; for standard output write \"stdout\"",
            path.display()
        )),
        Ok(_) => access(path, Access::WRITE_OK),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        Err(_) if !folder.exists() => Err(format!("{}: there is no such folder", folder.display())),
        Err(_) => check_folder(folder),
    }
}

/// A place for a socket: with a socket there, or nothing.
fn check_socket(path: &Path) -> Result<(), String> {
    if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(format!("{}: there is a file that is no socket", path.display()));
    }
    path.parent().map_or(Ok(()), check_folder)
}

/// A SQLite database, or a place for one.
fn check_ledger(path: &Path) -> Result<(), String> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    if let Ok(found) = path.metadata() {
        let at = |why: &dyn std::fmt::Display| Err(format!("{}: {why}", path.display()));
        if !found.is_file() {
            return at(&"not a regular file");
        }
        access(path, Access::READ_OK | Access::WRITE_OK)?;
        let mut head = Vec::new();
        if let Err(error) = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head)) {
            return at(&error);
        }
        if !head.is_empty() && head != MAGIC {
            return at(&"is no SQLite database");
        }
    }
    path.parent().map_or(Ok(()), check_folder)
}

fn access(path: &Path, wanted: Access) -> Result<(), String> {
    rustix::fs::access(path, wanted).map_err(|error| format!("{}: {}", path.display(), io::Error::from(error)))
}

fn check_signer(signer: &crate::Signer, found: &mut Vec<Diagnostic>) {
    let wrong = match &signer.ledger.value {
        Ledger::Sqlite(path) => check_ledger(path).err(),
        Ledger::Postgres(server) => {
            let files = [&server.password_file, &server.ca].into_iter().flatten();
            files.map(|path| access(path, Access::READ_OK)).find_map(Result::err)
        }
    };
    found.extend(wrong.map(|why| Diagnostic::error(why).at(&signer.ledger.span)));
    for listen in signer.listen.as_slice() {
        match &listen.value {
            SignerAddress::Unix(path) => {
                found.extend(check_socket(path).err().map(|why| Diagnostic::error(why).at(&listen.span)));
            }
            SignerAddress::Https(address) | SignerAddress::Http(address) => {
                found.extend(check_bind(*address).map(|warning| warning.at(&listen.span)));
            }
        }
    }
    if let Some(user) = signer.user.as_ref().filter(|user| !known_user(user)) {
        let what = format!("this machine has no user {:?}", user.value);
        found.push(Diagnostic::error(what).at(&user.span).help("make one: useradd --system --no-create-home NAME"));
    }
    for key in signer.keys.values() {
        if let Some(local) = &key.local {
            let help = "64 hex digits that its owner alone may read, as of (umask 077 && openssl rand -hex 32 > FILE)";
            let wrong = check_private(&local.path).err();
            found.extend(wrong.map(|why| Diagnostic::error(why).at(&key.span).help(help)));
        }
    }
    for chain in signer.chains.values() {
        if let Some(path) = &chain.rpc_file {
            found.extend(crate::load_rpc(path).err().map(|why| Diagnostic::error(why).at(&chain.span)));
            if let Some(why) = exposed(path) {
                let help = "a node's URL holds its key, most often: chmod 600, or 640 for a group of its own";
                found.push(Diagnostic::warning(why).at(&chain.span).help(help));
            }
        }
    }
    crate::signer::check_callers(signer, found);
}

/// Who may write the file decides who is paid.
fn check_own_mode(path: &Path) -> Option<Diagnostic> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let what = format!("{}: anybody on this machine may change this file (mode {mode:04o})", path.display());
    (mode & 0o002 != 0).then(|| Diagnostic::warning(what).help("it says who has what signed: chmod o-w"))
}

/// A secret's file is there, and nobody else's to read.
fn check_private(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match metadata.permissions().mode() & 0o777 {
        _ if !metadata.is_file() => Err(format!("{}: not a regular file", path.display())),
        mode if mode & 0o077 != 0 => {
            Err(format!("{}: others may touch it (mode {mode:04o}): chmod 600", path.display()))
        }
        _ => Ok(()),
    }
}

/// Looks at every certificate and its key, as of `now`.
#[must_use]
pub fn check_certificates(loaded: &Loaded, now: SystemTime) -> Vec<Diagnostic> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut found = Vec::new();
    let listeners = loaded.config.listeners.values();
    for files in listeners.filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates) {
        match load_certificate(&files.value, &provider) {
            Err(why) => found.push(Diagnostic::error(why).at(&files.span)),
            Ok(certificate) => {
                found.extend(validity(&files.value.cert, &certificate, now).map(|d| d.at(&files.span)));
            }
        }
    }
    for tls in loaded.config.signer.iter().filter_map(|signer| signer.tls.as_ref()) {
        match load_certificate(&tls.certificate(), &provider) {
            Err(why) => found.push(Diagnostic::error(why).at(&tls.span)),
            Ok(certificate) => found.extend(validity(&tls.cert, &certificate, now).map(|d| d.at(&tls.span))),
        }
        let authorities = tls.client_ca.as_deref().map(load_authorities);
        found.extend(authorities.and_then(Result::err).map(|why| Diagnostic::error(why).at(&tls.span)));
    }
    let system = LazyCell::new(system_authorities);
    for upstream in loaded.config.upstreams.values() {
        let Some(tls) = &upstream.tls else { continue };
        match (load_upstream_tls(tls, &provider, || system.clone()), &tls.cert) {
            (Err((why, span)), _) => found.push(Diagnostic::error(why).at(span.as_ref().unwrap_or(&upstream.span))),
            (Ok(LoadedUpstreamTls { client: Some(client), .. }), Some(cert)) => {
                found.extend(validity(cert, &client, now).map(|d| d.at(&cert.span)));
            }
            (Ok(_), _) => {}
        }
    }
    found
}

/// What a certificate's dates say, as of `now`.
#[must_use]
pub fn validity(file: &Path, certificate: &LoadedCertificate, now: SystemTime) -> Option<Diagnostic> {
    let date = |time| humantime::format_rfc3339_seconds(time);
    if certificate.not_after < now {
        return Some(Diagnostic::error(format!("{}: expired at {}", file.display(), date(certificate.not_after))));
    }
    if certificate.not_before > now {
        let begins = date(certificate.not_before);
        return Some(Diagnostic::error(format!("{}: is not valid before {begins}", file.display())));
    }
    if certificate.not_after < now + EXPIRES_SOON {
        return Some(Diagnostic::warning(format!("{}: expires at {}", file.display(), date(certificate.not_after))));
    }
    None
}
