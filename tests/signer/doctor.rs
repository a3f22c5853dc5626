//! `keygate signer doctor`; and where credentials come from.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use super::Wallet;
use crate::support::{Kms, SECRET_ACCESS_KEY, run};

fn doctor(wallet: &Wallet) -> Command {
    let mut command = wallet.home.command(["signer", "doctor", "-c", "keygate.toml", "--json"]);
    command.env("AWS_ENDPOINT_URL", &Kms::shared().url);
    command
}

/// What it found: the outcome of a check, and its text.
#[track_caller]
fn outcome<'a>(report: &'a Value, check: &str) -> (&'a str, String) {
    let findings = report["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("no {check} in {report}"));
    assert_eq!(finding["fix"].is_string(), finding["outcome"] != "ok", "{finding}");
    (finding["outcome"].as_str().expect("an outcome"), finding.to_string())
}

fn deny(wallet: &Wallet, mode: &str, actions: &[&str]) {
    for action in actions {
        Kms::shared().order(&json!({ "mode": mode, "key": wallet.key.id, "action": action, "count": 1000 }));
    }
}

const MORE: [&str; 4] = ["DescribeKey", "GetKeyPolicy", "ListGrants", "ListResourceTags"];

#[test]
fn all_is_well_beside_a_running_signer_and_stays_so() {
    let wallet = Wallet::new();
    deny(&wallet, "denied", &MORE);
    let _signer = wallet.start();
    wallet.signed("1", &wallet.payment(&json!({})));
    let ran = run(&mut doctor(&wallet), b"");
    let report = ran.json();
    assert_eq!(report["ok"], true);
    for check in ["public key", "address", "sign", "state", "permissions", "clock", "latency"] {
        assert_eq!(outcome(&report, &format!("key hot-wallet us-east-1 {check}")).0, "ok", "{report}");
    }
    for check in ["credentials", "ledger", "disk space", "caller payments"] {
        assert_eq!(outcome(&report, check).0, "ok", "{report}");
    }
    assert!(outcome(&report, "ledger").1.contains("in use by a running signer"), "{report}");
    assert_eq!(wallet.kms_signs(), 2, "one to see that it signs");
    wallet.signed("2", &wallet.payment(&json!({ "nonce": 1 })));
    assert_eq!(wallet.home.run(["signer", "doctor", "-h"]).code, 0);
}

#[test]
fn what_is_wrong_is_said_and_what_to_do() {
    let wallet = Wallet::new();
    // More than is needed, and nothing was signed yet.
    let report = run(&mut doctor(&wallet), b"").json();
    assert!(outcome(&report, "key hot-wallet us-east-1 permissions").1.contains("kms:ListGrants"), "{report}");
    assert_eq!(outcome(&report, "key hot-wallet us-east-1 state").0, "ok");
    assert_eq!(outcome(&report, "ledger").0, "warn");

    for (mode, action, check, says) in [
        ("denied", "Sign", "sign", "allow kms:Sign"),
        ("disabled", "Sign", "sign", "DisabledException"),
        ("wrong-signature", "Sign", "sign", "not KMS"),
        ("denied", "GetPublicKey", "public key", "allow kms:GetPublicKey"),
        ("reset", "GetPublicKey", "public key", "reaches KMS"),
    ] {
        deny(&wallet, mode, &[action]);
        let ran = run(&mut doctor(&wallet), b"");
        assert_eq!(ran.code, 1, "{mode} {action}: {}", ran.output());
        let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(report["ok"], false);
        let (outcome, text) = outcome(&report, &format!("key hot-wallet us-east-1 {check}"));
        assert!(outcome == "fail" && text.contains(says), "{mode} {action}: {text}");
        deny(&wallet, "none", &[action]);
    }

    let other = Kms::shared().identity(&Kms::shared().create_key()).address;
    let file = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("the file");
    wallet.home.config(&file.replace(wallet.address(), &other));
    wallet.home.write("secrets/payments.token", super::TOKEN);
    wallet.home.write("ledger/ledger.db", "no database, but text of some length, and of no use to anybody at all");
    let ran = run(&mut doctor(&wallet), b"");
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, outcome(&report, "key hot-wallet us-east-1 address").0), (1, "fail"), "{report}");
    assert_eq!(outcome(&report, "ledger").0, "fail");
    assert_eq!(outcome(&report, "caller payments").0, "warn");
    let ran = wallet.home.clone().env("AWS_ENDPOINT_URL", &Kms::shared().url).run(["signer", "doctor"]);
    assert!(ran.code == 1 && ran.stdout.contains("FAIL") && ran.stdout.contains("-> "), "{}", ran.stdout);
}

