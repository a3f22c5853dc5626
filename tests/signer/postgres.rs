//! Several signers on one ledger in PostgreSQL: whoever is asked, nobody is paid twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{JSON, RECIPIENT, TOKEN, listening, merged};
use crate::support::{
    Anvil, Database, Home, Identity, Keygate, Kms, PostgresServer, Response, SOON, try_curl, wait_until,
};

/// The key of all these signers.
const SECRET: &str = "2222222222222222222222222222222222222222222222222222222222222222";
/// Wei that each payment sends.
const AMOUNT: u64 = 1_000_000_000_000_000;
/// For many payments, on a machine that does other things as well.
const LONG: Duration = Duration::from_secs(180);

/// Signers with the same key, on one ledger.
pub(super) struct Fleet {
    pub homes: Vec<Home>,
    pub signers: Vec<Keygate>,
    pub address: String,
}

impl Fleet {
    /// So many of them, under this policy.
    pub fn start(count: usize, ledger: &str, rpc: Option<&str>, policy: &str) -> Self {
        let address = Identity::of_private_key(&format!("0x{SECRET}")).address;
        Self::of((0..count).map(|_| home(ledger, rpc, policy)).collect(), address)
    }

    fn of(homes: Vec<Home>, address: String) -> Self {
        let started: Vec<_> = homes.iter().map(|home| home.start("signer")).collect();
        Self { signers: started.into_iter().map(listening).collect(), homes, address }
    }

    /// Asks one of them until it is signed or denied: with another, should one be away.
    #[track_caller]
    pub fn pay(&self, at: usize, name: &str, fields: &Value, query: &str) -> Response {
        let turn = AtomicUsize::new(at);
        wait_until(LONG, &format!("{name} is signed or denied"), || {
            let home = &self.homes[turn.fetch_add(1, Ordering::Relaxed) % self.homes.len()];
            match ask(home, name, fields, query) {
                Some(answer) if answer.status < 500 => Some(answer),
                _ => None,
            }
        })
    }

    /// The trail must be whole.
    #[track_caller]
    pub fn verify(&self) -> Value {
        let verified = self.homes[0].run(["audit", "verify", "-c", "keygate.toml", "--json"]).json();
        assert_eq!(verified["whole"], true, "{verified}");
        verified
    }
}

/// A folder with a configuration of one signer with one local key.
pub(super) fn home(ledger: &str, rpc: Option<&str>, policy: &str) -> Home {
    let rpc = rpc.map(|url| format!("rpc = {url:?}")).unwrap_or_default();
    let home = super::home(ledger, "local = { path = \"state/dev.key\" }", ("anvil", Anvil::ID, &rpc), policy);
    home.secret("state/dev.key", SECRET);
    home
}

/// One payment, from one signer; nothing, if it does not answer at all.
pub(super) fn ask(home: &Home, name: &str, fields: &Value, query: &str) -> Option<Response> {
    let payment = json!({
        "chainId": Anvil::ID, "type": 2, "to": RECIPIENT, "value": AMOUNT.to_string(), "gas": 21_000,
        "maxFeePerGas": "0x2540be400", "maxPriorityFeePerGas": "1000000000",
    });
    let socket = home.path("state/signer.sock").display().to_string();
    let token = format!("Authorization: Bearer {TOKEN}");
    let name = format!("Idempotency-Key: {name}");
    let url = format!("http://signer/v1/keys/hot-wallet/transactions{query}");
    let body = merged(payment, fields).to_string();
    try_curl(["--unix-socket", &socket, "-H", &token, "-H", &name, "-H", JSON, "-d", &body, &url]).ok()
}

/// The nonces that were given, which must be the first ones, each once.
#[track_caller]
fn contiguous(signed: &BTreeMap<String, Value>) {
    let mut nonces: Vec<_> = signed.values().map(|answer| answer["nonce"].as_u64().expect("a nonce")).collect();
    nonces.sort_unstable();
    assert_eq!(nonces, (0..signed.len() as u64).collect::<Vec<_>>());
}

