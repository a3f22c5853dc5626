//! A KMS and a ledger that fail: nothing is lost, nothing is paid twice.

use super::*;

#[tokio::test]
async fn a_key_that_refuses_frees_the_name_and_the_allowance() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    kms.plan([Turn::Error("AccessDeniedException")]);
    is_problem(&running.sign("a", &tx(1000)).await, 502, "key-access-denied");
    kms.plan(vec![Turn::Error("ThrottlingException"); 6]);
    let reply = running.sign("a", &tx(999)).await;
    is_problem(&reply, 503, "key-throttled");
    assert_eq!(reply.headers["retry-after"], "1");
    kms.plan([Turn::Error("DisabledException")]);
    is_problem(&running.sign("a", &tx(998)).await, 502, "key-unusable");
    is_problem(&running.get("/v1/keys/hot/transactions/a").await, 404, "not-found");
    assert_eq!(running.sign("b", &tx(1000)).await.status, 200);
    assert_eq!(running.sign("c", &tx(1000)).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_keeps_its_reservation() {
    let (running, kms) = with_kms(Duration::from_millis(500)).await;
    kms.plan(vec![Turn::Slowly(Duration::from_secs(60)); 9]);
    is_problem(&running.sign("a", &tx(1000)).await, 504, "key-timed-out");
    kms.turns.lock().unwrap().clear();
    kms.plan([Turn::OtherKey]);
    is_problem(&running.sign("b", &tx(1000)).await, 502, "key-bad-answer");
    let pending = running.get("/v1/keys/hot/transactions/a").await.body;
    assert_eq!(
        (&pending["state"], &pending["nonce"], &pending["chainId"]),
        (&json!("pending"), &json!(7), &json!(137))
    );
    is_problem(&running.sign("a", &tx(999)).await, 409, "idempotency-conflict");
    assert_eq!(running.sign("c", &tx(1)).await.body["rule"], "daily_value", "both still count");

    // A later refusal does not make the earlier outcome known.
    kms.plan([Turn::Error("AccessDeniedException")]);
    is_problem(&running.sign("a", &tx(1000)).await, 502, "key-access-denied");
    is_problem(&running.sign("a", &tx(999)).await, 409, "idempotency-conflict");

    // A restart in between changes nothing; a retry signs the same transaction.
    let dir = running.stop().await;
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let signer = Signer::with_keys(&config(dir.path(), LOCAL), [("hot".to_owned(), key)].into()).unwrap();
    let running = serve(dir, signer);
    for name in ["a", "b"] {
        assert_eq!(running.sign(name, &tx(1000)).await.status, 200);
    }
    assert_eq!(running.sign("c", &tx(1)).await.body["rule"], "daily_value");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_signs() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    kms.plan([Turn::Slowly(Duration::from_millis(200))]);
    let requests: Vec<_> = (0..20).map(|_| tokio::spawn(running.sign("a", &tx(1000)))).collect();
    let mut bodies = Vec::new();
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!(reply.status, 200);
        bodies.push(reply.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(kms.signs(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_and_a_shutdown_stop_nothing() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    kms.plan(vec![Turn::Slowly(Duration::from_millis(300)); 2]);
    let gone = tokio::time::timeout(Duration::from_millis(100), running.sign("gone", &tx(1))).await;
    assert!(gone.is_err());
    let waits = tokio::spawn(running.sign("waits", &tx(1)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let dir = running.stop().await;
    assert_eq!(waits.await.unwrap().status, 200);
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let signer = Signer::with_keys(&config(dir.path(), LOCAL), [("hot".to_owned(), key)].into()).unwrap();
    let running = serve(dir, signer);
    assert_eq!(running.get("/v1/keys/hot/transactions/gone").await.body["state"], "signed");
    assert_eq!(kms.signs(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_keeps_its_place_until_its_request_has_ended() {
    let kms = FakeKms::start().await;
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let mut signer = Signer::with_keys(&config(dir.path(), LOCAL), [("hot".to_owned(), key)].into()).unwrap();
    signer.limits = crate::api::listen::Limits::with_connections(1);
    let running = serve(dir, signer);
    kms.plan([Turn::Slowly(Duration::from_secs(1))]);
    let gone = tokio::spawn(running.sign("gone", &tx(1)));
    while kms.signs() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gone.abort();
    let waits = tokio::time::timeout(Duration::from_millis(300), running.get("/v1/keys")).await;
    assert!(waits.is_err(), "{waits:?}");
    // Only so long: then it is told so, and health and metrics are served all the same.
    let reply = running.get("/v1/keys/hot/transactions/gone").await;
    is_problem(&reply, 503, "busy");
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(running.get("/health").await.status, 200);
    assert!(running.get("/metrics").await.body.as_str().unwrap().contains("keygate_signer_"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(running.get("/v1/keys/hot/transactions/gone").await.body["state"], "signed");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_with_one_name_share_one_attempt_and_leave_places_for_others() {
    let (running, kms) = with_kms(Duration::from_secs(4)).await;
    kms.plan(vec![Turn::Slowly(Duration::from_secs(60)); 9]);
    let start = std::time::Instant::now();
    let first = tokio::spawn(running.sign("a", &tx(1000)));
    while kms.signs() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let more: Vec<_> = (0..600).map(|_| tokio::spawn(running.sign("a", &tx(1000)))).collect();
    let mut crowded = 0;
    for reply in more {
        let reply = reply.await.unwrap();
        if reply.status == 503 {
            is_problem(&reply, 503, "request-in-flight");
            assert_eq!(reply.headers["retry-after"], "1");
            crowded += 1;
        } else {
            is_problem(&reply, 504, "key-timed-out");
        }
    }
    is_problem(&first.await.unwrap(), 504, "key-timed-out");
    assert!((500..600).contains(&crowded), "{crowded}");
    assert!(start.elapsed() < Duration::from_secs(20), "one deadline for all: {:?}", start.elapsed());
    // As often as one request tries, and no more.
    assert!(kms.signs() <= 6, "{}", kms.signs());
    // Another body under a name that is being worked on is another's at once.
    kms.turns.lock().unwrap().clear();
    kms.plan([Turn::Slowly(Duration::from_millis(500))]);
    let (signs, one) = (kms.signs(), tokio::spawn(running.sign("a", &tx(1000))));
    while kms.signs() == signs {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_problem(&running.sign("a", &tx(999)).await, 409, "idempotency-conflict");
    assert!(!one.is_finished());
    assert_eq!(one.await.unwrap().status, 200);
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_reserved() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    // The first holds up the ledger's thread with a lock, until the other's client has gone.
    let other = rusqlite::Connection::open(running.dir.path().join("run/ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = tokio::spawn(running.sign("first", &tx(1)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let gone = tokio::time::timeout(Duration::from_millis(300), running.sign("gone", &tx(1))).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_problem(&running.get("/v1/keys/hot/transactions/gone").await, 404, "not-found");
    assert_eq!(kms.signs(), 1);
    let metrics = running.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains("requests_total{outcome=\"abandoned\"} 1"), "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_that_fails_gives_nothing_out() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    let first = running.sign("before", &tx(1)).await;
    kms.plan([Turn::Slowly(Duration::from_millis(300))]);
    let waits = tokio::spawn(running.sign("during", &tx(1)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let other = rusqlite::Connection::open(running.dir.path().join("run/ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reply = waits.await.unwrap();
    is_problem(&reply, 503, "ledger-unavailable");
    assert!(reply.headers.contains_key("retry-after") && reply.body.get("raw").is_none());
    assert_eq!(running.sign("before", &tx(1)).await.body, first.body, "what is stored can still be read");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(running.sign("during", &tx(1)).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_whose_file_has_gone_gives_nothing_out() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    let first = running.sign("before", &tx(1)).await;
    assert_eq!(first.status, 200);
    let (path, away) = (running.dir.path().join("run/ledger.db"), running.dir.path().join("run/away.db"));
    kms.plan([Turn::Slowly(Duration::from_millis(300))]);
    let waits = tokio::spawn(running.sign("during", &tx(1)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::rename(&path, &away).unwrap();
    let reply = waits.await.unwrap();
    is_problem(&reply, 503, "ledger-unavailable");
    assert!(reply.body.get("raw").is_none());
    let signs = kms.signs();
    is_problem(&running.sign("after", &tx(1)).await, 503, "ledger-unavailable");
    is_problem(&running.get("/health").await, 503, "ledger-unavailable");
    // Another in its place is not the one either.
    std::fs::copy(&away, &path).unwrap();
    is_problem(&running.sign("after", &tx(1)).await, 503, "ledger-unavailable");
    assert_eq!(kms.signs(), signs);
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(running.get("/health").await.status, 200);
    for (name, replayed) in [("before", true), ("during", false), ("after", false)] {
        let reply = running.sign(name, &tx(1)).await;
        assert_eq!((reply.status.as_u16(), reply.headers.contains_key("idempotent-replayed")), (200, replayed));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_reservation_that_moves_to_another_policy_is_not_a_fresh_one() {
    let (running, kms) = with_kms(Duration::from_millis(500)).await;
    kms.plan(vec![Turn::Slowly(Duration::from_secs(60)); 9]);
    is_problem(&running.sign("a", &tx(1000)).await, 504, "key-timed-out");
    let dir = running.stop().await;
    // Its outcome is unknown, whatever policy the caller has by now, and a later refusal does not make it known.
    kms.turns.lock().unwrap().clear();
    // Once for the start, which tries to sign what is reserved, and once for the caller.
    kms.plan([Turn::Error("AccessDeniedException"), Turn::Error("AccessDeniedException")]);
    let mut config = config(dir.path(), LOCAL);
    let payouts = config.policies["payouts"].clone();
    config.policies.insert("renamed".to_owned(), payouts);
    config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "renamed".to_owned();
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let signer = Signer::with_keys(&config, [("hot".to_owned(), key)].into()).unwrap();
    let running = serve(dir, signer);
    is_problem(&running.sign("a", &tx(1000)).await, 502, "key-access-denied");
    while !kms.turns.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.get("/v1/keys/hot/transactions/a").await.body["state"], "pending");
    is_problem(&running.sign("a", &tx(999)).await, 409, "idempotency-conflict");
    assert_eq!(running.sign("b", &tx(1000)).await.status, 200);
    assert_eq!(running.sign("c", &tx(1)).await.body["rule"], "daily_value", "it still counts");
    assert_eq!(running.sign("a", &tx(1000)).await.status, 200);
    running.stop().await;
}
