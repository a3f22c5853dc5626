//! The work of keygate's signer, by alloy-signer-aws: takes keygate's request on a Unix socket, and answers what it
//! signed. There is no policy, no ledger, and no second signature of the same request that is refused.
//!
//!     versus-alloy SOCKET KEY-ARN KMS-URL

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_network::TxSigner;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_signer_aws::AwsSigner;
use aws_config::BehaviorVersion;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    chain_id: u64,
    nonce: u64,
    to: Address,
    value: String,
    gas: u64,
    max_fee_per_gas: String,
    max_priority_fee_per_gas: String,
}

#[derive(Serialize)]
struct Answer {
    raw: Bytes,
    hash: alloy_primitives::B256,
    from: Address,
}

#[tokio::main]
async fn main() {
    let [socket, key, kms] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("SOCKET KEY-ARN KMS-URL");
    let config = aws_config::defaults(BehaviorVersion::latest()).endpoint_url(kms).load().await;
    let signer = AwsSigner::new(aws_sdk_kms::Client::new(&config), key, None).await.expect("the key is in KMS");
    let router = Router::new().route("/v1/keys/{key}/transactions", post(sign)).with_state(signer);
    let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
    axum::serve(listener, router).await.expect("it serves");
}

async fn sign(State(signer): State<AwsSigner>, Json(request): Json<Request>) -> Result<Json<Answer>, StatusCode> {
    answer(&signer, request).await.map(Json).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn answer(signer: &AwsSigner, request: Request) -> Option<Answer> {
    let mut tx = TxEip1559 {
        chain_id: request.chain_id,
        nonce: request.nonce,
        gas_limit: request.gas,
        max_fee_per_gas: request.max_fee_per_gas.parse().ok()?,
        max_priority_fee_per_gas: request.max_priority_fee_per_gas.parse().ok()?,
        to: TxKind::Call(request.to),
        value: U256::from_str_radix(&request.value, 10).ok()?,
        ..TxEip1559::default()
    };
    let signature = signer.sign_transaction(&mut tx).await.ok()?;
    let signed = tx.into_signed(signature);
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    Some(Answer { raw: raw.into(), hash: *signed.hash(), from: TxSigner::address(signer) })
}
