//! `examples/hot-wallet`: a payment gateway's signer.

use crate::support::Home;

fn example() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hot-wallet/keygate.toml");
    std::fs::read_to_string(path).expect("the example")
}

/// A folder with what the example names.
fn home(toml: &str) -> Home {
    let home = Home::new(toml);
    for (name, text) in [
        ("payments.token", "a-token-of-the-payments-service-..."),
        ("treasury.token", "a-token-of-those-who-approve-......"),
        ("polygon.rpc", "https://polygon.example/v2/key\n"),
        ("ethereum.rpc", "https://ethereum.example/v2/key\n"),
        ("ledger.password", "password\n"),
    ] {
        home.secret(&format!("secrets/{name}"), text);
    }
    home
}

/// As it is, and with what its comments have instead.
#[test]
fn check_accepts_it() {
    let toml = example();
    let sqlite = "ledger = \"sqlite:state/ledger.db\"\n";
    let shared = toml.lines().find_map(|line| line.strip_prefix("# ledger = ")).expect("PostgreSQL");
    assert!(toml.contains(sqlite) && shared.contains("postgres://"));
    for toml in [toml.clone(), toml.replacen(sqlite, &format!("ledger = {shared}\n"), 1)] {
        let checked = home(&toml).run(["check"]);
        assert_eq!(checked.success(), "keygate.toml: ok\n", "{}", checked.output());
    }
}

/// Its policies say of requests what its comments say.
#[test]
fn its_policies_are_what_it_says() {
    const USDC: &str = "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359";
    let home = home(&example());
    let verdict = |caller: &str, to: &str, value: &str, data: &str, nonce: Option<u64>| {
        let mut request = serde_json::json!({
            "chainId": 137, "type": 2, "to": to, "value": value, "data": data,
            "gas": 100_000, "maxFeePerGas": "100000000000", "maxPriorityFeePerGas": "30000000000",
        });
        if let Some(nonce) = nonce {
            request["nonce"] = nonce.into();
        }
        home.write("request.json", request.to_string());
        let at = ["--at", "2026-03-02T09:30:00Z"];
        let command = ["signer", "check-policy", "--caller", caller, "--key", "hot-wallet"];
        home.run(command.iter().chain(&at).chain(&["request.json"])).output()
    };
    let transfer = |to: &str, amount: u64| format!("0xa9059cbb{:0>64}{amount:064x}", &to[2..]);
    let (cold, buyer) = ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x00000000000000000000000000000000000000b1");
    for (caller, to, value, data, says) in [
        ("payments", USDC, "0", transfer(buyer, 999_000_000), "allowed by policy \"payouts\""),
        ("payments", USDC, "0", transfer(buyer, 1_001_000_000), "held until approved by one of treasury"),
        ("payments", USDC, "0", transfer(buyer, 10_001_000_000), "denied by policy \"payouts\": tokens"),
        ("payments", buyer, "1", "0x".to_owned(), "denied by policy \"payouts\": max_value"),
        ("payments", buyer, "0", transfer(buyer, 1), "denied by policy \"payouts\": tokens"),
        ("sweeper", USDC, "0", transfer(cold, 50_000_000_000), "allowed by policy \"sweep\""),
        ("sweeper", USDC, "0", transfer(buyer, 1), "denied by policy \"sweep\": to"),
        ("treasury", USDC, "0", transfer(buyer, 1), "denied: keys"),
    ] {
        let said = verdict(caller, to, value, &data, None);
        assert!(said.contains(says), "{caller} {data}: {said}");
    }
    // With `rpc`, keygate chooses nonces; without it, callers must.
    let good = || transfer(buyer, 1);
    assert!(verdict("payments", USDC, "0", &good(), Some(0)).contains("denied by policy \"payouts\": allow_nonce"));
    let text = example().replace("rpc_file", "# rpc_file");
    home.write("keygate.toml", text);
    assert!(verdict("payments", USDC, "0", &good(), Some(0)).contains("allowed"));
    assert!(verdict("payments", USDC, "0", &good(), None).contains("nonce: missing"));
}
