//! A ledger's PostgreSQL server that goes, comes back, refuses, or is not one to be trusted.

use serde_json::json;

use super::postgres::{Fleet, ask, home};
use super::{assert_problem, listening};
use crate::support::{Ca, Finished, Home, PostgresServer, SOON, free_port, wait_until};

const PASSWORD: &str = PostgresServer::PASSWORD;

#[test]
fn a_server_that_goes_is_waited_for() {
    let mut server = PostgresServer::start(&[], &[]);
    let database = server.database();
    let fleet = Fleet::start(1, &format!("{:?}", database.url()), None, "");
    let pay = |name: &str, nonce: u32| {
        ask(&fleet.homes[0], name, &json!({ "nonce": nonce }), "").expect("the signer answers")
    };
    let first = pay("a", 0);
    assert_eq!(first.status, 200, "{}", first.text());
    for crash in [false, true] {
        if crash {
            server.crash();
        } else {
            server.stop();
        }
        let away = pay("a", 0);
        assert!(away.header("retry-after").is_some());
        assert_problem(&away, 503, "ledger-unavailable");
        assert_problem(&pay("b", 1), 503, "ledger-unavailable");
        server.again();
        // At once: no restart, no request that fails first.
        assert_eq!(pay("a", 0).json()["raw"], first.json()["raw"]);
        assert_eq!(pay("b", 1).status, 200);
    }
    // One that takes no writes, for a while; as one that has become another's standby.
    let admin = server.named("postgres");
    let read_only = |on: &str| {
        admin.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", database.name)).unwrap();
    };
    read_only("on");
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'keygate signer'";
    admin.sql(cut).unwrap();
    assert_problem(&pay("c", 2), 503, "ledger-unavailable");
    read_only("off");
    wait_until(SOON, "it signs again", || (pay("c", 2).status == 200).then_some(()));
    fleet.verify();
}

/// A standby takes no writes until it takes over; from then on, who knows of both goes on there.
#[test]
fn a_standby_takes_over() {
    let mut primary = PostgresServer::start(&[], &[]);
    let database = primary.database();
    let standby = primary.standby();
    let replica = standby.named(&database.name);
    let url = format!("{}?target_session_attrs=read-write", database.url());
    // A list of hosts, each with its port.
    let host = |url: &str| url.split(['@', '/']).nth(3).expect("a host").to_owned();
    let both = url.replace(&host(&url), &format!("{},{}", host(&url), host(&replica.url())));
    let fleet = Fleet::start(1, &format!("{both:?}"), None, "");
    let pay = |name: &str, nonce: u32| {
        ask(&fleet.homes[0], name, &json!({ "nonce": nonce }), "").expect("the signer answers")
    };
    let first = pay("a", 0).json();
    let known = "SELECT max(seq) FROM audit";
    wait_until(SOON, "the standby has it all", || (replica.sql(known) == database.sql(known)).then_some(()));

    // Alone, the standby is there to be read.
    let reader = home(&format!("{:?}", replica.url()), None, "");
    let verified = reader.run(["audit", "verify", "--json"]).json();
    assert_eq!(verified["transactions"], 1, "{verified}");
    let _alone = listening(reader.start("signer"));
    let answer = ask(&reader, "x", &json!({ "nonce": 9 }), "").expect("an answer");
    assert_problem(&answer, 503, "ledger-unavailable");

    primary.stop();
    assert_problem(&pay("b", 1), 503, "ledger-unavailable");
    replica.sql("SELECT pg_promote()").expect("it takes over");
    let second = wait_until(SOON, "the signer goes on", || Some(pay("b", 1)).filter(|answer| answer.status == 200));
    assert_eq!((&second.json()["nonce"], &pay("a", 0).json()["raw"]), (&json!(1), &first["raw"]));
    let answer = wait_until(SOON, "and so does the other", || ask(&reader, "x", &json!({ "nonce": 9 }), ""));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(reader.run(["audit", "verify", "--json"]).json()["transactions"], 3);
}

/// The signer must not start, say this, and nothing of the password.
#[track_caller]
fn refused(home: &Home, why: &str) -> Finished {
    let done = home.run(["signer", "-c", "keygate.toml"]);
    assert_eq!(done.code, 1, "{}", done.output());
    assert!(done.output().contains(why), "{why}: {}", done.output());
    assert!(!done.output().contains(PASSWORD), "{}", done.output());
    done
}