#[test]
fn eight_signers_pay_each_once() {
    const SIGNERS: usize = 8;
    const EACH: usize = 25;
    const FIT: usize = 150;
    let (anvil, database) = (Anvil::start(), PostgresServer::shared().database());
    // A default that would show a signer what was there before it waited for its turn.
    let isolation = format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", database.name);
    database.sql(&isolation).expect("a database");
    let limit = format!("daily_value = \"{} wei\"", AMOUNT * FIT as u64);
    let mut fleet = Fleet::start(SIGNERS, &format!("{:?}", database.url()), Some(&anvil.url), &limit);
    anvil.fund(&fleet.address);
    let before = balance(&anvil);

    // The same request at all of them at once is one.
    let same: Vec<_> = std::thread::scope(|scope| {
        let ask = |at| {
            let fleet = &fleet;
            scope.spawn(move || fleet.pay(at, "same", &json!({}), "?send=true").json())
        };
        let asked: Vec<_> = (0..SIGNERS).map(ask).collect();
        asked.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    });
    for answer in &same {
        assert_eq!((&answer["raw"], &answer["nonce"]), (&same[0]["raw"], &json!(0)), "{answer}");
    }

    // All of them, as fast as they can. One dies in the middle, and its client goes to the others.
    let done = AtomicUsize::new(0);
    let mut first = fleet.signers.remove(0);
    let answers: Vec<(String, Response)> = std::thread::scope(|scope| {
        let client = |at: usize| {
            let (fleet, done) = (&fleet, &done);
            scope.spawn(move || {
                let pay = |n| {
                    let name = format!("payout-{at}-{n}");
                    let answer = fleet.pay(at, &name, &json!({}), "?send=true");
                    done.fetch_add(1, Ordering::Relaxed);
                    (name, answer)
                };
                (0..EACH).map(pay).collect::<Vec<_>>()
            })
        };
        let clients: Vec<_> = (0..SIGNERS).map(client).collect();
        wait_until(LONG, "a part is paid", || (done.load(Ordering::Relaxed) > 60).then_some(()));
        first.kill9();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    let mut signed = BTreeMap::from([("same".to_owned(), same[0].clone())]);
    for (name, answer) in &answers {
        if answer.status == 200 {
            signed.insert(name.clone(), answer.json());
        } else {
            assert_eq!(super::assert_problem(answer, 403, "policy-denied")["rule"], "daily_value");
        }
    }
    assert_eq!(signed.len(), FIT, "as many as fit, and not one more");
    contiguous(&signed);

    // What the dead one sent for the first time, or did not, the others send.
    wait_until(LONG, "all are mined", || {
        let count = anvil.ask("eth_getTransactionCount", &json!([fleet.address, "latest"]));
        (count == json!(format!("0x{FIT:x}"))).then_some(())
    });
    assert_eq!(balance(&anvil) - before, u128::from(AMOUNT) * FIT as u128, "each is paid once");
    for answer in signed.values() {
        assert!(anvil.ask("eth_getTransactionReceipt", &json!([answer["hash"]])).is_object(), "{answer}");
    }
    // Whoever is asked again, also the one that was dead, answers the same.
    fleet.signers.push(listening(fleet.homes[0].start("signer")));
    for (n, (name, first)) in signed.iter().step_by(10).enumerate() {
        assert_eq!(fleet.pay(n % SIGNERS, name, &json!({}), "?send=true").json()["raw"], first["raw"]);
    }
    let verified = fleet.verify();
    assert_eq!(verified["transactions"], FIT, "{verified}");
}

fn balance(anvil: &Anvil) -> u128 {
    let balance = anvil.ask("eth_getBalance", &json!([RECIPIENT, "latest"]));
    u128::from_str_radix(&balance.as_str().expect("a quantity")[2..], 16).expect("a quantity")
}

/// Connections are cut, in commits too: what was done or not is found by asking again.
#[test]
fn connections_that_are_cut_pay_nobody_twice() {
    const EACH: usize = 20;
    let database = PostgresServer::shared().database();
    let anvil = Anvil::start();
    let fleet = Fleet::start(2, &format!("{:?}", database.url()), Some(&anvil.url), "");
    let over = AtomicBool::new(false);
    let (answers, cut) = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| cut(&database, &over));
        let client = |at: usize| {
            let fleet = &fleet;
            scope.spawn(move || {
                let pay = |n| {
                    let name = format!("payout-{at}-{n}");
                    let answer = fleet.pay(at, &name, &json!({}), "");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    (name, answer.json())
                };
                (0..EACH).map(pay).collect::<Vec<_>>()
            })
        };
        let clients: Vec<_> = (0..4).map(client).collect();
        let answers: BTreeMap<_, _> = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        over.store(true, Ordering::Relaxed);
        (answers, cutter.join().expect("a thread"))
    });
    assert!(cut > 10, "{cut} connections were cut");
    contiguous(&answers);
    // What was answered is what is there, once.
    let rows = |sql: &str| database.sql(sql).expect("an answer").parse::<usize>().expect("a number");
    assert_eq!(rows("SELECT count(*) FROM transactions WHERE raw IS NOT NULL"), 4 * EACH);
    assert_eq!(rows("SELECT count(*) FROM transactions"), 4 * EACH);
    assert_eq!(rows("SELECT count(*) FROM spends"), 4 * EACH);
    for (name, answer) in &answers {
        assert_eq!(fleet.pay(0, name, &json!({}), "").json()["raw"], answer["raw"]);
    }
    fleet.verify();
}

