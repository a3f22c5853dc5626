//! The parts themselves: a test that cannot fail proves nothing.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Ca, Chain, FrontTls, Home, Kms, Origin, OriginProcess, Pem, Process, RawOrigin, SOON, Step, TlsFront, curl,
    free_port, openssl, run, try_curl, wait_until,
};

#[test]
fn an_origin_answers_what_arrived() {
    let blue = Origin::start("blue");
    let url = format!("http://{}", blue.server());
    let answer = curl(["-H", "X-Second: 2", "-H", "x-Third: 3", "-d", "hello", &format!("{url}/a?b=c")]);
    assert_eq!((answer.status, answer.version.as_str()), (200, "1.1"));
    assert_eq!(answer.header("X-Origin"), Some(blue.name.as_str()));
    let seen = answer.json();
    assert_eq!((&seen["method"], &seen["target"], &seen["body_bytes"]), (&json!("POST"), &json!("/a?b=c"), &json!(5)));
    let names: Vec<_> = blue.last().headers.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["Host", "User-Agent", "Accept", "X-Second", "x-Third", "Content-Length", "Content-Type"]);
    assert_eq!(seen["body_sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");

    // Two requests, one connection; a chunked body each way; the knobs.
    let connections = blue.connections();
    let chunked = ["-H", "Transfer-Encoding: chunked", "-d", "hello"];
    let both = curl(chunked.into_iter().chain([&*format!("{url}/?chunked=1&status={{200,503}}")]));
    assert_eq!((both.status, blue.connections(), blue.hits()), (503, connections + 1, 3));
    assert_eq!(blue.last().body, b"hello");
    assert_eq!(curl([format!("{url}/?bytes=70000&chunked=1")]).body.len(), 70_000);
    assert!(curl([format!("{url}/?delay_ms=50")]).seconds >= 0.05);
    assert_eq!(try_curl([format!("{url}/?cut=1")]).expect_err("half a body").code, 18);
    assert_eq!(blue.malformed(), 0);
    let garbage = run(
        Command::new("bash").args([
            "-c",
            &format!("exec 3<>/dev/tcp/127.0.0.1/{}; printf 'GARBAGE\\r\\n\\r\\n' >&3; cat <&3", blue.addr.port()),
        ]),
        b"",
    );
    assert_eq!((garbage.output().as_str(), blue.malformed()), ("", 1));
    let addr = blue.server();
    drop(blue);
    let refused = try_curl([format!("http://{addr}/")]).expect_err("nobody listens");
    assert!(refused.code == 7 && refused.message.contains("connect"), "{refused:?}");
}

#[test]
fn an_origin_process_can_be_killed_and_comes_back() {
    let mut green = OriginProcess::start("green");
    let url = format!("http://{}/", green.server());
    assert_eq!(curl([&url]).header("x-origin"), Some("green"));
    green.kill9();
    assert_eq!(try_curl([&url]).expect_err("it is dead").code, 7);
    green.start_again();
    assert_eq!(curl([&url]).json()["origin"], "green");
}

#[test]
fn a_raw_origin_plays_its_script() {
    let raw = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!(curl([format!("http://{}/x", raw.server())]).text(), "hi");
    raw.wait_for(b"GET /x HTTP/1.1\r\n");
    assert_eq!(raw.received().len(), 1);
    let slow = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Drip(b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), Duration::from_millis(2)),
        Step::Pause(Duration::from_millis(20)),
        Step::Send(b"late".to_vec()),
        Step::Close,
    ]);
    let answer = curl([format!("http://{}/", slow.server())]);
    assert_eq!(answer.text(), "late");
    assert!(answer.seconds >= 0.05, "{answer:?}");
    let silent = RawOrigin::start(vec![Step::ReadToEnd]);
    assert_eq!(try_curl(["--max-time", "0.2", &format!("http://{}/", silent.server())]).expect_err("silence").code, 28);
}

