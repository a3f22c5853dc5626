use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Finished, Process, run};

/// A folder for one keygate: its configuration, its secrets, its state. It outlives the processes that use it.
///
/// `KEYGATE_TEST_KEEP=1` keeps the folders.
#[derive(Clone)]
pub struct Home {
    dir: Arc<TempDir>,
    env: Vec<(String, String)>,
}

impl Home {
    /// With this `keygate.toml`.
    pub fn new(config: &str) -> Self {
        let mut dir = tempfile::Builder::new().prefix("keygate-test-").tempdir().expect("a temporary folder");
        if std::env::var_os("KEYGATE_TEST_KEEP").is_some() {
            dir.disable_cleanup(true);
            eprintln!("kept: {}", dir.path().display());
        }
        let home = Self { dir: Arc::new(dir), env: Vec::new() };
        home.config(config);
        home
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, as an editor does: beside it, then renamed over it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.write_with_mode(name, content, 0o644)
    }

    /// Writes a file that only its owner may read.
    pub fn secret(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.write_with_mode(name, content, 0o600)
    }

    fn write_with_mode(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(parent).expect("a folder");
        let beside = tempfile::NamedTempFile::new_in(parent).expect("a temporary file");
        std::fs::write(beside.path(), content).expect("a file that can be written");
        std::fs::set_permissions(beside.path(), std::fs::Permissions::from_mode(mode)).expect("our own file");
        beside.persist(&path).expect("a file that can be renamed");
        path
    }

    /// Writes `keygate.toml`.
    pub fn config(&self, text: &str) {
        self.write("keygate.toml", text);
    }

    /// An environment variable of every command that follows.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `keygate ARGS`, in this folder, in an environment of its own: what is set outside changes nothing.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_keygate"), args)
    }

    /// Another program (a shell that starts keygate, perhaps) in the same folder and environment.
    pub fn command_of<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir.path());
        command.env("RUST_BACKTRACE", "1");
        // For the KMS of the tests, which asks for some, and looks at none.
        command.envs([
            ("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST"),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `keygate ARGS` to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        run(&mut self.command(args), b"")
    }

    /// Starts `keygate COMMAND -c keygate.toml`.
    #[track_caller]
    pub fn start(&self, command: &str) -> Keygate {
        self.spawn(&mut self.command([command, "-c", "keygate.toml"]))
    }

    /// Starts a command made by [`Self::command`] or [`Self::command_of`].
    #[track_caller]
    pub fn spawn(&self, command: &mut Command) -> Keygate {
        Keygate { process: Process::spawn("keygate", command), home: self.clone() }
    }
}

/// What the tests' environment gives as AWS's secret: it must turn up nowhere.
pub const SECRET_ACCESS_KEY: &str = "aws-secret-that-must-not-be-printed";

/// A running keygate: a [`Process`], and the [`Home`] it runs in.
pub struct Keygate {
    process: Process,
    pub home: Home,
}

impl Deref for Keygate {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Keygate {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
