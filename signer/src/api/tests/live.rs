use super::node::Node;
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

/// What nodes have counted is theirs.
#[tokio::test]
async fn what_other_nodes_counted_goes_with_them() {
    let (one, two) = (Node::start(8453).await, Node::start(8453).await);
    one.says("eth_getTransactionCount", json!("0x5"));
    two.says("eth_getTransactionCount", json!("0x9"));
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let with = |node: &Node| {
        let base = format!("[signer.chains.base]\nid = 8453\nrpc = \"{}\"", node.url);
        let policy = "[signer.policies.more]\nchains = [\"base\"]";
        let mut config = config(dir.path(), &format!("{LOCAL}\n{base}\n{policy}\n"));
        config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "more".into();
        config
    };
    let (before, after) = (with(&one), with(&two));
    let signer = Signer::start(&before).await.unwrap();
    let live = Arc::clone(&signer.api.live);
    let running = serve(dir, signer);
    let nonce = async |name: &str| {
        let mut tx = tx(1);
        tx["chainId"] = 8453.into();
        tx.as_object_mut().unwrap().remove("nonce");
        let signed = running.sign(name, &tx).await;
        assert_eq!(signed.status, 200, "{}", signed.body);
        signed.body["nonce"].clone()
    };
    assert_eq!(nonce("a").await, 5);
    live.replace(Snapshot::load(&after, &live.snapshot().chains).unwrap());
    assert_eq!(nonce("b").await, 9);
    running.stop().await;
}
