//! What is on this machine: keys in files, the ledger, tokens.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keygate_config::{Key as KeyConfig, Ledger as LedgerConfig, Signer};
use rusqlite::{Connection, OpenFlags};

use super::Findings;
use crate::key::Key;
use crate::ledger::{APPLICATION, LedgerError, NEWEST, OpenError, Trail};

/// Below this, the ledger is full soon: a transaction takes about a kilobyte.
const LITTLE_SPACE: u64 = 1 << 30;
/// A durable write takes longer than this on a disk that is no place for a ledger.
const SLOW_SYNC: Duration = Duration::from_millis(50);
const SYNCS: u32 = 5;

pub(super) async fn local_key(name: &str, config: &KeyConfig, allow_local: bool, findings: &mut Findings) {
    let check = format!("key {name}");
    let key = match Key::load(name, config, allow_local).await {
        Ok(key) => key,
        Err(error) => return findings.fail(&check, error.to_string(), "the signer does not start before it is so"),
    };
    let found = format!("in a file, address {}", key.address().to_checksum(None));
    findings.warn(&check, found, "for money, keep the key in KMS");
}

/// What a ledger that is not there may mean.
const NO_LEDGER: &str =
    "if a signer ran with these keys before, restore its ledger: without it, what was signed is signed again";

pub(super) fn ledger(config: &Signer, findings: &mut Findings) {
    let path = match &config.ledger.value {
        LedgerConfig::Sqlite(path) => path,
        LedgerConfig::Postgres(server) => {
            // Its client has a runtime of its own, which none may be around.
            let opened = std::thread::scope(|scope| scope.spawn(|| Trail::open(&config.ledger.value).map(drop)).join());
            let opened = match opened {
                Ok(Ok(())) => return findings.ok("ledger", format!("{server}: it answers, and is of this version")),
                Ok(Err(OpenError { error: LedgerError::Missing, .. })) => {
                    return findings.warn("ledger", format!("{server}: the first start makes it"), NO_LEDGER);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("{server}: it could not be asked"),
            };
            let fix = "see that the server can be reached, and that its user may use the database";
            return findings.fail("ledger", opened, fix);
        }
    };
    let shown = path.display();
    // The first start makes the folder.
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    if path.exists() {
        match version(path) {
            Ok(NEWEST) => findings.ok("ledger", format!("{shown}: version {NEWEST}{}", held(path))),
            Ok(older @ 0..NEWEST) => findings.warn(
                "ledger",
                format!("{shown}: version {older}"),
                format!("the next start brings it to version {NEWEST}: back it up before"),
            ),
            Ok(newer) => findings.fail(
                "ledger",
                format!("{shown}: version {newer}, and this keygate knows {NEWEST}"),
                "a newer keygate wrote it: run that one",
            ),
            Err(why) => findings.fail(
                "ledger",
                format!("{shown}: {why}"),
                "see that this user may read and write it; restore a backup only if it is damaged, and read \"A lost \
                 ledger\" in docs/kms.md before",
            ),
        }
    } else {
        findings.warn("ledger", format!("{shown} is not there: the first start makes it"), NO_LEDGER);
    }
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} MiB free in {}", free >> 20, folder.display());
            if free < LITTLE_SPACE {
                findings.warn("disk space", found, "make room: nothing is signed that cannot be written down");
            } else {
                findings.ok("disk space", found);
            }
        }
        Err(error) => findings.fail(
            "disk space",
            format!("{}: {error}", folder.display()),
            "see that the signer's user may use the ledger's folder",
        ),
    }
    sync(folder, findings);
}

/// The version of the database: opened for reading, which leaves it as it is.
fn version(path: &Path) -> Result<i32, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let number = |connection: &Connection, name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let read = Connection::open_with_flags(path, flags)
        .and_then(|connection| Ok((number(&connection, "application_id")?, number(&connection, "user_version")?)));
    match read {
        Ok((APPLICATION, version)) => Ok(version),
        Ok(_) => Err("it is another program's database".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a signer has it: by the system's list of locks, so that none is taken from one that starts just now.
fn held(path: &Path) -> &'static str {
    let lock = path.canonicalize().map(|real| {
        let mut lock = real.into_os_string();
        lock.push(".lock");
        lock
    });
    let inode = lock.and_then(std::fs::metadata).map(|metadata| format!(":{} ", metadata.ino()));
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let held = inode.is_ok_and(|inode| locks.lines().any(|line| line.contains("FLOCK") && line.contains(&inode)));
    if held { ", in use by a running signer" } else { "" }
}

/// How long a durable write takes beside the ledger.
fn sync(folder: &Path, findings: &mut Findings) {
    let path = folder.join(format!(".keygate-doctor-{}", std::process::id()));
    let measure = || {
        let mut file = File::create_new(&path)?;
        let start = Instant::now();
        for _ in 0..SYNCS {
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
        }
        Ok::<_, std::io::Error>(start.elapsed() / SYNCS)
    };
    let took = measure();
    // It may not have been made.
    let _ = std::fs::remove_file(&path);
    match took {
        Ok(took) => {
            let found = format!("{:.1} ms each", took.as_secs_f64() * 1000.0);
            if took > SLOW_SYNC {
                findings.warn(
                    "durable writes",
                    found,
                    "put the ledger on a local SSD: a signature waits for two of them",
                );
            } else {
                findings.ok("durable writes", found);
            }
        }
        Err(error) => findings.fail(
            "durable writes",
            format!("{}: {error}", folder.display()),
            match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "make room: nothing is signed",
                _ => "the ledger's folder must be the signer's user's: run this as that user",
            },
        ),
    }
}

pub(super) fn tokens(config: &Signer, findings: &mut Findings) {
    for (name, caller) in &config.callers {
        let check = format!("caller {name}");
        let Some(path) = &caller.token_file else { continue };
        match (keygate_config::load_tokens(path), keygate_config::files::exposed(path)) {
            (Err(why), _) => findings.fail(&check, why, "the signer's user must be able to read a token there; where there is none, write one, and chmod 600 it"),
            (Ok(_), Some(why)) => findings.warn(&check, why, "make a new token, and chmod 600 its file"),
            (Ok(_), None) => findings.ok(&check, format!("token in {}", path.display())),
        }
    }
}