/// Cuts every signer's connection, again and again; how many.
fn cut(database: &Database, over: &AtomicBool) -> usize {
    let mut cut = 0;
    while !over.load(Ordering::Relaxed) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = 'keygate signer' AND datname = current_database()";
        cut += database.sql(sql).expect("an answer").parse::<usize>().expect("a number");
    }
    cut
}

/// One dies while its key signs, and nobody asks again: the others go on behind its nonce, and its next start signs.
#[test]
fn what_a_dead_signer_has_reserved_is_signed_by_its_next_start() {
    let (anvil, database, kms) = (Anvil::start(), PostgresServer::shared().database(), Kms::shared());
    let key = kms.create_key();
    let address = kms.identity(&key).address;
    let in_kms = || {
        let home = home(&format!("{:?}", database.url()), Some(&anvil.url), "");
        let text = std::fs::read_to_string(home.path("keygate.toml")).expect("a file");
        let kms = format!("kms = {{ key_id = {:?}, endpoint = {:?} }}", key.arn, kms.url);
        home.config(&text.replace("local = { path = \"state/dev.key\" }", &kms));
        home
    };
    let mut fleet = Fleet::of(vec![in_kms(), in_kms()], address);
    anvil.fund(&fleet.address);
    let mut first = fleet.signers.remove(0);
    kms.slow(&key, 20.0);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&fleet.homes[0], "a", &json!({}), "?send=true"));
        wait_until(SOON, "KMS is asked to sign", || (kms.calls(&key, "Sign") > 0).then_some(()));
        first.kill9();
        assert!(asking.join().expect("a thread").is_none(), "nobody answers");
    });
    assert_eq!(fleet.pay(1, "b", &json!({}), "?send=true").json()["nonce"], 1);
    let token = format!("Authorization: Bearer {TOKEN}");
    let of_a = || super::ask(&fleet.homes[1], "/v1/keys/hot-wallet/transactions/a", &["-H", &token]).json();
    assert_eq!((&of_a()["state"], &of_a()["nonce"]), (&json!("pending"), &json!(0)));
    let _again = listening(fleet.homes[0].start("signer"));
    wait_until(SOON, "what was reserved is signed", || (of_a()["state"] == "signed").then_some(()));
    wait_until(SOON, "both are mined", || {
        let count = anvil.ask("eth_getTransactionCount", &json!([fleet.address, "latest"]));
        (count == "0x2").then_some(())
    });
    fleet.verify();
}

/// The docs' roles: the signer's own is allowed what it needs, and cannot take back what was signed.
#[test]
fn the_documented_role_is_enough_and_no_more() {
    let database = PostgresServer::shared().database();
    let role = format!("role_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")).expect("a role");
    let ledger = format!("{:?}", database.url_as(&role));
    let limits = "replacements = { max = 1 }";
    drop(Fleet::start(1, &ledger, None, limits));

    let docs = include_str!("../../docs/ledger.md");
    let (_, sql) = docs.split_once("```sql\n-- roles").expect("the roles are documented");
    let (sql, _) = sql.split_once("```").expect("an end");
    let owner = format!("owner_{}", database.name);
    // First the longer name, which the shorter one is a part of.
    let sql = format!("-- roles{sql}").replace("keygate_owner", &owner);
    let sql = sql.replace("TO keygate;", &format!("TO {role};")).replace("FROM keygate", &format!("FROM {role}"));
    let sql = sql.replace("OWNED BY keygate TO", &format!("OWNED BY {role} TO"));
    database.sql(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));

    let fleet = Fleet::start(1, &ledger, None, limits);
    for n in 0..3 {
        let answer = fleet.pay(0, &n.to_string(), &json!({ "nonce": n }), "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    fleet.verify();
    for forbidden in [
        "DELETE FROM audit",
        "UPDATE audit SET entry = '{}'",
        "TRUNCATE audit",
        "DELETE FROM statements",
        "UPDATE statements SET kind = ''",
        "ALTER TABLE audit DISABLE TRIGGER USER",
        "DROP TABLE audit",
        "CREATE TABLE more (x INT)",
    ] {
        let denied = database.sql(&format!("SET ROLE {role}; {forbidden}")).expect_err(forbidden);
        assert!(denied.contains("permission denied") || denied.contains("must be owner"), "{forbidden}: {denied}");
    }
    for guarded in ["DELETE FROM transactions", "UPDATE transactions SET raw = '', hash = hash"] {
        let denied = database.sql(&format!("SET ROLE {role}; {guarded}")).expect_err(guarded);
        assert!(denied.contains("neither changes nor goes"), "{guarded}: {denied}");
    }
}
