use super::*;

#[tokio::test]
async fn signs_once_and_answers_the_same_for_ever() {
    let running = with_local_key().await;
    let first = running.sign("payout/8812%", &tx(1000)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let keys = running.get("/v1/keys").await;
    assert_eq!(keys.body["keys"].as_array().unwrap().len(), 1, "cold is another's");
    let key = &keys.body["keys"][0];
    assert_eq!(
        (&key["name"], &key["kind"], key["publicKey"].as_str().unwrap().len()),
        (&json!("hot"), &json!("local"), 132)
    );
    assert_eq!(first.body["from"], key["address"]);
    assert_eq!((&first.body["nonce"], &first.body["chainId"]), (&json!(7), &json!(137)));
    let fields: Vec<_> = first.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["chainId", "from", "hash", "nonce", "r", "raw", "s", "yParity"]);
    assert!(first.body["raw"].as_str().unwrap().starts_with("0x02f8"));
    assert_eq!((first.body["r"].as_str().unwrap().len(), first.body["s"].as_str().unwrap().len()), (66, 66));
    assert!(!first.headers.contains_key("idempotent-replayed"));

    // The same request, written otherwise.
    let mut same = tx(1000);
    same["value"] = json!("0x3e8");
    same["data"] = json!("0x");
    same["accessList"] = json!([]);
    let again = running.sign("payout/8812%", &same).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &first.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    is_problem(&running.sign("payout/8812%", &tx(999)).await, 409, "idempotency-conflict");

    let stored = running.get("/v1/keys/hot/transactions/payout%2F8812%25").await;
    let mut expected = first.body.clone();
    expected["state"] = json!("signed");
    assert_eq!((stored.status, &stored.body), (StatusCode::OK, &expected));
    is_problem(&running.get("/v1/keys/hot/transactions/none").await, 404, "not-found");
    // Another caller's names are its own.
    let other = [("authorization", "Bearer a-third-long-token")];
    let path = "/v1/keys/hot/transactions/payout%2F8812%25";
    is_problem(&running.send(request(Method::GET, path, &other, "")).await, 404, "not-found");

    let dir = running.stop().await;
    assert!(!dir.path().join("run/s.sock").exists());
    let signer = Signer::start(&config(dir.path(), LOCAL)).await.unwrap();
    let running = serve(dir, signer);
    assert_eq!(running.sign("payout/8812%", &tx(1000)).await.body, first.body, "after a restart too");
    running.stop().await;
}

#[tokio::test]
async fn nobody_is_allowed_anything_by_default() {
    let running = with_local_key().await;
    let sign = |headers: &[(&str, &str)]| running.send(post_with("hot", headers, &tx(1)));
    for authorization in ["Bearer wrong-token-but-long", "Bearer ", "Basic YTpi", TOKEN, "Bearer a-token-that-is-long"]
    {
        let reply = sign(&[("idempotency-key", "a"), ("authorization", authorization)]).await;
        is_problem(&reply, 401, "unauthenticated");
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
    }
    // No token, and a user id that no caller has.
    let bare = request(Method::POST, "/v1/keys/hot/transactions", &[("idempotency-key", "a")], "{}");
    is_problem(&running.send(bare).await, 401, "unauthenticated");
    is_problem(&running.send(request(Method::GET, "/v1/keys", &[], "")).await, 401, "unauthenticated");
    // A caller without a policy.
    let reply = sign(&[("idempotency-key", "a"), ("authorization", "Bearer another-long-enough-token")]).await;
    is_problem(&reply, 403, "policy-denied");
    assert_eq!(reply.body["rule"], "policy");
    // Another's key, and none at all, look alike.
    let cold = running.send(post_with("cold", &[("idempotency-key", "a")], &tx(1))).await;
    let none = running.send(post_with("none", &[("idempotency-key", "a")], &tx(1))).await;
    is_problem(&cold, 403, "key-not-allowed");
    assert_eq!(cold.body["detail"], none.body["detail"]);
    is_problem(&running.get("/v1/keys/cold/transactions/a").await, 403, "key-not-allowed");
    running.stop().await;
}

