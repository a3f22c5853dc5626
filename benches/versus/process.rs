//! A proxy as processes: started on one core or some, and what they use of it and of memory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process and those it started, in a group of their own; all end when this is dropped.
pub struct Process {
    child: Child,
    errors: PathBuf,
}

/// Processor time of a group of processes, of those that have ended too.
#[derive(Clone, Copy, Default)]
pub struct CpuTime {
    pub user: Duration,
    pub system: Duration,
}

impl CpuTime {
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    pub fn since(self, before: Self) -> Self {
        Self { user: self.user.saturating_sub(before.user), system: self.system.saturating_sub(before.system) }
    }
}

/// What a group of processes holds of memory, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Pages in memory; those shared by two processes count twice.
    pub resident: u64,
    /// Pages in memory; those shared by two processes count half for each.
    pub proportional: u64,
}

impl Process {
    /// Starts a program on one core (`0`), or some (`0-3`), in `dir`. What it prints goes to the files given, appended: they may be emptied.
    ///
    /// It gets SIGTERM when this program ends, however that happens.
    pub fn start<S: AsRef<OsStr>>(cores: &str, dir: &Path, stdout: &Path, command: &[S]) -> Self {
        let errors = dir.join("stderr.log");
        let file =
            |path: &Path| File::options().create(true).append(true).open(path).expect("a file in our own folder");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "--cpu-list", cores])
            .args(command)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file(stdout))
            .stderr(file(&errors))
            .process_group(0)
            .spawn()
            .expect("setpriv and taskset (Debian: util-linux)");
        Self { child, errors }
    }

    /// Why it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().expect("a child to wait for")?;
        Some(format!("{status}\n{}", self.printed()))
    }

    /// What it has printed to standard error.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// Signals the first process, not its children.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub fn cpu(&self) -> CpuTime {
        let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("100");
        let mut time = CpuTime::default();
        for stat in self.group() {
            // utime, stime, and those of children that have ended: 14 to 17 in proc(5), where state is 3.
            let ticks = |field: usize| stat[field - 3].parse::<u32>().unwrap_or_default();
            time.user += tick * (ticks(14) + ticks(16));
            time.system += tick * (ticks(15) + ticks(17));
        }
        time
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for stat in self.group() {
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", stat[stat.len() - 1])).unwrap_or_default();
            let kilobytes = |name: &str| -> u64 {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
            };
            memory.resident += kilobytes("Rss:") << 10;
            memory.proportional += kilobytes("Pss:") << 10;
        }
        memory
    }

    /// Counts the system calls of all its processes while `work` goes on. None when there is no strace.
    pub fn count_syscalls<T>(&self, work: impl FnOnce() -> T) -> Option<(BTreeMap<String, u64>, T)> {
        let counts = self.errors.with_file_name("strace.txt");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-U", "name,calls", "-o"]).arg(&counts);
        let group = self.group();
        for stat in &group {
            strace.args(["-p", &stat[stat.len() - 1]]);
        }
        let mut strace = strace.stderr(Stdio::piped()).spawn().ok()?;
        // It says so once it is attached to one, and ends where nobody listens.
        let mut said = BufReader::new(strace.stderr.take()?).lines();
        for line in said.by_ref().take(group.len()) {
            line.ok()?;
        }
        let done = work();
        kill_process(Pid::from_child(&strace), Signal::INT).ok()?;
        strace.wait().ok()?;
        let table = fs::read_to_string(&counts).ok()?;
        let calls = table.lines().filter_map(|line| {
            let (name, calls) = line.trim().split_once(char::is_whitespace)?;
            Some((name.to_owned(), calls.trim().parse().ok()?))
        });
        Some((calls.filter(|(name, _)| name != "total").collect(), done))
    }

    /// The processes of the group: the fields of /proc/PID/stat from the third on, and the PID last.
    fn group(&self) -> Vec<Vec<String>> {
        let leader = self.child.id().to_string();
        let pids = fs::read_dir("/proc").expect("Linux").flatten().filter_map(|entry| {
            entry.file_name().into_string().ok().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        });
        pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let after_name = &stat[stat.rfind(')')? + 1..];
            let fields = after_name.split_ascii_whitespace().map(str::to_owned).chain([pid]).collect::<Vec<_>>();
            (fields[5 - 3] == leader).then_some(fields)
        })
        .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
