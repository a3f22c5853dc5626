use super::*;
use crate::live::Snapshot;

#[tokio::test]
async fn a_request_keeps_what_its_caller_had_when_it_began() {
    let kms = FakeKms::start().await;
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let signer = Signer::with_keys(&config(dir.path(), LOCAL), [("hot".to_owned(), key)].into()).unwrap();
    let live = Arc::clone(&signer.api.live);
    let running = serve(dir, signer);
    kms.plan([Turn::Slowly(Duration::from_secs(1))]);
    let asked = tokio::spawn(running.sign("a", &tx(1)));
    while kms.signs() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    live.replace(Snapshot::default());
    is_problem(&running.sign("b", &tx(1)).await, 401, "unauthenticated");
    assert_eq!(asked.await.unwrap().status, 200);
    running.stop().await;
}