#[tokio::test]
async fn a_user_id_is_a_caller_too() {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let uid = rustix::process::geteuid().as_raw();
    let more = format!("local-user = {{ uid = {uid}, keys = [\"cold\"], policy = \"payouts\" }}\n{LOCAL}");
    let signer = Signer::start(&config(dir.path(), &more)).await.unwrap();
    let running = serve(dir, signer);
    let keys = running.send(request(Method::GET, "/v1/keys", &[], "")).await;
    assert_eq!(keys.body["keys"][0]["name"], "cold");
    // A token that is shown counts, and no other proof with it.
    let wrong = [("authorization", "Bearer wrong-token-but-long")];
    is_problem(&running.send(request(Method::GET, "/v1/keys", &wrong, "")).await, 401, "unauthenticated");
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let running = with_local_key().await;
    let one = &[("idempotency-key", "a")][..];
    let long = "x".repeat(256);
    for (headers, status, kind) in [
        (&[][..], 400, "bad-request"),
        (&[("idempotency-key", "")], 400, "bad-request"),
        (&[("idempotency-key", "a b")], 400, "bad-request"),
        (&[("idempotency-key", long.as_str())], 400, "bad-request"),
        (&[("idempotency-key", "a"), ("idempotency-key", "b")], 400, "bad-request"),
        (&[("idempotency-key", "a"), ("content-encoding", "gzip")], 415, "unsupported-media-type"),
    ] {
        is_problem(&running.send(post_with("hot", headers, &tx(1))).await, status, kind);
    }
    let mut misspelt = tx(1);
    misspelt["gasLimit"] = json!(1);
    let reply = running.send(post_with("hot", one, &misspelt)).await;
    is_problem(&reply, 400, "invalid-transaction");
    assert_eq!(reply.body["field"], "gasLimit");
    let mut large = tx(1);
    large["data"] = json!(format!("0x{}", "00".repeat(100_000)));
    is_problem(&running.send(post_with("hot", one, &large)).await, 413, "body-too-large");

    let bearer = format!("Bearer {TOKEN}");
    let plain = [("idempotency-key", "a"), ("authorization", &bearer), ("content-type", "text/plain")];
    let reply = running.send(request(Method::POST, "/v1/keys/hot/transactions", &plain, "{}")).await;
    is_problem(&reply, 415, "unsupported-media-type");
    is_problem(&running.get("/v1/keys/hot/transactions").await, 405, "method-not-allowed");
    is_problem(&running.get("/v1/other").await, 404, "not-found");
    is_problem(&running.get("/v1/keys/%ff/transactions/a").await, 400, "bad-request");

    for (change, rule) in [
        (("chainId", json!(1)), "chains"),
        (("to", json!("0x2222222222222222222222222222222222222222")), "to"),
        (("value", json!(1001)), "max_value"),
        (("gas", json!(100_000_000)), "max_fee"),
    ] {
        let mut denied = tx(1);
        denied[change.0] = change.1;
        let reply = running.send(post_with("hot", one, &denied)).await;
        is_problem(&reply, 403, "policy-denied");
        assert_eq!(reply.body["rule"], rule);
    }
    // What was denied took no name and no allowance.
    assert_eq!(running.sign("a", &tx(1000)).await.status, 200);
    assert_eq!(running.sign("b", &tx(1000)).await.status, 200);
    let reply = running.sign("c", &tx(1)).await;
    is_problem(&reply, 403, "policy-denied");
    assert_eq!(reply.body["rule"], "daily_value");

    assert_eq!(
        running.get("/health").await.body,
        json!({"status": "ok", "keys": {"cold": {"ready": true}, "hot": {"ready": true}}})
    );
    let metrics = running.get("/metrics").await.body;
    for line in [
        "keygate_signer_window_limit{asset=\"native\",chain=\"polygon\",key=\"hot\",policy=\"payouts\",seconds=\"86400\"} 2000",
        "keygate_signer_window_spent{asset=\"native\",chain=\"polygon\",key=\"hot\",policy=\"payouts\",seconds=\"86400\"} 2000",
        "keygate_signer_requests_total{outcome=\"signed\"} 2",
        "keygate_signer_requests_total{outcome=\"denied\"} 5",
        "keygate_signer_verdicts_total{rule=\"daily_value\"} 1",
        "keygate_signer_key_seconds_count{key=\"hot\",kind=\"local\"} 2",
    ] {
        assert!(metrics.as_str().unwrap().contains(line), "{line} {metrics}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let running = with_local_key().await;
    let mut stream = UnixStream::connect(running.socket()).await.unwrap();
    let head = format!(
        "POST /v1/keys/hot/transactions HTTP/1.1\r\nhost: signer\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\nidempotency-key: a\r\ncontent-length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reads, mut writes) = stream.into_split();
    let drips = tokio::spawn(async move {
        while writes.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut reply = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), reads.read_to_string(&mut reply)).await;
    assert!(read.is_ok() && reply.starts_with("HTTP/1.1 408 ") && reply.contains("request-timeout"), "{reply}");
    drips.await.unwrap();
    is_problem(&running.get("/v1/keys/hot/transactions/a").await, 404, "not-found");
    running.stop().await;
}
