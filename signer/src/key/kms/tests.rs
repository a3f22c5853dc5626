//! With KMS that fail on demand.

use std::sync::Arc;
use std::time::Duration;

use k256::ecdsa::SigningKey;
use k256::elliptic_curve::rand_core::OsRng;

use crate::key::fake_kms::{FakeKms, Turn, load};
use crate::key::{Key, KeyError, LoadError, Secret};

const LONG: Duration = Duration::from_secs(20);

async fn outcome(timeout: Duration, turns: Vec<Turn>) -> (Result<(), KeyError>, u32) {
    let kms = FakeKms::start().await;
    let key = kms.key(timeout).await.unwrap();
    kms.plan(turns);
    let signed = key.sign(&[5; 32], "a").await.map(|_| ());
    (signed, kms.signs())
}

#[tokio::test]
async fn signs_and_tries_again() {
    assert_eq!(outcome(LONG, vec![]).await, (Ok(()), 1));
    for again in [Turn::Error("ThrottlingException"), Turn::Error("KMSInternalException"), Turn::Status(503)] {
        assert_eq!(outcome(LONG, vec![again.clone(), again.clone()]).await, (Ok(()), 3), "{again:?}");
    }
}

#[tokio::test]
async fn many_at_once_each_try_again() {
    let kms = FakeKms::start().await;
    let key = Arc::new(kms.key(LONG).await.unwrap());
    kms.plan(vec![Turn::Error("ThrottlingException"); 150]);
    let signing: Vec<_> = (0..100)
        .map(|_| {
            let key = Arc::clone(&key);
            tokio::spawn(async move { key.sign(&[5; 32], "a").await.map(|_| ()) })
        })
        .collect();
    for signed in signing {
        assert_eq!(signed.await.unwrap(), Ok(()));
    }
    assert_eq!(kms.signs(), 250);
}

#[tokio::test]
async fn an_attempt_that_hangs_is_given_up() {
    let hang = Turn::Slowly(Duration::from_secs(60));
    assert_eq!(outcome(Duration::from_secs(2), vec![hang]).await, (Ok(()), 2));
}

#[tokio::test]
async fn the_deadline_holds() {
    let start = std::time::Instant::now();
    let timeout = Duration::from_millis(600);
    let hang = Turn::Slowly(Duration::from_secs(60));
    assert_eq!(outcome(timeout, vec![hang; 9]).await.0, Err(KeyError::TimedOut(timeout)));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn failures_have_names_and_tell_no_secrets() {
    let throttled = vec![Turn::Error("ThrottlingException"); 9];
    assert_eq!(outcome(LONG, throttled).await, (Err(KeyError::Throttled), 6));
    let (broken, signs) = outcome(LONG, vec![Turn::Broken; 9]).await;
    assert_eq!((broken.as_ref().unwrap_err().kind(), signs), ("unreachable", 6), "{broken:?}");
    assert!(!broken.unwrap_err().nothing_signed());
    for (turn, kind) in [
        (Turn::Error("AccessDeniedException"), "access-denied"),
        (Turn::Error("DisabledException"), "key-unusable"),
        (Turn::Error("KMSInvalidStateException"), "key-unusable"),
        (Turn::Error("NotFoundException"), "key-unusable"),
        (Turn::Error("NeverHeardOfException"), "other"),
        (Turn::Status(403), "access-denied"),
        (Turn::OtherKey, "bad-answer"),
        (Turn::Bytes(vec![]), "bad-answer"),
        (Turn::Bytes(vec![0x30, 6, 2, 1, 1, 2, 1, 1]), "bad-answer"),
    ] {
        let (result, signs) = outcome(LONG, vec![turn.clone()]).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), signs), (kind, 1), "{turn:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_unreachable() {
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = load(&format!("endpoint = \"http://{unused}\"")).await.unwrap_err();
    assert!(matches!(error, LoadError::Kms(KeyError::Unreachable(_))), "{error:?}");
}

#[tokio::test]
async fn another_kind_of_key_is_refused() {
    let kms = FakeKms::start().await;
    for (spec, usage, named) in
        [("ECC_NIST_P256", "SIGN_VERIFY", "ECC_NIST_P256"), ("ECC_SECG_P256K1", "KEY_AGREEMENT", "KEY_AGREEMENT")]
    {
        *kms.spec.lock().unwrap() = (spec, usage);
        let error = kms.key(LONG).await.unwrap_err();
        assert!(matches!(error, LoadError::WrongKind { .. }) && error.to_string().contains(named), "{error}");
    }
}

/// One key in two regions, the first of which is asked first.
async fn regions(timeout: Duration) -> (Arc<FakeKms>, Arc<FakeKms>, String) {
    let key = SigningKey::random(&mut OsRng);
    let (one, two) = (FakeKms::start_in("eu-central-1", key.clone()).await, FakeKms::start_in("eu-west-1", key).await);
    let fields = format!(
        "regions = [\"eu-central-1\", \"eu-west-1\"], endpoints = [\"{}\", \"{}\"], timeout = \"{}ms\"",
        one.endpoint,
        two.endpoint,
        timeout.as_millis()
    );
    (one, two, fields)
}

