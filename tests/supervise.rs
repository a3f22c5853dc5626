//! `keygate run` with a signer: two processes, started, watched and ended by a third.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Home, Keygate, Origin, Response, SOON, curl, free_port, wait_until};

/// Gateway and signer, as one file configures them.
struct Both {
    keygate: Keygate,
    home: Home,
    http: u16,
    _origin: Origin,
}

impl Both {
    #[track_caller]
    fn start() -> Self {
        let (origin, http) = (Origin::start("blue"), free_port());
        let home = both_home(http, &origin);
        let mut both = Self { keygate: home.start("run"), home, http, _origin: origin };
        both.wait_ready();
        both
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let socket = self.home.path("state/signer.sock");
        let http = self.http;
        self.keygate.wait_until(SOON, "both serve", |_| {
            let signer = std::os::unix::net::UnixStream::connect(&socket).is_ok();
            (signer && std::net::TcpStream::connect(("127.0.0.1", http)).is_ok()).then_some(())
        });
    }

    /// The process that is started with this command.
    #[track_caller]
    fn child(&self, command: &str) -> Pid {
        let pid = self.keygate.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("a running process");
        let runs = |pid: &&str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(command.as_bytes())
        };
        let found = children.split_whitespace().find(runs).unwrap_or_else(|| panic!("no {command} in {children:?}"));
        Pid::from_raw(found.parse().expect("a number")).expect("not zero")
    }

    fn get(&self) -> Response {
        curl([format!("http://127.0.0.1:{}/", self.http)])
    }
}

fn both_home(http: u16, origin: &Origin) -> Home {
    let home = Home::new(&format!(
        r#"
        [listeners.http]
        bind = ["127.0.0.1:{http}"]
        [upstreams.service]
        servers = ["{}"]
        [[routes]]
        name = "all"
        backends = [{{ upstream = "service" }}]
        [signer]
        listen = "unix:state/signer.sock"
        ledger = "sqlite:ledger/ledger.db"
        allow_local_keys = true
        [signer.keys.dev]
        local = {{ path = "dev.key" }}
        "#,
        origin.server()
    ));
    home.secret("dev.key", "11".repeat(32));
    home
}

fn ended(pid: Pid) {
    wait_until(SOON, "a process ends", || {
        (!Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()).then_some(())
    });
}

#[test]
fn the_gateway_has_neither_the_key_nor_the_credentials() {
    let both = Both::start();
    let environment = |pid: Pid| {
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).expect("tests run as root");
        String::from_utf8_lossy(&environment).into_owned()
    };
    let (gateway, signer) = (both.child("gateway"), both.child("signer"));
    assert!(environment(signer).contains("AWS_SECRET_ACCESS_KEY="));
    let seen = environment(gateway);
    assert!(seen.contains("PATH=") && !seen.contains("AWS_"), "{seen}");
    assert_eq!(both.get().status, 200);
}

#[test]
fn a_signer_that_ends_is_started_again_and_the_gateway_does_not_notice() {
    let mut both = Both::start();
    let (gateway, signer) = (both.child("gateway"), both.child("signer"));
    kill_process(signer, Signal::KILL).expect("it runs");
    both.keygate.wait_until(SOON, "it is said", |p| p.stderr().contains("it is started again").then_some(()));
    assert_eq!(both.get().status, 200);
    both.keygate
        .wait_until(SOON, "another signer starts", |p| (p.stderr().matches("key loaded").count() >= 2).then_some(()));
    both.wait_ready();
    assert_ne!(both.child("signer"), signer);
    assert_eq!(both.child("gateway"), gateway);
}

#[test]
fn none_of_them_can_leave_a_core_file() {
    let both = Both::start();
    let pids = [both.child("gateway").as_raw_nonzero(), both.child("signer").as_raw_nonzero()];
    for pid in pids.map(|pid| pid.to_string()).into_iter().chain([both.keygate.pid().to_string()]) {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("a running process");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
    }
}

#[test]
fn a_signer_is_started_again_though_the_program_was_replaced() {
    let http = free_port();
    let home = both_home(http, &Origin::start("blue"));
    let program = home.path("keygate");
    std::fs::copy(env!("CARGO_BIN_EXE_keygate"), &program).expect("a copy");
    let keygate = home.spawn(&mut home.command_of(&program.display().to_string(), ["run", "-c", "keygate.toml"]));
    let mut both = Both { keygate, home, http, _origin: Origin::start("blue") };
    both.wait_ready();
    let signer = both.child("signer");
    std::fs::remove_file(program).expect("a file");
    kill_process(signer, Signal::KILL).expect("it runs");
    both.keygate
        .wait_until(SOON, "another signer starts", |p| (p.stderr().matches("key loaded").count() >= 2).then_some(()));
    assert_ne!(both.child("signer"), signer);
}

#[test]
fn signals_are_handed_on() {
    let mut both = Both::start();
    let (gateway, signer) = (both.child("gateway"), both.child("signer"));
    both.keygate.signal(Signal::HUP);
    let twice = |p: &crate::support::Process| (p.stderr().matches("reloaded").count() == 2).then_some(());
    both.keygate.wait_until(SOON, "both reload", twice);
    both.keygate.sigterm();
    assert_eq!(both.keygate.wait(SOON).code(), Some(0), "{}", both.keygate.logs());
    ended(gateway);
    ended(signer);
    for socket in ["state/admin.sock", "state/signer.sock"] {
        assert!(!both.home.path(socket).exists(), "{socket}");
    }
}

#[test]
fn without_its_gateway_it_ends_and_says_so() {
    let mut both = Both::start();
    let signer = both.child("signer");
    kill_process(both.child("gateway"), Signal::KILL).expect("it runs");
    assert_eq!(both.keygate.wait(SOON).code(), Some(1));
    assert!(both.keygate.stderr().contains("the gateway has ended"), "{}", both.keygate.logs());
    ended(signer);
}

#[test]
fn killed_it_leaves_nothing_running() {
    let mut both = Both::start();
    let (gateway, signer) = (both.child("gateway"), both.child("signer"));
    both.keygate.kill9();
    ended(gateway);
    ended(signer);
}

#[test]
fn a_signer_of_another_user_ends_with_it_too() {
    use std::os::unix::fs::chown;
    let nobody = nix::unistd::User::from_name("nobody").expect("users can be looked up").expect("every system has it");
    let (origin, http) = (Origin::start("blue"), free_port());
    let home = both_home(http, &origin);
    let config = std::fs::read_to_string(home.path("keygate.toml")).expect("a configuration");
    home.config(&config.replace("[signer]", "[signer]\nuser = \"nobody\""));
    for path in ["", "dev.key"] {
        chown(home.path(path), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("tests run as root");
    }
    std::fs::create_dir(home.path("state")).expect("a folder");
    chown(home.path("state"), Some(nobody.uid.as_raw()), None).expect("tests run as root");
    let mut both = Both { keygate: home.start("run"), home, http, _origin: origin };
    both.wait_ready();
    let signer = both.child("signer");
    let status = std::fs::read_to_string(format!("/proc/{}/status", signer.as_raw_nonzero())).expect("it runs");
    assert!(status.contains(&format!("Uid:\t{}", nobody.uid)), "{status}");
    // Not its group: the kernel itself has to tell the signer.
    both.keygate.signal(Signal::KILL);
    ended(signer);
}
