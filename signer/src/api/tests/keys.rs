//! Keys that cannot sign, or not so often: what callers and operators are told.

use super::*;
use crate::key::fake_kms::load;

#[tokio::test]
async fn health_says_which_key_cannot_sign_and_signs_nothing_to_find_out() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    assert_eq!(running.get("/health").await.body, json!({"status": "ok", "keys": {"hot": {"ready": true}}}));
    kms.plan([Turn::Error("DisabledException")]);
    is_problem(&running.sign("a", &tx(1)).await, 502, "key-unusable");
    let signs = kms.signs();
    let reply = running.get("/health").await;
    is_problem(&reply, 503, "key-not-ready");
    assert_eq!(reply.body["keys"], json!({"hot": {"ready": false}}));
    let detail = reply.body["detail"].as_str().unwrap();
    assert!(detail.contains("\"hot\"") && detail.contains("DisabledException"), "{detail}");
    assert_eq!(kms.signs(), signs);
    assert_eq!(running.sign("a", &tx(1)).await.status, 200);
    assert_eq!(running.get("/health").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_key_that_is_left_alone_is_said_to_come_back() {
    let (running, kms) = with_kms(Duration::from_secs(20)).await;
    kms.plan(vec![Turn::Status(503); 100]);
    let reply = loop {
        let reply = running.sign("a", &tx(1)).await;
        if reply.status == 503 {
            break reply;
        }
        is_problem(&reply, 502, "key-unreachable");
    };
    is_problem(&reply, 503, "key-unavailable");
    assert_eq!(reply.headers["retry-after"], "1");
    let health = running.get("/health").await;
    is_problem(&health, 503, "key-not-ready");
    let metrics = running.get("/metrics").await.body;
    for line in [
        "keygate_signer_kms_breaker{key=\"hot\",region=\"eu-west-1\"} 2",
        "keygate_signer_kms_errors_total{error=\"unreachable\",key=\"hot\",region=\"eu-west-1\"} 10",
        "keygate_signer_kms_queue{key=\"hot\"} 0",
        // The public key's, at start, too.
        "keygate_signer_kms_seconds_count{key=\"hot\",region=\"eu-west-1\"} 11",
        "keygate_signer_kms_queue_seconds_count{key=\"hot\"} 10",
        "keygate_signer_key_errors_total{error=\"unavailable\",key=\"hot\"} 1",
    ] {
        assert!(metrics.as_str().unwrap().lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_floods_a_key_does_not_keep_another_out() {
    let kms = FakeKms::start().await;
    let dir = tempfile::tempdir().unwrap();
    let key = load(&format!("endpoint = \"{}\", rate = 2, queue = 8, timeout = \"60s\"", kms.endpoint)).await.unwrap();
    let signer = Signer::with_keys(&config(dir.path(), LOCAL), [("hot".to_owned(), Arc::new(key))].into()).unwrap();
    let running = serve(dir, signer);
    let flood: Vec<_> = (0..30).map(|n| tokio::spawn(running.sign(&format!("flood-{n}"), &tx(1)))).collect();
    // As many as may wait do, and the others were sent away.
    while flood.iter().filter(|one| !one.is_finished()).count() > 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let token = [("authorization", "Bearer a-third-long-token"), ("idempotency-key", "other")];
    let mut other = tx(1);
    other["nonce"] = json!(8);
    let reply = running.send(post_with("hot", &token, &other)).await;
    assert_eq!(reply.status, 200);
    let before = kms.signs();
    assert!(before < 8, "{before}");
    let mut busy = 0;
    for (n, one) in flood.into_iter().enumerate() {
        let reply = one.await.unwrap();
        if reply.status != 200 {
            is_problem(&reply, 503, "key-busy");
            let seconds: u32 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=4).contains(&seconds), "{seconds}");
            // Nothing of it stays reserved.
            is_problem(&running.get(&format!("/v1/keys/hot/transactions/flood-{n}")).await, 404, "not-found");
            busy += 1;
        }
    }
    assert!((20..=22).contains(&busy), "{busy}");
    assert_eq!(kms.signs(), 30 - busy + 1);
    running.stop().await;
}
