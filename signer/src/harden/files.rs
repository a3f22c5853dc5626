//! Which files the signer may open, once it has begun: Landlock (`landlock(7)`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use keygate_config::{Ledger, SignerAddress};
use landlock::{
    ABI, Access, AccessFs, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};

/// Linux 6.10: what older kernels do not know, they do not restrict.
const NEWEST: ABI = ABI::V5;

/// What the system's libraries read: authorities, names of hosts, time zones. `/etc` as a whole, because its files are
/// replaced by others while the signer runs.
const SYSTEM: [&str; 13] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/proc/self",
    "/sys/fs/cgroup",
];

/// What may be opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Folders, and all that is in them, to read.
    read: Vec<PathBuf>,
    /// To read, write, make and remove files.
    write: Vec<PathBuf>,
}

/// What the configuration, the environment and AWS' files name.
///
/// # Errors
/// The file that names a `credential_process`: a child is held to what its parent is held to, and nobody knows what that
/// one needs.
pub(super) fn allowed(
    config: &keygate_config::Signer,
    file: &Path,
    variable: impl Fn(&str) -> Option<PathBuf>,
    read: impl Fn(&Path) -> Option<String>,
) -> Result<Allowed, PathBuf> {
    let mut allowed = Allowed { read: SYSTEM.map(PathBuf::from).to_vec(), write: Vec::new() };
    let locals = config.keys.values().filter_map(|key| key.local.as_ref()).map(|local| local.path.as_path());
    for file in [file].into_iter().chain(config.files()).chain(locals) {
        allowed.read.extend(folders(file));
    }
    for listen in config.listen.as_slice() {
        if let SignerAddress::Unix(path) = &listen.value {
            allowed.write.extend(folders(path));
        }
    }
    match &config.ledger.value {
        Ledger::Sqlite(path) => allowed.write.extend(folders(path)),
        Ledger::Postgres(server) => {
            let files = [&server.password_file, &server.ca].into_iter().flatten();
            allowed.read.extend(files.flat_map(|file| folders(file)));
        }
    }
    allowed.write.push("/dev/null".into());
    allowed.read.push("/dev/urandom".into());

    let aws = variable("HOME").map(|home| home.join(".aws"));
    for (name, default) in [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")] {
        let file = variable(name).or_else(|| aws.as_ref().map(|aws| aws.join(default)));
        let text = file.as_deref().and_then(&read).unwrap_or_default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key.trim() {
                "credential_process" => return Err(file.unwrap_or_default()),
                "web_identity_token_file" => allowed.read.extend(folders(Path::new(value.trim()))),
                _ => {}
            }
        }
        allowed.read.extend(file.as_deref().into_iter().flat_map(folders));
    }
    for name in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "SSL_CERT_FILE"] {
        allowed.read.extend(variable(name).as_deref().into_iter().flat_map(folders));
    }
    allowed.read.extend(variable("SSL_CERT_DIR"));
    // Where a single sign-on keeps what it was given.
    allowed.write.extend(aws.map(|aws| aws.join("sso/cache")));
    for list in [&mut allowed.read, &mut allowed.write] {
        list.sort();
        list.dedup();
    }
    Ok(allowed)
}

/// The folder that a file is in, and the one that a link there leads to.
fn folders(file: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let real = file.canonicalize().ok();
    [Some(file.to_owned()), real].into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned))
}

/// Holds this thread, and all that it starts, to what is allowed. What is not there now is not allowed either.
pub(super) fn restrict(allowed: &Allowed) -> Result<RestrictionStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&allowed.read, read))?
        .add_rules(path_beneath_rules(&allowed.write, write))?
        .restrict_self()
}

/// A variable of the environment that is a path.
pub(super) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| value != OsStr::new("")).map(PathBuf::from)
}

/// The text of a file, if it can be read.
pub(super) fn text(path: &Path) -> Option<String> {
    keygate_config::files::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> keygate_config::Signer {
        let text = "[signer]\nlisten = [\"unix:run/s.sock\", \"https://127.0.0.1:1\"]\nledger = \"sqlite:ledger/l.db\"\n\
                    tls = { cert = \"tls/c\", key = \"keys/k\" }\nallow_local_keys = true\n\
                    [signer.keys]\ndev = { local = { path = \"dev/k\" } }\n\
                    [signer.callers]\none = { token_file = \"secrets/one\", keys = [] }\n";
        let source = keygate_config::Source { path: "/base/keygate.toml".into(), text: text.into() };
        keygate_config::parse(source).unwrap().config.signer.unwrap()
    }

    #[test]
    fn what_the_signer_needs_is_allowed_and_written_to_where_it_writes() {
        let environment = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/signer")),
            "AWS_WEB_IDENTITY_TOKEN_FILE" => Some("/var/run/secrets/aws/token".into()),
            _ => None,
        };
        let profile = |path: &Path| {
            (path == Path::new("/home/signer/.aws/config"))
                .then(|| "[profile a]\nweb_identity_token_file = /srv/tokens/a\n".to_owned())
        };
        let allowed = allowed(&config(), Path::new("/base/keygate.toml"), environment, profile).unwrap();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut read = paths(&SYSTEM);
        read.extend(paths(&["/base", "/base/dev", "/base/keys", "/base/secrets", "/base/tls", "/dev/urandom"]));
        read.extend(paths(&["/home/signer/.aws", "/srv/tokens", "/var/run/secrets/aws"]));
        read.sort();
        assert_eq!(allowed.read, read);
        assert_eq!(allowed.write, paths(&["/base/ledger", "/base/run", "/dev/null", "/home/signer/.aws/sso/cache"]));
    }

    #[test]
    fn with_a_credential_process_nothing_is_restricted() {
        let environment = |name: &str| (name == "AWS_CONFIG_FILE").then(|| PathBuf::from("/srv/aws"));
        let profile = |_: &Path| Some("[default]\n credential_process=/opt/helper --json\n".to_owned());
        assert_eq!(allowed(&config(), Path::new("/k"), environment, profile), Err("/srv/aws".into()));
    }
}
