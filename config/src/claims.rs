//! Whether every file that the configuration names is there for one thing, however its path is spelled.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::Diagnostic;
use crate::model::{Address, Config};
use crate::signer::{Ledger, SignerAddress};
use crate::upstream_tls::UpstreamTls;

/// As many links as the kernel follows.
const MOST_LINKS: u8 = 40;

/// A path, and what it is for.
struct Claim<'a> {
    /// What names it in the configuration.
    owner: String,
    /// What of the owner's it is: "the lock of ", or nothing.
    part: &'static str,
    /// As [`real`] has it.
    path: PathBuf,
    /// Device and inode, of a file that is there: it may have another name as well.
    identity: Option<(u64, u64)>,
    usage: Usage,
    span: Option<&'a Range<usize>>,
}

#[derive(PartialEq)]
enum Usage {
    /// A file that is only read: others may read it, too.
    Read,
    /// A file or a socket of this owner's alone.
    Write,
    /// A folder.
    Folder,
}

/// Sees that nothing is written to where something else is.
pub(crate) fn claims(config: &Config, file: &Path, found: &mut Vec<Diagnostic>) {
    let claims = all(config, file);
    let mut said = BTreeSet::new();
    for (n, claim) in claims.iter().enumerate() {
        for other in &claims[..n] {
            let Some(why) = conflict(other, claim) else { continue };
            // One finding is enough: what is beside a file goes with it.
            if said.insert((&claim.owner, &other.owner)) {
                let mut what = Diagnostic::error(why).help("give each a path of its own");
                what.span = claim.span.or(other.span).cloned();
                found.push(what);
            }
        }
    }
}

fn conflict(a: &Claim<'_>, b: &Claim<'_>) -> Option<String> {
    let name = |claim: &Claim<'_>| format!("{}{}", claim.part, claim.owner);
    let below = |a: &Claim<'_>, b: &Claim<'_>| a.usage != Usage::Folder && b.path.starts_with(&a.path);
    let says = |b: &Claim<'_>, a: &Claim<'_>| {
        format!("{} is below {}, which is a file, {}", name(b), name(a), a.path.display())
    };
    if a.usage == Usage::Read && b.usage == Usage::Read {
        None
    } else if a.path == b.path || a.identity.is_some() && a.identity == b.identity {
        Some(format!("{} and {} are the same file, {}", name(b), name(a), b.path.display()))
    } else if below(a, b) {
        Some(says(b, a))
    } else if below(b, a) {
        Some(says(a, b))
    } else {
        None
    }
}

fn all<'a>(config: &'a Config, file: &Path) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    let mut claim = |owner: &str, part, path: &Path, usage, span: Option<&'a Range<usize>>| {
        let path = real(path);
        let identity = path.metadata().ok().filter(std::fs::Metadata::is_file).map(|found| (found.dev(), found.ino()));
        // A default stands nowhere in the file.
        let span = span.filter(|span| !span.is_empty());
        claims.push(Claim { owner: owner.to_owned(), part, path, identity, usage, span });
    };
    let beside = |path: &Path, end: &str| {
        // Beside what a link leads to.
        let mut beside = real(path).into_os_string();
        beside.push(end);
        PathBuf::from(beside)
    };
    claim("this file", "", file, Usage::Read, None);
    for (name, listener) in &config.listeners {
        for files in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let owner = format!("listener {name:?}");
            claim(&owner, "a certificate of ", &files.cert, Usage::Read, Some(&files.span));
            claim(&owner, "a key of ", &files.key, Usage::Read, Some(&files.span));
        }
    }
    for (name, upstream) in &config.upstreams {
        for file in upstream.tls.iter().flat_map(UpstreamTls::files) {
            claim(&format!("upstream {name:?}"), "a TLS file of ", file, Usage::Read, Some(&file.span));
        }
    }
    if let Some(token) = &config.admin.token_file {
        claim("admin.token_file", "", token, Usage::Read, Some(&token.span));
    }
    if !config.listeners.is_empty() {
        let state = &config.process.state_dir;
        claim("process.state_dir", "", state, Usage::Folder, None);
        claim("process.state_dir", "the lock of ", &state.join("lock"), Usage::Write, None);
        for name in ["weights.json", "weights.json.new"] {
            claim("process.state_dir", "the kept weights of ", &state.join(name), Usage::Write, None);
        }
        if let Address::Unix(path) = &config.admin.listen.value {
            claim("admin.listen", "", path, Usage::Write, Some(&config.admin.listen.span));
        }
        if let Some(path) = config.access_log.file() {
            claim("access_log.path", "", path, Usage::Write, Some(&config.access_log.path.span));
        }
    }
    let Some(signer) = &config.signer else { return claims };
    for (name, key) in &signer.keys {
        if let Some(local) = &key.local {
            claim(&format!("signer.keys.{name}"), "", &local.path, Usage::Read, Some(&key.span));
        }
    }
    for (name, caller) in &signer.callers {
        if let Some(token) = &caller.token_file {
            claim(&format!("signer.callers.{name}"), "the token of ", token, Usage::Read, Some(&caller.span));
        }
    }
    if let Some(tls) = &signer.tls {
        for file in tls.value.files() {
            claim("signer.tls", "a file of ", file, Usage::Read, Some(&tls.span));
        }
    }
    for listen in signer.listen.as_slice() {
        if let SignerAddress::Unix(path) = &listen.value {
            claim("signer.listen", "", path, Usage::Write, Some(&listen.span));
            claim("signer.listen", "the lock of ", &beside(path, ".lock"), Usage::Write, Some(&listen.span));
            claim("signer.listen", "the first name of ", &beside(path, ".new"), Usage::Write, Some(&listen.span));
        }
    }
    let at = Some(&signer.ledger.span);
    match &signer.ledger.value {
        Ledger::Sqlite(path) => {
            claim("signer.ledger", "", path, Usage::Write, at);
            claim("signer.ledger", "the lock of ", &beside(path, ".lock"), Usage::Write, at);
            for end in ["-wal", "-shm", "-journal"] {
                claim("signer.ledger", "the log of ", &beside(path, end), Usage::Write, at);
            }
        }
        Ledger::Postgres(server) => {
            let files = [(&server.password_file, "the password of "), (&server.ca, "the authorities of ")];
            for (path, what) in files {
                if let Some(path) = path {
                    claim("signer.ledger", what, path, Usage::Read, at);
                }
            }
        }
    }
    claims
}

/// A path without links, `.` and `..`: what two spellings of a file have in common. What is not there yet is taken to
/// be made as it is written.
pub(crate) fn real(path: &Path) -> PathBuf {
    fn follow(path: &Path, links: u8) -> PathBuf {
        for there in path.ancestors() {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            if let Ok(there) = there.canonicalize() {
                return spelled(&there.join(rest));
            }
            // A link to what is not there yet, which is made where it leads.
            if let (Ok(target), Some(folder), 1..) = (there.read_link(), there.parent(), links) {
                return follow(&folder.join(target).join(rest), links - 1);
            }
        }
        spelled(path)
    }
    follow(path, MOST_LINKS)
}

fn spelled(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain
}