fn shut_for(error: &KeyError) -> Duration {
    match error {
        KeyError::Unavailable { retry_after } => *retry_after,
        other => panic!("{other}"),
    }
}

fn kms(key: &Key) -> &super::Kms {
    match &key.secret {
        Secret::Kms(kms) => kms,
        Secret::Local(_) => panic!("a local key"),
    }
}

#[tokio::test]
async fn the_next_region_is_asked_when_one_fails_and_the_first_again_next_time() {
    let (one, two, fields) = regions(LONG).await;
    let key = load(&fields).await.unwrap();
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    assert_eq!((one.signs(), two.signs()), (1, 0));
    let failures =
        [Turn::Error("ThrottlingException"), Turn::Error("KMSInternalException"), Turn::Status(503), Turn::Broken];
    for (n, failure) in (1..).zip(failures) {
        one.plan([failure.clone()]);
        assert!(key.sign(&[5; 32], "a").await.is_ok());
        assert_eq!((one.signs(), two.signs()), (1 + n, n), "{failure:?}");
    }
    // Both fail, and then the first does not.
    one.plan([Turn::Status(503)]);
    two.plan([Turn::Status(503)]);
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    assert_eq!((one.signs(), two.signs()), (7, 5));
}

#[tokio::test]
async fn a_region_that_hangs_leaves_time_for_the_next() {
    let (one, two, fields) = regions(Duration::from_secs(2)).await;
    let key = load(&fields).await.unwrap();
    one.plan([Turn::Slowly(Duration::from_secs(60))]);
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    assert_eq!((one.signs(), two.signs()), (1, 1));
}

/// Who disables a key, or takes leave to use it away, means it.
#[tokio::test]
async fn a_refusal_is_no_reason_to_ask_elsewhere() {
    let (one, two, fields) = regions(LONG).await;
    let key = load(&fields).await.unwrap();
    for turn in [Turn::Error("DisabledException"), Turn::Error("AccessDeniedException"), Turn::OtherKey] {
        one.plan([turn]);
        assert!(key.sign(&[5; 32], "a").await.is_err());
    }
    assert_eq!((one.signs(), two.signs()), (3, 0));
}

/// A refusal says nothing of an attempt before it: what that was for stays reserved.
#[tokio::test]
async fn a_refusal_after_an_unknown_outcome_leaves_it_unknown() {
    let (one, two, fields) = regions(LONG).await;
    let key = load(&fields).await.unwrap();
    for refusal in [Turn::Error("AccessDeniedException"), Turn::Error("DisabledException")] {
        one.plan([Turn::Broken]);
        two.plan([refusal]);
        let error = key.sign(&[5; 32], "a").await.unwrap_err();
        assert!(matches!(error, KeyError::Unreachable(_)) && !error.nothing_signed(), "{error}");
    }
    // Throttling is a refusal, too.
    one.plan([Turn::Status(503), Turn::Error("ThrottlingException"), Turn::Error("ThrottlingException")]);
    two.plan(vec![Turn::Error("ThrottlingException"); 3]);
    assert!(!key.sign(&[5; 32], "a").await.unwrap_err().nothing_signed());
    one.plan([Turn::Error("ThrottlingException")]);
    two.plan([Turn::Error("AccessDeniedException")]);
    assert!(key.sign(&[5; 32], "a").await.unwrap_err().nothing_signed());
}

#[tokio::test]
async fn a_region_that_was_away_at_start_is_verified_before_it_signs() {
    for same in [true, false] {
        let (one, two, fields) = regions(Duration::from_secs(2)).await;
        one.public_turns.lock().unwrap().extend(vec![Turn::Error("KMSInternalException"); 6]);
        let other = FakeKms::start_in("eu-central-1", SigningKey::random(&mut OsRng)).await;
        let fields = if same { fields } else { fields.replace(&one.endpoint, &other.endpoint) };
        other.public_turns.lock().unwrap().extend(vec![Turn::Error("KMSInternalException"); 6]);
        let key = load(&fields).await.unwrap();
        assert!(key.sign(&[5; 32], "a").await.is_ok());
        if same {
            assert_eq!((one.public_keys(), one.signs(), two.signs()), (7, 1, 0));
        } else {
            assert_eq!((other.public_keys(), other.signs(), two.signs()), (7, 0, 1));
            assert!(key.sign(&[5; 32], "a").await.is_ok());
            assert_eq!((other.public_keys(), other.signs(), two.signs()), (7, 0, 2), "it is not asked again");
            assert!(kms(&key).regions[0].trouble(std::time::Instant::now()).unwrap().contains("another key"));
        }
        assert_eq!(kms(&key).trouble(), None, "one region is enough");
    }
}

