use super::*;

#[tokio::test]
async fn refuses_to_start_when_anything_is_not_as_it_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.key");
    let address = local_keys(dir.path());
    let start = |more: String| {
        let config = config(dir.path(), &more);
        async move {
            let signer = Signer::start(&config).await.map_err(|error| error.to_string())?;
            signer.serve(std::future::ready(())).await;
            Ok::<_, String>(())
        }
    };
    let pinned = |address: &str| {
        let cold = "[signer.keys.cold]\nlocal = { path = \"cold.key\" }";
        format!("{cold}\n[signer.keys.hot]\nlocal = {{ path = \"dev.key\" }}\naddress = \"{address}\"")
    };
    assert_eq!(start(pinned(&address.to_string())).await, Ok(()));
    let error = start(pinned(TO)).await.unwrap_err();
    assert!(error.contains("\"hot\"") && error.contains(TO) && error.contains(&address.to_string()), "{error}");

    let mut not_allowed = config(dir.path(), LOCAL);
    not_allowed.allow_local_keys = false;
    assert!(matches!(Signer::start(&not_allowed).await, Err(StartError::Key { .. })));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("mode 0644"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();

    let same = format!("again = {{ token_file = \"payments\", keys = [], policy = \"payouts\" }}\n{LOCAL}");
    assert!(start(same).await.unwrap_err().contains("same token"));

    // A socket that somebody serves, one that somebody left, and a file that is none.
    let socket = dir.path().join("run/s.sock");
    let alive = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("something listens"));
    drop(alive);
    assert!(socket.exists());
    let signer = Signer::start(&config(dir.path(), LOCAL)).await.unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    signer.serve(std::future::ready(())).await;
    assert!(!socket.exists());
    std::fs::write(&socket, "precious").unwrap();
    assert!(start(LOCAL.into()).await.unwrap_err().contains("no socket"));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn one_key_has_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let address = local_keys(dir.path()).to_string();
    // Another file, and the same key.
    std::fs::copy(dir.path().join("dev.key"), dir.path().join("cold.key")).unwrap();
    let error = Signer::start(&config(dir.path(), LOCAL)).await.unwrap_err().to_string();
    assert!(["\"cold\"", "\"hot\"", "same key", &address].iter().all(|word| error.contains(word)), "{error}");
    assert!(crate::load_keys(&config(dir.path(), LOCAL)).await.is_err());
}

#[tokio::test]
async fn a_renamed_key_signs_nothing_twice_and_a_replaced_one_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let start = async |dir: tempfile::TempDir, change: fn(&mut keygate_config::Signer)| {
        let mut config = config(dir.path(), LOCAL);
        change(&mut config);
        let names = config.keys.keys().map(|name| keygate_config::At { span: 0..0, value: name.clone() }).collect();
        config.callers.get_mut("payments").unwrap().value.keys = names;
        let signer = Signer::start(&config).await.unwrap();
        serve(dir, signer)
    };
    let running = start(dir, |_| {}).await;
    let first = running.sign("a", &tx(1000)).await;
    assert_eq!(first.status, 200);

    let renamed = |config: &mut keygate_config::Signer| {
        let hot = config.keys.remove("hot").unwrap();
        config.keys.insert("warm".to_owned(), hot);
    };
    let running = start(running.stop().await, renamed).await;
    let again = running.send(post_with("warm", &[("idempotency-key", "a")], &tx(1000))).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let mut other = tx(1000);
    other["nonce"] = json!(8);
    let other = running.send(post_with("warm", &[("idempotency-key", "a")], &other)).await;
    is_problem(&other, 409, "idempotency-conflict");
    let found = running.get("/v1/keys/warm/transactions/a").await;
    assert_eq!(found.body["raw"], first.body["raw"]);
    assert_eq!(running.send(post_with("warm", &[("idempotency-key", "b")], &tx(1000))).await.status, 200);
    let spent = running.send(post_with("warm", &[("idempotency-key", "c")], &tx(1))).await;
    assert_eq!(spent.body["rule"], "daily_value");

    // The name is another key's: what was asked for under it is not signed by that one.
    let dir = running.stop().await;
    create_local_key(&dir.path().join("new.key")).unwrap();
    let replaced = |config: &mut keygate_config::Signer| {
        let path = &mut config.keys.get_mut("hot").unwrap().value.local.as_mut().unwrap().path;
        *path = path.with_file_name("new.key");
    };
    let running = start(dir, replaced).await;
    is_problem(&running.sign("a", &tx(1000)).await, 409, "idempotency-conflict");
    let found = running.get("/v1/keys/hot/transactions/a").await;
    assert_eq!((&found.body["raw"], &found.body["from"]), (&first.body["raw"], &first.body["from"]));
    running.stop().await;
}

#[tokio::test]
async fn of_two_signers_one_has_the_ledger_and_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let with = |ledger: &str, listen: &str| {
        let mut config = config(dir.path(), LOCAL);
        config.ledger.value = keygate_config::Ledger::Sqlite(dir.path().join(ledger));
        if let keygate_config::OneOrMany::One(one) = &mut config.listen {
            one.value = keygate_config::SignerAddress::Unix(dir.path().join(listen));
        }
        async move { Signer::start(&config).await }
    };
    let first = serve(tempfile::tempdir().unwrap(), with("run/ledger.db", "run/s.sock").await.unwrap());
    let error = with("run/ledger.db", "run/other.sock").await.unwrap_err().to_string();
    assert!(error.contains("run/ledger.db: ") && error.contains("another process has it"), "{error}");
    // It is the same ledger under another name.
    std::os::unix::fs::symlink(dir.path().join("run/ledger.db"), dir.path().join("linked.db")).unwrap();
    let error = with("linked.db", "run/other.sock").await.unwrap_err().to_string();
    assert!(error.contains("linked.db: ") && error.contains("run/ledger.db.lock"), "{error}");
    assert!(!dir.path().join("run/other.sock").exists());

    // Even before the first listens: it is about to.
    let held = crate::lock::Lock::of(&dir.path().join("run/other.sock")).unwrap();
    let error = with("run/other.db", "run/other.sock").await.unwrap_err().to_string();
    assert!(error.contains("run/other.sock: something listens"), "{error}");
    drop(held);
    let second = serve(tempfile::tempdir().unwrap(), with("run/other.db", "run/other.sock").await.unwrap());

    // Nobody has lost anything.
    for socket in ["run/s.sock", "run/other.sock"] {
        let reply = send(dir.path().join(socket), post("a", &tx(1))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    first.stop().await;
    second.stop().await;
    let again = serve(tempfile::tempdir().unwrap(), with("run/ledger.db", "run/s.sock").await.unwrap());
    again.stop().await;
}

#[tokio::test]
async fn no_secret_is_printed() {
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.key");
    local_keys(dir.path());
    let signer = Signer::start(&config(dir.path(), LOCAL)).await.unwrap();
    let secret = hex::decode(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
    let printed = [format!("{signer:?}"), format!("{signer:#?}")].concat().replace(char::is_whitespace, "");
    assert!(printed.contains("payments") && printed.contains("Local(..)"), "{printed}");
    for secret in [secret.as_slice(), &sha2::Sha256::digest(TOKEN), TOKEN.as_bytes()] {
        let bytes = format!("{:?}", &secret[..8]).replace(' ', "");
        let bytes = bytes.trim_matches(['[', ']']);
        assert!(!printed.contains(bytes) && !printed.contains(&hex::encode(&secret[..8])), "{bytes} {printed}");
    }
    assert!(!printed.contains(TOKEN));
    signer.serve(std::future::ready(())).await;
}