/// Answers every request with what is given for its path, as a metadata service or a container's agent does.
fn agent(answers: fn(&str) -> String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let body = answers(&String::from_utf8_lossy(&head));
            let status = if body.is_empty() { "401 Unauthorized" } else { "200 OK" };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

const CREDENTIALS: &str = r#"{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
    "AccessKeyId": "ASIATESTTESTTESTTEST", "SecretAccessKey": "aws-secret-that-must-not-be-printed",
    "Token": "a-session-token-that-is-secret-too", "Expiration": "2036-01-01T00:00:00Z"}"#;

/// Each source alone; nothing of any is printed at the chattiest level.
#[test]
fn credentials_come_from_the_standard_chain_and_are_never_printed() {
    let wallet = Wallet::new();
    wallet.home.secret(
        ".aws/credentials",
        format!("[hot]\naws_access_key_id = AKIATESTTESTTESTTEST\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"),
    );
    let helper = wallet.home.secret(
        "credentials.json",
        CREDENTIALS.replacen('{', r#"{"Version": 1, "SessionToken": "a-session-token-that-is-secret-too","#, 1),
    );
    let sso = "sso_start_url = https://wallet.awsapps.com/start\nsso_region = us-east-1\nsso_account_id = 123456789012\n\
               sso_role_name = keygate\n";
    wallet.home.secret(
        ".aws/config",
        format!("[profile helper]\ncredential_process = cat {}\n[profile sso]\n{sso}", helper.display()),
    );
    // SHA-1 of the URL.
    wallet.home.secret(
        ".aws/sso/cache/9257b3166443eb7fb38bc8b2d0e88898e0315cd8.json",
        r#"{"accessToken": "an-sso-token-that-is-secret", "expiresAt": "2036-01-01T00:00:00Z", "region": "us-east-1",
            "startUrl": "https://wallet.awsapps.com/start"}"#,
    );
    let portal = agent(|head| {
        let proven = head.contains("/federation/credentials") && head.contains("an-sso-token-that-is-secret");
        let credentials = r#"{"roleCredentials": {"accessKeyId": "ASIATESTTESTTESTTEST", "expiration": 2082758400000,
            "secretAccessKey": "aws-secret-that-must-not-be-printed", "sessionToken": "a-session-token-that-is-secret-too"}}"#;
        if proven { credentials.to_owned() } else { String::new() }
    });
    let web_token = wallet.home.secret("web-token", "a-web-identity-token-that-is-secret").display().to_string();
    let pod_token = wallet.home.secret("pod-token", "a-pod-token-that-is-secret").display().to_string();
    let container = agent(|head| {
        let proven = head.to_lowercase().contains("authorization: a-pod-token-that-is-secret");
        if proven { CREDENTIALS.to_owned() } else { String::new() }
    });
    let instance = agent(|head| match head.split(' ').nth(1).unwrap_or_default() {
        "/latest/api/token" => "a-metadata-token-that-is-secret".to_owned(),
        path if path.ends_with("/security-credentials/") || path.ends_with("/security-credentials-extended/") => {
            "the-role".to_owned()
        }
        path if path.ends_with("/the-role") => CREDENTIALS.to_owned(),
        _ => String::new(),
    });
    let container = format!("{container}/credentials");
    let sources: [(&str, &[(&str, &str)]); 7] = [
        ("environment", &[("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST"), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)]),
        ("profile", &[("AWS_PROFILE", "hot")]),
        ("SSO", &[("AWS_PROFILE", "sso"), ("AWS_ENDPOINT_URL_SSO", &portal)]),
        ("process", &[("AWS_PROFILE", "helper")]),
        (
            "web identity",
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", &web_token), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/keygate")],
        ),
        (
            "container",
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod_token),
            ],
        ),
        ("instance", &[("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &instance)]),
    ];
    for (source, environment) in sources {
        let mut command = doctor(&wallet);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("KEYGATE_LOG", "trace");
        let ran = run(command.envs(environment.iter().copied()), b"");
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{source}: {}", ran.output()));
        assert_eq!(outcome(&report, "key hot-wallet us-east-1 sign").0, "ok", "{source}: {report}");
        assert_eq!(outcome(&report, "credentials").0, "ok", "{source}: {report}");
        assert!(ran.stderr.len() > 1000, "{source}: it does log");
        for secret in [
            SECRET_ACCESS_KEY,
            "a-session-token-that-is-secret-too",
            "a-web-identity-token-that-is-secret",
            "a-pod-token-that-is-secret",
            "an-sso-token-that-is-secret",
            "a-metadata-token-that-is-secret",
        ] {
            let line = ran.output().lines().find(|line| line.contains(secret)).map(str::to_owned);
            assert_eq!(line, None, "{source}");
        }
    }
    let mut nowhere = doctor(&wallet);
    nowhere.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let ran = run(&mut nowhere, b"");
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, outcome(&report, "credentials").0), (1, "fail"));
}