#[tokio::test]
async fn a_region_that_refuses_the_public_key_is_left_to_the_checks() {
    let (one, two, fields) = regions(LONG).await;
    one.public_turns.lock().unwrap().extend(vec![Turn::Error("AccessDeniedException"); 2]);
    let key = load(&fields).await.unwrap();
    for n in 1..4 {
        assert!(key.sign(&[5; 32], "a").await.is_ok());
        assert_eq!((one.public_keys(), one.signs(), two.signs()), (2, 0, n));
    }
    kms(&key).check().await;
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    assert_eq!((one.signs(), two.signs()), (1, 3));
}

#[tokio::test]
async fn regions_with_different_keys_are_refused() {
    let (one, two, fields) = regions(LONG).await;
    let other = FakeKms::start_in("eu-west-1", SigningKey::random(&mut OsRng)).await;
    let error = load(&fields.replace(&two.endpoint, &other.endpoint)).await.unwrap_err();
    assert!(matches!(error, LoadError::NotOneKey { .. }), "{error}");
    let says = error.to_string();
    assert!(says.contains("eu-central-1: 0x") && says.contains("eu-west-1: 0x"), "{says}");
    drop(one);
}

#[tokio::test]
async fn a_region_that_fails_again_and_again_is_left_alone() {
    let (one, two, fields) = regions(LONG).await;
    let key = load(&fields).await.unwrap();
    one.plan(vec![Turn::Status(500); 100]);
    for _ in 0..20 {
        assert!(key.sign(&[5; 32], "a").await.is_ok());
    }
    assert_eq!((one.signs(), two.signs()), (super::breaker::FAILURES, 20));
    assert_eq!(kms(&key).trouble(), None);
    // With both open, nobody is asked, and nothing is signed.
    two.plan(vec![Turn::Broken; 100]);
    let error = loop {
        match key.sign(&[5; 32], "a").await {
            // Long enough for what follows.
            Err(error @ KeyError::Unavailable { .. }) if shut_for(&error) > Duration::from_millis(500) => break error,
            Err(_) => {}
            Ok(_) => panic!("both fail"),
        }
    };
    assert!(error.nothing_signed());
    let signs = one.signs() + two.signs();
    assert!(matches!(key.sign(&[5; 32], "a").await, Err(KeyError::Unavailable { .. })));
    assert_eq!(one.signs() + two.signs(), signs);
    let trouble = kms(&key).trouble().unwrap();
    assert!(trouble.contains("eu-central-1: ") && trouble.contains("eu-west-1: "), "{trouble}");
    // After the pause one asks, and finds that all is well.
    two.turns.lock().unwrap().clear();
    while key.sign(&[5; 32], "a").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kms(&key).trouble(), None);
}

#[tokio::test]
async fn every_attempt_has_its_turn() {
    let kms = FakeKms::start().await;
    // One at once, and six of which each has a third of a second: more than there is of pauses.
    let key = load(&format!("endpoint = \"{}\", timeout = \"20s\", rate = 3, queue = 1", kms.endpoint)).await.unwrap();
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    let start = std::time::Instant::now();
    kms.plan(vec![Turn::Error("ThrottlingException"); 5]);
    assert!(key.sign(&[5; 32], "a").await.is_ok());
    assert_eq!(kms.signs(), 7);
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn more_than_may_wait_are_told_to_come_back_and_nothing_is_signed() {
    let kms = FakeKms::start().await;
    let key = load(&format!("endpoint = \"{}\", rate = 1, queue = 2", kms.endpoint)).await.unwrap();
    let sign = || key.sign(&[5; 32], "a");
    let (a, b, c, d) = tokio::join!(sign(), sign(), sign(), sign());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(d, Err(KeyError::Busy { retry_after: Duration::from_secs(2) }));
    assert!(d.unwrap_err().nothing_signed());
    assert_eq!(kms.signs(), 3);
}

#[tokio::test]
async fn trouble_is_news_until_it_signs_again() {
    let fake = FakeKms::start().await;
    let key = fake.key(LONG).await.unwrap();
    assert_eq!(kms(&key).trouble(), None);
    for (turn, says) in [(Turn::Error("DisabledException"), "DisabledException"), (Turn::OtherKey, "wrong")] {
        fake.plan([turn]);
        assert!(key.sign(&[5; 32], "a").await.is_err());
        assert!(kms(&key).trouble().unwrap().contains(says), "{:?}", kms(&key).trouble());
        // That the public key can be had says nothing of that.
        kms(&key).check().await;
        assert!(kms(&key).trouble().is_some());
        assert!(key.sign(&[5; 32], "a").await.is_ok());
        assert_eq!(kms(&key).trouble(), None);
    }
    // Without a request, the check finds out, both ways. Throttling says nothing.
    fake.public_turns.lock().unwrap().extend([Turn::Error("DisabledException"), Turn::Error("ThrottlingException")]);
    kms(&key).check().await;
    assert!(kms(&key).trouble().unwrap().contains("DisabledException"));
    kms(&key).check().await;
    assert!(kms(&key).trouble().is_some());
    kms(&key).check().await;
    assert_eq!((kms(&key).trouble(), fake.signs()), (None, 4));
}
