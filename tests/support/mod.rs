//! What the tests are made of: keygate as a process, and the real parts around it.
//!
//! Nothing here sleeps to let something happen: [`wait_until`] asks until it has. Every process is in a group of its
//! own, is killed when its value is dropped, and does not outlive the tests, however they end ([`process`]).

mod anvil;
mod certs;
mod chain;
mod curl;
mod hole;
mod keygate;
mod kms;
mod liar;
mod origin;
mod ports;
#[allow(dead_code, reason = "the signer's unit tests have it too")]
mod postgres;
mod process;
mod raw_origin;
mod request;
mod tls_front;
mod token;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use anvil::Anvil;
pub use certs::{Ca, Pem};
pub use chain::{
    Chain, Identity, Node, sign_with_eth_account, sign_with_ethers, verify_with_eth_account, verify_with_ethers,
};
pub use curl::{CurlFailure, Response, curl, openssl, try_curl};
pub use hole::Hole;
pub use keygate::{Home, Keygate, SECRET_ACCESS_KEY};
pub use kms::{Kms, KmsKey};
pub use liar::Liar;
pub use origin::{Origin, OriginProcess};
pub use ports::free_port;
pub use postgres::{Database, PostgresServer};
pub use process::{Finished, Process, run};
pub use raw_origin::{RawOrigin, Step};
pub use request::{Seen, read_request};
pub use tls_front::{FrontTls, TlsFront};
pub use token::{Token, word};
pub use wait::{SOON, wait_until};

/// Where `tests/run` put the Python environment and the node modules.
pub fn parts() -> &'static Path {
    static PARTS: OnceLock<PathBuf> = OnceLock::new();
    PARTS.get_or_init(|| {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("parts");
        let parts = std::env::var_os("KEYGATE_TEST_PARTS").map_or(built, PathBuf::from);
        for stamp in ["venv.stamp", "node.stamp"] {
            assert!(parts.join(stamp).exists(), "{} is not installed: run tests/run", parts.join(stamp).display());
        }
        parts
    })
}

/// A file of `tests/parts/`.
fn part(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts").join(name)
}

/// A command in the Python environment.
fn python(script: &str) -> std::process::Command {
    let mut command = std::process::Command::new(parts().join("venv/bin/python"));
    command.arg(part(script));
    command
}

/// A port on loopback that leads to a Unix socket, and its URL.
pub fn forward(socket: &Path) -> (Process, String) {
    let mut process = Process::spawn("forward.mjs", node(part("forward.mjs")).arg(socket));
    let url = process.wait_until(SOON, "the port is open", |p| p.stdout().lines().next().map(str::to_owned));
    (process, url)
}

/// This port on loopback leads to another, as long as the process runs.
pub fn relay(port: u16, to: u16) -> Process {
    let mut command = node(part("forward.mjs"));
    let mut process = Process::spawn("forward.mjs", command.args([to.to_string(), port.to_string()]));
    process.wait_until(SOON, "the port is open", |p| p.stdout().lines().next().map(str::to_owned));
    process
}

/// A client of JSON-RPC, which takes a URL and a token.
pub fn client(name: &str) -> std::process::Command {
    if name.ends_with(".py") { python(name) } else { node(part(name)) }
}

/// A command of node, with the node modules.
fn node(script: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new("node");
    command.env("KEYGATE_TEST_PARTS", parts()).arg(script);
    command
}
