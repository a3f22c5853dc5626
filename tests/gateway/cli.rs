//! The command line.

use std::process::Command;

use serde_json::{Value, json};

use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Home, Origin, run};

fn serving() -> (Origin, Edge) {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com", "*.example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    (origin, edge)
}

#[test]
fn every_query_speaks_json_and_text() {
    let (origin, edge) = serving();
    let json = |args: &[&str]| edge.home.run(args.iter().chain(&["--json"])).json();
    let text = |args: &[&str]| edge.home.run(args).success().to_owned();
    let status = json(&["status"]);
    assert_eq!((&status["pid"], &status["routes"][0]["name"]), (&json!(edge.keygate.pid()), &json!("all")));
    assert_eq!(json(&["routes"]), status["routes"]);
    let certs = json(&["certs"]);
    assert_eq!(certs[0]["names"], json!(["example.com", "*.example.com"]));
    assert_eq!((&certs[0]["listener"], &certs[0]["default"]), (&json!("https"), &json!(true)));
    assert!(certs[0]["cert"].as_str().is_some_and(|cert| cert.ends_with("tls/site.crt")), "{certs}");
    assert_eq!(json(&["weights", "get", "all"])["backends"][0]["upstream"], "service");
    assert_eq!(json(&["weights", "set", "all", "service=3"])["backends"][0]["weight"], 3);
    assert!(json(&["reload"])["generation"].as_u64() > Some(1));
    assert_eq!(json(&["check"]), json!([]));

    let status = text(&["status"]);
    for wanted in [
        &format!("pid {}", edge.keygate.pid()),
        "keygate.toml",
        &format!("127.0.0.1:{}", edge.https),
        "https",
        "service=3",
        "live differs from the file: route all, service: 1 in the file, 3 live",
    ] {
        assert!(status.contains(wanted), "{wanted}: {status}");
    }
    assert!(text(&["routes"]).contains("service=3"));
    assert!(text(&["certs"]).contains("example.com *.example.com (default)"));
    assert_eq!(text(&["weights", "get", "all"]), "all: service=3\n");
    assert!(text(&["reload"]).starts_with("reloaded: generation"));
    assert_eq!(text(&["check"]), "keygate.toml: ok\n");
    assert_eq!(origin.hits(), 0);
}