#[test]
fn what_cannot_be_a_ledger_is_refused_and_says_why() {
    let (ca, other) = (Ca::new(), Ca::new());
    let leaf = ca.leaf(&["localhost"]);
    let port = free_port();
    let settings = [
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        "ssl=on",
        "ssl_cert_file=../server.crt",
        "ssl_key_file=../server.key",
    ];
    let server = PostgresServer::start(&settings, &[("server.crt", &leaf.cert), ("server.key", &leaf.key)]);
    let database = server.database();
    let url = format!("postgres://keygate@localhost:{port}/{}", database.name);
    let ledger = |url: &str, ca: &str| format!("{{ url = {url:?}, password_file = \"secrets/db\"{ca} }}");
    let with = |ledger: &str, password: &str| {
        let home = home(ledger, None, "");
        home.secret("secrets/db", format!("{password}\n"));
        home.write("ca.pem", &ca.cert);
        home.write("other.pem", &other.cert);
        home
    };

    // As it should be: with TLS, and without, as it is this machine's.
    for tls in [", ca = \"ca.pem\"", ""] {
        let home = with(&ledger(&url, tls), PASSWORD);
        let mut signer = listening(home.start("signer"));
        assert_eq!(ask(&home, "a", &json!({ "nonce": 0 }), "").expect("an answer").status, 200);
        let used = database.sql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'keygate signer'",
        );
        assert_eq!(used.as_deref(), Ok(if tls.is_empty() { "f" } else { "t" }));
        signer.sigterm();
        assert!(signer.wait(SOON).success());
        for text in [signer.logs(), home.run(["check", "-c", "keygate.toml"]).output()] {
            assert!(!text.contains(PASSWORD), "{text}");
        }
    }
    refused(&with(&ledger(&url, ", ca = \"other.pem\""), PASSWORD), "invalid peer certificate");
    let by_address = url.replace("localhost", "127.0.0.1");
    refused(&with(&ledger(&by_address, ", ca = \"ca.pem\""), PASSWORD), "certificate not valid for name");
    refused(&with(&ledger(&url, ""), "another"), "password authentication failed");
    refused(&with(&ledger(&url.replace(&database.name, "nosuch"), ""), PASSWORD), "\"nosuch\" does not exist");
    // In the URL it is warned of, and no more is said of it.
    let inline = with(&format!("{:?}", url.replace("keygate@", &format!("keygate:{PASSWORD}@"))), "");
    let checked = inline.run(["check", "-c", "keygate.toml"]).output();
    assert!(checked.contains("password is in this file"), "{checked}");
    let nosuch = with(&format!("{:?}", url.replace("keygate@", &format!("nosuch:{PASSWORD}@"))), "");
    refused(&nosuch, "password authentication failed");
    // Another keygate's.
    let sql = "INSERT INTO keygate_ledger (version) VALUES (99)";
    database.sql(sql).expect("an answer");
    refused(&with(&ledger(&url, ""), PASSWORD), "version 99");
    let done = with(&ledger(&url, ""), PASSWORD).run(["audit", "verify", "-c", "keygate.toml"]);
    assert_eq!(done.code, 2, "{}", done.output());
    let empty = server.database();
    let new = with(&ledger(&url.replace(&database.name, &empty.name), ""), PASSWORD);
    let done = new.run(["audit", "verify"]);
    assert!(done.code == 2 && done.output().contains("no ledger"), "{}", done.output());
    let doctor = new.run(["signer", "doctor"]).output();
    assert!(doctor.contains("the first start makes it") && !doctor.contains(PASSWORD), "{doctor}");
}

#[test]
fn a_server_that_loses_what_it_commits_is_refused() {
    let server = PostgresServer::start(&["fsync=off"], &[]);
    let home = home(&format!("{:?}", server.database().url()), None, "");
    refused(&home, "fsync = off");
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'";
    drop(server);
    let server = PostgresServer::shared();
    let database = server.database();
    database.sql(latin).expect("a database");
    let url = database.url().replace(&database.name, "latin");
    refused(&super::postgres::home(&format!("{url:?}"), None, ""), "LATIN1");
}