#[test]
fn certificates_are_what_openssl_takes_them_for() {
    let (ca, home) = (Ca::new(), Home::new(""));
    let ca_file = home.write("ca.pem", &ca.cert);
    let verify = |cert: &str| {
        let file = home.write("leaf.pem", cert);
        let name = ["-verify_hostname", "api.example.com"];
        openssl(
            ["verify", "-CAfile"]
                .iter()
                .map(|s| (*s).to_owned())
                .chain([ca_file.display().to_string()])
                .chain(name.map(str::to_owned))
                .chain([file.display().to_string()]),
            b"",
        )
    };
    let leaf = ca.leaf(&["api.example.com", "127.0.0.1"]);
    verify(&leaf.cert).success();
    verify(&ca.leaf(&["*.example.com"]).cert).success();
    assert!(verify(&ca.leaf(&["other.example.com"]).cert).output().contains("hostname mismatch"));
    assert!(verify(&ca.expired(&["api.example.com"]).cert).output().contains("expired"));
    assert!(verify(&ca.not_yet_valid(&["api.example.com"]).cert).output().contains("not yet valid"));
    let public = |args: &[&str], pem: &str| openssl(args, pem.as_bytes()).success().to_owned();
    let of_cert = |pem: &str| public(&["x509", "-pubkey", "-noout"], pem);
    let of_key = |pem: &str| public(&["pkey", "-pubout"], pem);
    assert_eq!(of_cert(&leaf.cert), of_key(&leaf.key));
    let mismatch: Pem = leaf.with_key_of(&ca.leaf(&["api.example.com"]));
    assert_ne!(of_cert(&mismatch.cert), of_key(&mismatch.key));
}

#[test]
fn a_tls_front_is_what_curl_takes_it_for() {
    let (ca, home, blue) = (Ca::new(), Home::new(""), Origin::start("blue"));
    let ask = |front: &TlsFront, ca: &Ca, more: &[&str]| {
        let file = home.write("ca.pem", &ca.cert).display().to_string();
        let url = format!("https://localhost:{}/?bytes=70000", front.addr.port());
        try_curl(["--http1.1", "--cacert", &file, &url].iter().chain(more))
    };
    let leaf = ca.leaf(&["localhost"]);
    let front = TlsFront::start(blue.addr, &FrontTls::new(&leaf));
    assert_eq!(ask(&front, &ca, &[]).expect("an answer").body.len(), 70_000);
    let shaken = front.shaken();
    assert_eq!((shaken[0].name.as_deref(), shaken[0].alpn.as_deref()), (Some("localhost"), Some("http/1.1")));
    assert!(shaken[0].client.is_none() && !shaken[0].resumed);
    wait_until(SOON, "curl says its end", || (front.ends() == 1).then_some(()));
    // Its name is the same, its signature is not.
    assert!(matches!(ask(&front, &Ca::new(), &[]).expect_err("another authority").code, 35 | 60));
    wait_until(SOON, "it is refused", || (front.refused() == 1).then_some(()));
    let strict = TlsFront::start(blue.addr, &FrontTls { clients: Some(&ca), ..FrontTls::new(&leaf) });
    assert_eq!(ask(&strict, &ca, &[]).expect_err("no certificate").code, 56);
    let (cert, key) = (home.write("c.crt", &leaf.cert), home.secret("c.key", &leaf.key));
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    assert_eq!(ask(&strict, &ca, &["--cert", &cert, "--key", &key]).expect("an answer").status, 200);
    assert!(strict.shaken()[0].client.is_some());
}