#[test]
fn exit_codes() {
    let (_origin, edge) = serving();
    let code = |args: &[&str]| edge.home.run(args).code;
    assert_eq!(code(&["status"]), 0);
    // 1: refused or failed.
    for args in [
        &["weights", "get", "nosuch"][..],
        &["weights", "set", "all", "service=0"],
        &["check", "-c", "no-such-file.toml"],
        &["gateway", "-c", "no-such-file.toml"],
        &["status", "-c", "no-such-file.toml"],
        &["status", "--admin", "unix:no/such/socket"],
    ] {
        let done = edge.home.run(args);
        assert!(done.code == 1 && !done.stderr.is_empty(), "{args:?}: {} {}", done.code, done.output());
        assert_eq!(done.stdout, "", "{args:?}");
    }
    // 2: wrong usage.
    for args in [
        &["nosuch"][..],
        &[],
        &["status", "--nosuch"],
        &["weights", "set", "all"],
        &["completions", "nosuch"],
        &["status", "--admin", "nowhere"],
    ] {
        assert_eq!(code(args), 2, "{args:?}");
    }
    assert_eq!((code(&["--help"]), code(&["--version"]), code(&["help", "check"])), (0, 0, 0));
    let nobody = Home::new("[listeners.http]\nbind = [\"127.0.0.1:0\"]\n").run(["status"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("no gateway answers at unix:"), "{}", nobody.stderr);
}

#[test]
fn check_prints_errors_as_a_compiler_does() {
    let home = Home::new(
        r#"[listeners.http]
bind = ["127.0.0.1:8080"]

[upstreams.blue]
servers = ["127.0.0.1:1", "not a server"]
"#,
    );
    let done = home.run(["check"]);
    assert_eq!(done.code, 1);
    for wanted in
        ["error: ", "keygate.toml:5:11", "servers = [\"127.0.0.1:1\", \"not a server\"]", "HOST:PORT", "1 error"]
    {
        assert!(done.stderr.contains(wanted), "{wanted}: {}", done.stderr);
    }
    assert!(!done.stderr.contains('\x1b'), "no colours where nobody looks");
    // Several at once, each at its place, in the order of the file.
    home.config(
        r#"[listeners.http]
bind = ["127.0.0.1:8080"]
security_headers = "none"
[upstreams.blue]
servers = []
[[routes]]
name = "a b"
rate_limits = ["many"]
backends = [{ upstream = "red", weight = 10001 }]
[[routes]]
name = "x"
path = "no-slash"
backends = [{ upstream = "blue" }]
"#,
    );
    let done = home.run(["check"]);
    let places: Vec<&str> =
        done.stderr.lines().filter_map(|line| line.trim().strip_prefix("--> keygate.toml:")).collect();
    assert_eq!(places, ["3:20", "4:1", "7:8", "8:16", "9:13", "9:26", "12:8"], "{}", done.stderr);
    assert!(done.stderr.contains("there is: blue"), "{}", done.stderr);
    let found: Vec<Value> = serde_json::from_str(&home.run(["check", "--json"]).stdout).expect("JSON");
    assert_eq!(found.len(), places.len());
    for (found, place) in found.iter().zip(&places) {
        assert_eq!(format!("{}:{}", found["line"], found["column"]), *place);
        assert_eq!((&found["file"], &found["severity"]), (&json!("keygate.toml"), &json!("error")));
    }
}

#[test]
fn check_knows_what_is_misspelt() {
    for (toml, why) in [
        ("[listener.http]\n", "unknown field `listener`"),
        ("[listeners.http]\nbind = [\"127.0.0.1:80\"]\ntime_outs = 1\n", "unknown field `time_outs`"),
        ("[listeners.http]\nbind = [\"localhost:80\"]\n", "socket address"),
        ("[listeners.http]\nbind = [\"127.0.0.1:80\"]\ntimeouts.idle = \"soon\"\n", "a duration from 1ms to 366d"),
        ("[listeners.http]\nbind = [\"127.0.0.1:80\"]\nlimits.body_size = \"big\"\n", "a size such as"),
        ("[rate_limits.x]\nkey = \"client-ip\"\nrate = \"fast\"\n", "a rate such as"),
        ("[rate_limits.x]\nkey = \"cookie\"\nrate = \"1/s\"\n", "client-ip"),
        ("[security_headers.x]\npreset = \"lax\"\n", "unknown variant `lax`"),
        ("[security_headers.x]\nset = { \"content-length\" = \"1\" }\n", "is not for a policy to change"),
        ("[security_headers.x]\nset = { \"x y\" = \"1\" }\n", "is no header name"),
        ("[process]\nworkers = 0\n", "a number from 1 to 1024"),
        ("[[routes]]\nname = \"x\"\npath = { regex = \"(\" }\nbackends = []\n", "not a regular expression"),
    ] {
        let done = Home::new(toml).run(["check"]);
        assert!(done.code == 1 && done.stderr.contains("keygate.toml:"), "{toml}: {}", done.output());
        assert!(done.stderr.contains(why), "{toml}: {}", done.stderr);
    }
}

#[test]
fn what_a_start_refuses_check_refuses() {
    let origin = "127.0.0.1:9".to_owned();
    let toml = |listener: &str, rest: &str| {
        Simple { servers: std::slice::from_ref(&origin), listener, rest, ..Simple::default() }
            .toml()
            .replace("$HTTP", "0")
    };
    let route = |n: usize| {
        format!(
            "[[routes]]\nname = \"r{n}\"\npath.regex = '^/{n}/\\w{{40}}$'\nbackends = [{{ upstream = \"service\" }}]\n"
        )
    };
    let long = format!("[admin]\nlisten = \"unix:{}/admin.sock\"", "deep/".repeat(30));
    let signer = "[signer]\nlisten = \"unix:signer.sock\"\nledger = \"sqlite:ledger.db\"\nallow_local_keys = true\n\
                  [signer.keys.dev]\nlocal.path = \"dev.key\"\n";
    let pinned = format!("{signer}address = \"0x742d35Cc6634C0532925a3b844Bc454e4438f44e\"\n");
    for (command, toml, file, why) in [
        ("gateway", toml("", ""), ("state", ""), "/state: "),
        ("gateway", toml("", ""), ("state/weights.json", "{"), "weights.json: "),
        ("gateway", toml("", ""), ("state/admin.sock", ""), "there is a file that is no socket"),
        ("gateway", toml("", "[access_log]\npath = \"log/access.log\""), ("log.txt", ""), "/log"),
        ("gateway", toml("", &long), ("deep/file", ""), "path"),
        ("gateway", toml("", "[listeners.b]\nbind = [\"0.0.0.0:81\", \"127.0.0.1:81\"]"), ("a", ""), "127.0.0.1:81"),
        ("gateway", toml("", &(0..12).map(route).collect::<String>()), ("a", ""), "too large"),
        ("gateway", String::new(), ("a", ""), "listeners"),
        ("signer", signer.to_owned(), ("dev.key", "not a key"), "dev.key: expected 64 hex digits"),
        ("signer", pinned, ("dev.key", &"01".repeat(32)), "is pinned"),
        (
            "signer",
            signer.replace("[signer.keys.dev]\nlocal.path = \"dev.key\"", ""),
            ("ledger.db", "no database"),
            "database",
        ),
        ("signer", signer.to_owned(), ("signer.sock", ""), "there is a file that is no socket"),
        ("signer", signer.to_owned(), ("a", ""), "dev.key: No such file"),
    ] {
        let home = Home::new(&toml);
        home.secret(file.0, file.1);
        for command in ["check", command] {
            let done = home.run([command]);
            assert_eq!(done.code, 1, "{command} with {file:?} and {toml}: {}", done.output());
            assert!(done.stderr.contains(why), "{command} should say {why}: {}", done.stderr);
        }
    }
    // A pipe that nobody writes to, or reads from, is waited for by neither.
    for (listener, rest) in [
        ("[listeners.http.tls]\ncertificates = [{ cert = \"pipe\", key = \"pipe\" }]", ""),
        ("", "access_log.path = \"pipe\""),
    ] {
        let home = Home::new(&format!("{rest}\n{}", toml(listener, "")));
        let mode = 0o600.into();
        rustix::fs::mknodat(rustix::fs::CWD, home.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        for command in ["check", "gateway"] {
            let done = home.run([command]);
            assert_eq!(done.code, 1, "{command} with {rest:?}: {}", done.output());
            assert!(done.stderr.contains("pipe: n"), "{command}: {}", done.stderr);
        }
    }
    // And it makes nothing.
    let home = Home::new(&toml("", ""));
    assert_eq!(home.run(["check"]).success(), "keygate.toml: ok\n");
    let made: Vec<_> =
        std::fs::read_dir(home.path(".")).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
    assert_eq!(made, ["keygate.toml"]);
}

#[test]
fn what_a_start_accepts_check_accepts() {
    let origin = Origin::start("blue");
    let rest = "[access_log]\npath = \"state/access.log\"";
    let simple = Simple { servers: &[origin.server()], rest, ..Simple::default() };
    let checked = Home::new(&simple.toml().replace("$HTTP", "0")).run(["check"]);
    assert_eq!(checked.success(), "keygate.toml: ok\n");
    let edge = simple.start();
    assert_eq!(edge.client().get("/").status, 200);
    assert!(edge.home.path("state/access.log").exists());
}

#[test]
fn a_warning_is_no_error() {
    let home = Home::new("[listeners.http]\nbind = [\"127.0.0.1:0\"]\n[upstreams.idle]\nservers = [\"127.0.0.1:1\"]\n");
    let done = home.run(["check"]);
    assert_eq!(done.success(), "keygate.toml: 0 errors, 2 warnings\n");
    assert!(done.stderr.contains("warning: ") && done.stderr.contains("no route sends anything to upstream \"idle\""));
    assert_eq!(home.run(["check", "--json"]).json().as_array().map(Vec::len), Some(2));
}

#[test]
fn the_schema_is_one() {
    let home = Home::new("");
    let schema = home.run(["schema"]).json();
    assert!(schema["$schema"].as_str().is_some_and(|url| url.contains("json-schema.org")), "{schema}");
    for table in [
        "process",
        "admin",
        "access_log",
        "listeners",
        "upstreams",
        "rate_limits",
        "security_headers",
        "routes",
        "signer",
    ] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn completions_complete() {
    let home = Home::new("");
    let script = home.run(["completions", "bash"]).success().to_owned();
    let file = home.write("completions.bash", &script).display().to_string();
    let ask = format!(
        "source {file}; COMP_WORDS=(keygate wei); COMP_CWORD=1; _keygate keygate wei keygate; echo \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(run(Command::new("bash").args(["-c", &ask]), b"").success(), "weights\n");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(home.run(["completions", shell]).success().contains("keygate"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let (_origin, edge) = serving();
    let keygate = env!("CARGO_BIN_EXE_keygate");
    let mut shell = edge.home.command_of("bash", ["-c", &format!("set -o pipefail; {keygate} schema | head -1")]);
    let done = run(&mut shell, b"");
    assert_eq!(done.success(), "{\n");
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}
