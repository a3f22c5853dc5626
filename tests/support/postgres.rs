//! A PostgreSQL server for tests: Debian's, as its own user, in a temporary folder. The signer's unit tests have it too,
//! so that it stands by itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs the server until it is told to stop, on its standard input; for good, when that ends, which it does with the
/// tests, however they end.
const KEEPER: &str = r#"
    folder=$1
    shift
    "$@" &
    if read -r signal; then
        kill -s "$signal" $!
        wait $!
    else
        kill -s QUIT $!
        wait $!
        rm -rf "$folder"
    fi
"#;

/// A server. It has a socket in its folder; the user `keygate` needs no password there, and is its superuser.
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    keeper: Child,
}

impl PostgresServer {
    /// The password of the user `keygate`, over TCP.
    pub const PASSWORD: &str = "a-password-that-must-not-be-printed";

    /// The one that all tests share; each has a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[], &[]))
    }

    /// A standby of this server, which follows it.
    pub fn standby(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("keygate-postgres-").tempdir().expect("a folder").keep();
        given_away(&[&folder]);
        let mut backup = as_owner("pg_basebackup");
        backup.args(["-U", "keygate", "--write-recovery-conf", "--no-sync", "--checkpoint=fast"]);
        backup.arg("-h").arg(&self.folder).arg("-p").arg(self.port.to_string()).arg("-D").arg(folder.join("data"));
        ran(&mut backup);
        Self::run(folder, Vec::new())
    }

    /// A database of this name, which is there.
    pub fn named(&self, name: &str) -> Database {
        Database { folder: self.folder.clone(), port: self.port, name: name.to_owned() }
    }

    /// One of its own, for a test that ends it; with settings such as `fsync=off`, and files that they name as
    /// `../NAME`.
    pub fn start(settings: &[&str], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("keygate-postgres-").tempdir().expect("a folder").keep();
        let password = folder.join("password");
        std::fs::write(&password, Self::PASSWORD).expect("a file");
        given_away(&[&folder, &password]);
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::write(&path, content).expect("a file");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our file");
            given_away(&[&path]);
        }
        let mut initdb = as_owner("initdb");
        initdb.arg("-D").arg(folder.join("data")).arg("--pwfile").arg(password);
        initdb.args(["-U", "keygate", "-E", "UTF8", "--locale=C", "--no-sync"]);
        ran(initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]));
        Self::run(folder, settings.iter().map(|setting| (*setting).to_owned()).collect())
    }

    fn run(folder: PathBuf, settings: Vec<String>) -> Self {
        let mut server = as_owner("postgres");
        server.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder);
        server.args(["-c", "listen_addresses=", "-c", "max_connections=200"]);
        server.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let log = std::fs::File::create(folder.join("log")).expect("a file");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "sh"]).arg(&folder).arg(server.get_program()).args(server.get_args());
        command.current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let keeper = command.spawn().expect("a shell");
        let port = settings.iter().find_map(|setting| setting.strip_prefix("port=")?.parse().ok()).unwrap_or(5432);
        let mut server = Self { folder, port, settings, keeper };
        server.until_ready();
        server
    }

    fn until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.tool("pg_isready").arg("-q").status().expect("pg_isready").success() {
            assert!(self.keeper.try_wait().expect("a child").is_none(), "PostgreSQL has ended: {}", self.log());
            assert!(Instant::now() < deadline, "PostgreSQL does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the server has logged since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Shuts it down: connections are cut, what was committed is kept.
    pub fn stop(&mut self) {
        self.tell("INT");
    }

    /// Kills it, as a loss of power would.
    pub fn crash(&mut self) {
        self.tell("QUIT");
    }

    fn tell(&mut self, signal: &str) {
        writeln!(self.keeper.stdin.as_mut().expect("piped"), "{signal}").expect("the shell reads");
        self.keeper.wait().expect("a child");
    }

    /// Starts it again, after [`Self::stop`] or [`Self::crash`].
    pub fn again(&mut self) {
        let mut this = Self::run(self.folder.clone(), self.settings.clone());
        std::mem::swap(&mut this.keeper, &mut self.keeper);
        // The shell that has ended; its folder stays.
        this.folder = PathBuf::new();
    }

    /// A new database.
    pub fn database(&self) -> Database {
        self.database_of("template1")
    }

    fn database_of(&self, template: &str) -> Database {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ledger{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let postgres = self.named("postgres");
        postgres.sql(&format!("CREATE DATABASE {name} TEMPLATE {template}")).expect("a database");
        Database { name, ..postgres }
    }

    /// A copy of a database that nobody is connected to.
    pub fn copy(&self, of: &Database) -> Database {
        self.database_of(&of.name)
    }

    /// One of the server's programs, which finds the server by itself: `pg_dump`, `pg_basebackup`.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = tool(name);
        command.env("PGHOST", &self.folder).env("PGPORT", self.port.to_string()).env("PGUSER", "keygate");
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A database of a server that is there.
#[derive(Debug, Clone)]
pub struct Database {
    folder: PathBuf,
    port: u16,
    pub name: String,
}

impl Database {
    /// Its URL, by the socket.
    pub fn url(&self) -> String {
        self.url_as("keygate")
    }

    /// The same, for another user.
    pub fn url_as(&self, user: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{folder}:{}/{}", self.port, self.name)
    }

    /// Runs SQL by hand, in one transaction: what it answers, one line a row, or the error.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        let mut psql = tool("psql");
        psql.env("PGPORT", self.port.to_string()).arg("-h").arg(&self.folder).args(["-U", "keygate", "-d", &self.name]);
        psql.args(["-XAqt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let done = psql.stdin(Stdio::null()).output().expect("psql");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }
}

/// One of PostgreSQL's programs; on Debian they are not on the path.
fn tool(name: &str) -> Command {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let on_path = || Command::new("initdb").arg("--version").stdout(Stdio::null()).status().is_ok();
        found.or_else(|| on_path().then(PathBuf::new)).expect("PostgreSQL is not installed: run tests/run")
    });
    Command::new(programs.join(name))
}

/// A program that must not be root's.
fn as_owner(name: &str) -> Command {
    let tool = tool(name);
    if !is_root() {
        return tool;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(tool.get_program());
    command
}

fn given_away(paths: &[&Path]) {
    if is_root() {
        ran(Command::new("chown").arg("postgres:").args(paths));
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("a process")) == 0
}

fn ran(command: &mut Command) {
    // From a folder that anybody may be in.
    let done = command.current_dir("/").stdin(Stdio::null()).output().expect("a program (run tests/run)");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
