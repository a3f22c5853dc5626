//! Chains' nodes: whether they answer, and of which chain they are.

use keygate_config::Signer;

use super::Findings;
use crate::chain::Chains;
use crate::chain::rpc::RpcError;

const NO_ANSWER: &str =
    "see that the node runs, that it can be reached from here, and that `rpc` has its URL and API key";

pub(super) async fn nodes(config: &Signer, findings: &mut Findings) {
    let chains = match Chains::load(config, &Chains::default()) {
        Ok(chains) => chains,
        Err((name, why)) => {
            return findings.fail(&format!("chain {name}"), why, "the signer does not start before it is so");
        }
    };
    for chain in chains.all() {
        let Some(rpc) = &chain.rpc else { continue };
        let found = rpc.survey().await;
        let one_answers = found.iter().any(|(_, found)| found.is_ok());
        for (node, found) in found {
            let check = format!("chain {} {node}", chain.name);
            match found {
                Ok(()) => findings.ok(&check, format!("it answers, and is of chain {}", chain.id)),
                Err(RpcError::WrongChain { expected, found }) => findings.fail(
                    &check,
                    format!("it is of chain {found}, and not of chain {expected}: it is not used"),
                    format!("name nodes of chain {expected} in `rpc`, or give the chain its right `id`"),
                ),
                // Others are asked.
                Err(error) if one_answers => findings.warn(&check, error.to_string(), NO_ANSWER),
                Err(error) => findings.fail(&check, error.to_string(), NO_ANSWER),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::node::Node;
    use crate::doctor::{Finding, Outcome};

    async fn found(rpc: &[&str]) -> Vec<Finding> {
        let text = format!(
            "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.chains.base]\nid = 8453\nrpc = {}",
            json!(rpc)
        );
        let source = keygate_config::Source { path: "keygate.toml".into(), text };
        let config = keygate_config::parse(source).unwrap().config.signer.unwrap();
        let mut findings = Findings::default();
        nodes(&config, &mut findings).await;
        findings.0
    }

    #[tokio::test]
    async fn each_node_is_asked_for_its_chain() {
        let (good, other) = (Node::start(8453).await, Node::start(1).await);
        // Nobody listens there any more.
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dead = format!("http://{closed}/s3cret");
        let all = found(&[&good.url, &other.url, &dead]).await;
        let outcomes: Vec<_> = all.iter().map(|finding| finding.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Fail, Outcome::Warn], "{all:?}");
        assert!(all[1].found.contains("chain 1, and not of chain 8453"), "{all:?}");
        assert_eq!(all[2].check, format!("chain base {closed}"));
        assert!(!format!("{all:?}").contains("s3cret"));
        // The only one.
        assert_eq!(found(&[&dead]).await[0].outcome, Outcome::Fail);
    }
}
