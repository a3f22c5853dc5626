//! `keygate demo`: what it prints works, as it is printed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, Keygate, SOON, free_port, run, try_curl, wait_until};

struct Demo {
    keygate: Keygate,
    home: Home,
    guide: String,
    dir: PathBuf,
    https: u16,
}

impl Demo {
    fn start() -> Self {
        Self::start_at(free_port())
    }

    fn start_at(https: u16) -> Self {
        let home = Home::new("");
        // Killed, it would leave its folder behind; there, it goes with ours.
        let folder = home.path("").display().to_string();
        let home = home.env("TMPDIR", &folder);
        let args = ["demo", "--https-port", &https.to_string()];
        let mut keygate = home.spawn(&mut home.command(args));
        let guide = keygate.wait_until(SOON, "the guide", |p| p.stdout().contains("\n6. ").then(|| p.stdout()));
        let guide = match guide.ends_with('\n') {
            true => guide,
            false => keygate.wait_until(SOON, "its end", |p| p.stdout().ends_with('\n').then(|| p.stdout())),
        };
        let dir = guide.lines().find_map(|line| line.strip_prefix("   D=")).expect("a folder").into();
        Self { keygate, home, guide, dir, https }
    }

    /// Runs the indented lines of these steps through bash, as they are printed; what they print.
    #[track_caller]
    fn follow(&self, steps: &[usize]) -> String {
        let mut script = format!("D={}\n", self.dir.display());
        for step in steps {
            let from = self.guide.find(&format!("\n{step}. ")).expect("a step") + 1;
            let text = &self.guide[from..];
            let end = text.find(&format!("\n{}. ", step + 1)).unwrap_or(text.len());
            let lines = text[..end].lines().filter(|line| line.starts_with("   "));
            script.extend(lines.map(|line| format!("{line}\n")));
        }
        run(&mut self.home.command_of("bash", ["-c", &script]), b"").success().to_owned()
    }
}

#[test]
fn it_serves_in_seconds_and_its_guide_holds() {
    let started = Instant::now();
    let mut demo = Demo::start();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(demo.guide.contains(&format!("https://localhost:{}/", demo.https)), "{}", demo.guide);

    // Through the edge: nine of ten are blue. (curl -i asked before the twenty.)
    let answers = demo.follow(&[1]);
    for header in ["200", "strict-transport-security: ", "content-security-policy: ", "x-request-id: "] {
        assert!(answers.contains(header), "{header}: {answers}");
    }
    assert!(answers.contains("18 hello from blue") && answers.contains("2 hello from green"), "{answers}");
    // Moved to green, and shown.
    let moved = demo.follow(&[2]);
    assert!(moved.starts_with("hello: blue=0 green=100\n"), "{moved}");
    assert!(moved.contains("live differs from the file: route hello, green: 10 in the file, 100 live"), "{moved}");
    let ca = demo.dir.join("ca.crt").display().to_string();
    let url = format!("https://localhost:{}/", demo.https);
    assert_eq!(crate::support::curl(["--cacert", &ca, &url]).text(), "hello from green\n");
    // Into the limit.
    let limited = demo.follow(&[3]);
    assert!(limited.starts_with(&"200 ".repeat(21)) && limited.contains("429 "), "{limited}");
    // Signed, and signed the same.
    let signed = demo.follow(&[4]);
    let json: Value = serde_json::from_str(&signed).expect("JSON");
    assert!(json["raw"].as_str().is_some_and(|raw| raw.starts_with("0x02")), "{signed}");
    let address = json["from"].as_str().expect("an address");
    assert!(demo.guide.contains(address), "{}", demo.guide);
    assert_eq!(demo.follow(&[4]), signed);
    // Not allowed, and said why.
    let denied: Value = serde_json::from_str(&demo.follow(&[5])).expect("JSON");
    assert_eq!((&denied["status"], &denied["rule"]), (&403.into(), &"to".into()), "{denied}");
    // Broken, it goes on; and says what is wrong.
    assert!(demo.follow(&[6]).ends_with("keygate.toml: ok\n"));
    std::fs::write(demo.dir.join("keygate.toml"), "[listeners.https]\nbnd = 1\n").expect("a file");
    let config = demo.dir.join("keygate.toml").display().to_string();
    wait_until(SOON, "the broken file is noticed", || {
        let status = demo.home.run(["status", "-c", &config]);
        status.success().contains("NOT IN FORCE").then_some(())
    });
    assert_eq!(demo.home.run(["check", "-c", &config]).code, 1);
    assert_eq!(crate::support::curl(["--cacert", &ca, &url]).status, 200);

    // Ctrl-C: everything stops, and the folder is gone.
    let started = Instant::now();
    demo.keygate.signal(Signal::INT);
    assert_eq!(demo.keygate.wait(SOON).code(), Some(0), "{}", demo.keygate.logs());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!demo.dir.exists(), "{}", demo.dir.display());
    assert_eq!(try_curl([&url]).expect_err("nobody listens").code, 7);
}

#[test]
fn a_port_in_use_is_replaced_by_a_free_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let mut demo = Demo::start_at(port);
    assert!(!demo.guide.contains(&format!("https://localhost:{port}/")), "{}", demo.guide);
    assert!(demo.follow(&[1]).contains("hello from blue"));
    demo.keygate.sigterm();
    assert_eq!(demo.keygate.wait(SOON).code(), Some(0));
    assert!(!demo.dir.exists());
}

#[test]
fn its_folder_is_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let demo = Demo::start();
    let mode = |name: &str| std::fs::metadata(demo.dir.join(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for secret in ["demo.key", "payments.token", "state/dev.key", "state/admin.sock"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
}
