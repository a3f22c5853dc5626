use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait_until;

/// A process in a group of its own. Killed, with all of its group, when dropped.
///
/// What it prints goes to files without a name: it never waits for a reader, and nothing is left behind.
pub struct Process {
    name: String,
    child: Child,
    stdout: File,
    stderr: File,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. `name` is for messages.
    #[track_caller]
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        plain(command);
        let file = || tempfile::tempfile().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        let own = |file: &File| Stdio::from(file.try_clone().expect("a file descriptor"));
        command.stdin(Stdio::null()).stdout(own(&stdout)).stderr(own(&stderr)).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error} (run tests/run)"));
        leash('+', child.id());
        Self { name: name.to_owned(), child, stdout, stderr, status: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed to standard output.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// All it has printed to standard error.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// All it has printed, for messages.
    pub fn logs(&self) -> String {
        format!("--- {} stdout\n{}--- {} stderr\n{}---", self.name, self.stdout(), self.name, self.stderr())
    }

    /// As [`wait_until`]; what the process has printed is part of the message, and its end ends the waiting.
    #[track_caller]
    pub fn wait_until<T>(&mut self, within: Duration, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + within;
        loop {
            if let Some(answer) = condition(self) {
                return answer;
            }
            let ended = self.exited();
            // It may have done what was waited for just before.
            if let Some(answer) = condition(self) {
                return answer;
            }
            if let Some(status) = ended {
                panic!("{} ended ({status}) before: {what}\n{}", self.name, self.logs());
            }
            assert!(std::time::Instant::now() < deadline, "waited {within:?} in vain: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child to wait for");
            if self.status.is_some() {
                leash('-', self.child.id());
            }
        }
        self.status
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = std::time::Instant::now() + within;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{} has not ended within {within:?}\n{}",
                self.name,
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Signals the process, not its group.
    pub fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "{} has ended", self.name);
        kill_process(pid(&self.child), signal).expect("the process is there");
    }

    /// SIGTERM.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL to the whole group, and waits for the end.
    pub fn kill9(&mut self) {
        if self.exited().is_none() {
            // The leader is not reaped yet, so that its group is still its own.
            let _ = kill_process_group(pid(&self.child), Signal::KILL);
            self.status = self.child.wait().ok();
            leash('-', self.child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn read(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().map_or(0, |m| usize::try_from(m.len()).expect("fits memory"))];
    // At an offset: the file's own is where the process writes next.
    let n = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

/// What processes print is read here: no colours, whatever a terminal or the CI asks for.
fn plain(command: &mut Command) {
    command.env("NO_COLOR", "1").env("FORCE_COLOR", "0").env_remove("CLICOLOR_FORCE");
}

/// Tells the leash that a process group has begun (`+`) or ended (`-`).
///
/// The leash is a shell that kills all groups on its list when its standard input ends, which it does with the tests,
/// however they end.
fn leash(what: char, group: u32) {
    const LEASH: &str = r#"
        list=" "
        while read -r what group; do
            case $what in
            +) list="$list$group " ;;
            -) list="${list%% $group *} ${list#* $group }" ;;
            esac
        done
        for group in $list; do kill -9 "-$group"; done
    "#;
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", LEASH]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Mutex::new(command.spawn().expect("a shell"))
    });
    let mut shell = shell.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(shell.stdin.as_mut().expect("piped"), "{what} {group}").expect("the leash holds");
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; -1 after a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Standard output, of a command that must have succeeded.
    #[track_caller]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, 0, "failed\n--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// Standard output as JSON, of a command that must have succeeded.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.success()).unwrap_or_else(|error| panic!("not JSON, {error}: {}", self.stdout))
    }

    /// Standard output and error together.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, and gives it `stdin`.
///
/// # Panics
/// When it takes longer than a minute.
#[track_caller]
pub fn run(command: &mut Command, stdin: &[u8]) -> Finished {
    plain(command);
    let mut files = [(); 3].map(|()| tempfile::tempfile().expect("a temporary file"));
    files[0].write_all(stdin).and_then(|()| files[0].rewind()).expect("a temporary file");
    let [input, output, errors] = &files;
    let own = |file: &File| Stdio::from(file.try_clone().expect("a file descriptor"));
    command.stdin(own(input)).stdout(own(output)).stderr(own(errors)).process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error} (run tests/run)"));
    leash('+', child.id());
    let status = wait_until(Duration::from_secs(180), &format!("{program} ends"), || {
        child.try_wait().expect("a child to wait for")
    });
    leash('-', child.id());
    let mut text = |i: usize| {
        let mut bytes = Vec::new();
        files[i].rewind().and_then(|()| files[i].read_to_end(&mut bytes)).expect("a temporary file");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Finished { code: status.code().unwrap_or(-1), stdout: text(1), stderr: text(2) }
}
