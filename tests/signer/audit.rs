//! `keygate audit`: the trail, checked and exported, and what it tells of the signer itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::listening;
use super::postgres::{ask, home};
use crate::support::{Finished, Home, Keygate, PostgresServer, SOON, run, wait_until};

const SQLITE: &str = "\"sqlite:ledger/ledger.db\"";

fn audit(home: &Home, args: &[&str]) -> Finished {
    home.run(["audit"].iter().chain(args))
}

#[track_caller]
fn pay(home: &Home, name: &str, nonce: u32) {
    let answer = ask(home, name, &json!({ "nonce": nonce }), "").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[track_caller]
fn end(mut signer: Keygate) -> String {
    signer.sigterm();
    assert!(signer.wait(SOON).success(), "{}", signer.logs());
    signer.logs()
}

/// SQL by hand, in a SQLite file.
#[track_caller]
fn hand(path: &Path, sql: &str) -> String {
    run(Command::new("sqlite3").arg(path).arg(sql), b"").success().trim().to_owned()
}

fn entries(home: &Home) -> Vec<Value> {
    let exported = audit(home, &["export"]);
    exported.success().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_trail_is_checked_and_exported_while_the_signer_runs() {
    let database = PostgresServer::shared().database();
    for ledger in [SQLITE.to_owned(), format!("{:?}", database.url())] {
        let home = home(&ledger, None, "");
        let signer = listening(home.start("signer"));
        pay(&home, "a", 0);
        let verified = audit(&home, &["verify"]).success().to_owned();
        let head = verified.lines().find_map(|line| line.strip_prefix("head ")).expect("a head").to_owned();
        assert!(verified.contains("1 signed transactions and 0 other signatures"), "{verified}");
        pay(&home, "b", 1);
        assert!(audit(&home, &["verify", "--head", &head]).success().contains(&head));
        let logs = end(signer);
        let json = audit(&home, &["verify", "--json"]).json();
        assert_eq!((&json["whole"], &json["transactions"]), (&json!(true), &json!(2)));
        let last = json["head"].as_str().expect("a head");
        assert!(logs.contains(last), "the head is logged at the end: {last}\n{logs}");

        let entries = entries(&home);
        let what: Vec<_> = entries.iter().map(|line| line["entry"]["what"].as_str().expect("a word")).collect();
        assert_eq!(what, ["began", "started", "reserved", "signed", "reserved", "signed", "stopped"]);
        assert_eq!(entries[1]["entry"]["version"], env!("CARGO_PKG_VERSION"));
        let from = audit(&home, &["export", "--from", "6"]).success().to_owned();
        assert_eq!(from.lines().count(), 2);

        // Without the ledger, byte by byte.
        let export = audit(&home, &["export"]).success().to_owned();
        let file = home.write("export.jsonl", &export).display().to_string();
        let elsewhere = Home::new("no configuration");
        let check = |args: &[&str]| audit(&elsewhere, &[&["verify", "--file", &file], args].concat());
        assert!(check(&[]).success().contains("7 entries"));
        assert!(check(&["--head", &head]).success().contains(&head));
        for (tampered, why) in [
            (export.replacen("hot-wallet", "cold-wallet", 1), "entry 3 is not what was written"),
            (export.lines().skip(1).map(|line| format!("{line}\n")).collect(), "entry 1 is missing"),
            (export.replacen("{\"seq\"", "{\"sec\"", 1), "line 1 is no entry"),
        ] {
            home.write("export.jsonl", tampered);
            let done = check(&[]);
            assert!(done.code == 1 && done.stdout.contains(why), "{why}: {}", done.output());
        }
        home.write("export.jsonl", export.lines().take(3).map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!((check(&[]).code, check(&["--head", last]).code), (0, 1));
        assert_eq!(check(&["--head", last, "--json"]).stdout.matches("\"whole\": false").count(), 1);
        for wrong in [vec!["verify", "--head", "x"], vec!["verify", "--file", "nosuch"], vec!["verify", "-c", "nosuch"]]
        {
            assert_eq!(audit(&home, &wrong).code, 2, "{wrong:?}");
        }
    }
}

#[test]
fn a_hand_in_the_database_is_found() {
    let database = PostgresServer::shared().database();
    for ledger in [SQLITE.to_owned(), format!("{:?}", database.url())] {
        let home = home(&ledger, None, "");
        let signer = listening(home.start("signer"));
        pay(&home, "a", 0);
        end(signer);
        let (unguard, change) = if ledger == SQLITE {
            ("DROP TRIGGER audit_for_ever", "UPDATE audit SET entry = replace(entry, 'hot', 'not') WHERE seq = 3")
        } else {
            (
                "ALTER TABLE audit DISABLE TRIGGER USER",
                "UPDATE audit SET entry = replace(entry, 'hot', 'not') WHERE seq = 3",
            )
        };
        for sql in [unguard, change] {
            if ledger == SQLITE {
                hand(&home.path("ledger/ledger.db"), sql);
            } else {
                database.sql(sql).expect("an answer");
            }
        }
        let done = audit(&home, &["verify"]);
        assert_eq!(done.code, 1, "{}", done.output());
        assert!(done.stdout.contains("the audit trail was changed"), "{}", done.output());
        assert!(done.stdout.contains("entry 3 is not what was written"), "{}", done.output());
        assert_eq!(audit(&home, &["verify", "--json"]).code, 1);
    }
}

#[test]
fn what_a_reload_changes_is_in_the_trail() {
    let home = home(SQLITE, None, "max_value = \"1 ether\"");
    let signer = listening(home.start("signer"));
    let config = std::fs::read_to_string(home.path("keygate.toml")).expect("a file");
    home.config(&config.replace("1 ether", "2 ether").replace("keys = [\"hot-wallet\"]", "keys = []"));
    let changes = wait_until(SOON, "the changes are in the trail", || {
        let changes: Vec<_> = entries(&home).into_iter().map(|line| line["entry"].clone()).collect();
        let changes: Vec<_> =
            changes.into_iter().filter(|entry| entry["what"].as_str().unwrap().ends_with("-changed")).collect();
        (changes.len() == 2).then_some(changes)
    });
    let [policy, caller] = &changes[..] else { unreachable!() };
    assert_eq!((&policy["policy"], &policy["change"]), (&json!("payouts"), &json!("changed")));
    assert_eq!(policy["loosened"], json!(["max_value"]));
    assert_eq!((&caller["caller"], &caller["change"]), (&json!("payments"), &json!("changed")));
    assert_eq!((&caller["keys"], &caller["proof"]), (&json!([]), &json!("token")));
    end(signer);
    let text = audit(&home, &["export"]).success().to_owned();
    assert!(!text.contains(super::TOKEN), "{text}");
    assert!(text.lines().last().expect("an end").contains("stopped"), "{text}");
}

/// Whoever is denied and asks again, for ever, fills no disk; and is counted, to the last request.
#[test]
fn thousands_of_denials_are_few_entries() {
    // By one rule, and then by another.
    const ABOVE: u64 = 2700;
    const TOO_OFTEN: u64 = 300;
    let home = home(SQLITE, None, "max_value = \"1 wei\"\nrate = \"1/d\"");
    let signer = listening(home.start("signer"));
    let socket = home.path("state/signer.sock");
    let ask = |name: u64| {
        let value = if name < ABOVE { 2 } else { 0 };
        let body = json!({
            "chainId": crate::support::Anvil::ID, "type": 2, "to": super::RECIPIENT, "value": value, "gas": 21_000,
            "maxFeePerGas": 1, "maxPriorityFeePerGas": 1, "nonce": 7,
        })
        .to_string();
        format!(
            "POST /v1/keys/hot-wallet/transactions HTTP/1.1\r\nHost: signer\r\nAuthorization: Bearer {}\r\n\
             Idempotency-Key: denied-{name}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            super::TOKEN,
            body.len()
        )
    };
    let mut stream = UnixStream::connect(socket).expect("a connection");
    for name in 0..=ABOVE + TOO_OFTEN {
        stream.write_all(ask(name).as_bytes()).expect("sent");
        let expected = match name {
            ..ABOVE => 403,
            // What is allowed has its entries, though denials have used up theirs.
            ABOVE => 200,
            _ => 429,
        };
        assert_eq!(status(&mut stream), expected, "{name}");
    }
    drop(stream);
    // At the end at the latest, all of them are told.
    end(signer);
    let verified = audit(&home, &["verify", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["refused"]), (&json!(true), &json!(ABOVE + TOO_OFTEN)), "{verified}");
    let entries: Vec<_> = entries(&home).into_iter().map(|line| line["entry"].clone()).collect();
    let of = |what: &str| entries.iter().filter(|entry| entry["what"] == what).collect::<Vec<_>>();
    let (denied, sums) = (of("denied"), of("refused"));
    let seconds =
        entries.last().expect("an end")["at"].as_u64().expect("a time") - entries[1]["at"].as_u64().expect("a time");
    let seconds = seconds / 1000 + 1;
    assert!(denied.len() as u64 <= 300 + seconds, "{} in {seconds} s", denied.len());
    assert!(sums.len() as u64 <= 2 + seconds / 10, "{sums:?}");
    let summed: u64 = sums.iter().map(|sum| sum["count"].as_u64().expect("a number")).sum();
    assert_eq!((denied.len() as u64 + summed, &verified["summed"]), (ABOVE + TOO_OFTEN, &json!(summed)));
    // By rule, too.
    for (rule, expected) in [("max_value", ABOVE), ("rate", TOO_OFTEN)] {
        let singly = denied.iter().filter(|entry| entry["rule"] == rule).count() as u64;
        let summed: u64 = sums.iter().filter_map(|sum| sum["by"][rule].as_u64()).sum();
        assert_eq!(singly + summed, expected, "{rule}");
    }
    assert!(
        sums.iter().all(|sum| sum["caller"] == "payments" && sum["from"].as_u64() <= sum["to"].as_u64()),
        "{sums:?}"
    );
    assert_eq!((of("reserved").len(), of("signed").len()), (1, 1));
}

/// Of an answer, which is read to its end.
fn status(stream: &mut UnixStream) -> u16 {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).expect("an answer");
        assert!(length > 0, "the connection ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() as u64 >= length.parse::<u64>().expect("a number") {
            return head.split(' ').nth(1).expect("a status").parse().expect("a number");
        }
    }
}

/// The docs' commands, while the signer signs; what is restored knows what was signed before, and nothing else.
#[test]
fn the_documented_backups_restore_what_was_signed_before() {
    let docs = include_str!("../../docs/ledger.md");
    let command = |what: &str| {
        docs.lines().find(|line| line.starts_with("    ") && line.contains(what)).expect("documented").trim()
    };
    let database = PostgresServer::shared().database();
    for ledger in [SQLITE.to_owned(), format!("{:?}", database.url())] {
        let sqlite = ledger == SQLITE;
        let home = home(&ledger, None, "daily_value = \"1 ether\"");
        let sh = |home: &Home, what: &str, database: &crate::support::Database| {
            let mut shell =
                home.command_of("sh", ["-ec", &command(what).replace("state/ledger.db", "ledger/ledger.db")]);
            let tool = PostgresServer::shared().tool("psql");
            let programs = Path::new(tool.get_program()).parent().expect("a folder").display().to_string();
            let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
            shell
                .env("PATH", path)
                .env("LEDGER", database.url())
                .envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
            run(&mut shell, b"").success().to_owned()
        };
        let signer = listening(home.start("signer"));
        pay(&home, "before", 0);
        let before = ask(&home, "before", &json!({ "nonce": 0 }), "").expect("an answer").json();
        // While it goes on.
        std::thread::scope(|scope| {
            let signing = scope.spawn(|| (1..20).for_each(|n| pay(&home, &format!("during-{n}"), n)));
            sh(&home, if sqlite { ".backup" } else { "pg_dump" }, &database);
            signing.join().expect("they are signed");
        });
        pay(&home, "after", 20);
        end(signer);

        let restored = if sqlite {
            std::fs::remove_dir_all(home.path("ledger")).expect("it is there");
            std::fs::create_dir(home.path("ledger")).expect("a folder");
            sh(&home, "cp ledger-backup.db", &database);
            home.clone()
        } else {
            let empty = PostgresServer::shared().database();
            sh(&home, "pg_restore", &empty);
            let text = std::fs::read_to_string(home.path("keygate.toml")).expect("a file");
            home.config(&text.replace(&database.url(), &empty.url()));
            home.clone()
        };
        let signer = listening(restored.start("signer"));
        let replayed = ask(&restored, "before", &json!({ "nonce": 0 }), "").expect("an answer").json();
        assert_eq!(replayed["raw"], before["raw"]);
        // What came after the backup is not known: it would be signed again.
        let unknown = "/v1/keys/hot-wallet/transactions/after";
        let token = format!("Authorization: Bearer {}", super::TOKEN);
        assert_eq!(super::ask(&restored, unknown, &["-H", &token]).status, 404);
        audit(&restored, &["verify"]).success();
        end(signer);
    }
}