#[test]
fn processes_end_with_what_they_started() {
    let mut shell = Process::spawn("sh", Command::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]));
    let sleep = shell.wait_until(SOON, "a child", |p| p.stdout().split_once('\n').map(|(pid, _)| pid.to_owned()));
    assert!(std::fs::exists(format!("/proc/{sleep}")).expect("a proc file system"));
    shell.kill9();
    assert_eq!(shell.exited().and_then(|status| status.signal()), Some(9));
    wait_until(SOON, "the child is dead too", || dead(&sleep).then_some(()));

    let mut shell = Process::spawn(
        "sh",
        Command::new("sh").args(["-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"]),
    );
    shell.wait_until(SOON, "it is up", |p| p.stdout().contains("up").then_some(()));
    shell.sigterm();
    assert_eq!((shell.wait(SOON).code(), shell.stdout().as_str()), (Some(3), "up\nbye\n"));
}

#[test]
#[should_panic(expected = "--- sh stderr\nwhat it said")]
fn a_process_that_ends_early_fails_the_waiting_with_its_logs() {
    let mut shell = Process::spawn("sh", Command::new("sh").args(["-c", "echo what it said >&2; exit 1"]));
    shell.wait_until(SOON, "what never comes", |_| None::<()>);
}

/// The test starts this very binary again, with a test that starts a process and then dies without a farewell.
#[test]
fn processes_do_not_outlive_the_tests() {
    const SHOW: &str = "KEYGATE_TEST_DIES_WITH";
    if let Some(file) = std::env::var_os(SHOW) {
        let sleep = Process::spawn("sleep", Command::new("sleep").arg("1000"));
        std::fs::write(file, sleep.pid().to_string()).expect("a file");
        std::process::abort();
    }
    let home = Home::new("");
    let file = home.path("pid");
    let this = std::env::current_exe().expect("a path");
    let mut again = Command::new(this);
    let died = run(again.args(["--exact", "harness::processes_do_not_outlive_the_tests"]).env(SHOW, &file), b"");
    assert_eq!(died.code, -1, "{died:?}");
    let pid = std::fs::read_to_string(file).expect("it started a process");
    wait_until(SOON, "the process is dead", || dead(&pid).then_some(()));
}

/// A zombie is dead: who is to reap it, in a container, is not our business.
fn dead(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn ports_are_given_once() {
    let ports: std::collections::BTreeSet<_> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
}

#[test]
fn the_kms_fails_on_request() {
    let kms = Kms::start();
    let (key, other) = (kms.create_key(), kms.create_key());
    assert!(kms.identity(&key).address.starts_with("0x"));
    assert_ne!(kms.identity(&key).address, kms.identity(&other).address);
    let sign = |key: &str| {
        let body = json!({
            "KeyId": key, "Message": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "MessageType": "DIGEST",
            "SigningAlgorithm": "ECDSA_SHA_256",
        });
        curl([
            "-H",
            "Content-Type: application/x-amz-json-1.1",
            "-H",
            "X-Amz-Target: TrentService.Sign",
            "-H",
            "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, Signature=none",
            "-d",
            &body.to_string(),
            &kms.url,
        ])
    };
    kms.fault(&key, "throttle", 2);
    let statuses = [&key.arn, &other.id, &key.id, &key.id].map(|key| sign(key).status);
    assert_eq!(statuses, [400, 200, 400, 200]);
    assert_eq!((kms.calls(&key, "Sign"), kms.calls(&other, "Sign")), (3, 1));
    kms.slow(&key, 0.2);
    assert!(sign(&key.id).seconds >= 0.2);
    let wrong = json!({ "mode": "no-such" }).to_string();
    assert_eq!(curl(["-d", &wrong, &format!("{}/_faults", kms.url)]).status, 400);
}

#[test]
fn the_chain_mines() {
    let chain = Chain::shared();
    assert_eq!(chain.rpc("eth_chainId", &json!([])), Ok(json!("0x7a69")));
    let address = "0x00000000000000000000000000000000000000aa";
    chain.fund(address);
    assert_eq!((chain.balance(address), chain.nonce(address)), (100_000_000_000_000_000_000, 0));
    assert!(chain.send("0x02c0").is_err());
}
