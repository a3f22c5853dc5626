//! What OpenAPI says of the API is so.

use std::collections::BTreeSet;

use super::*;
use crate::api::routes::routes;
use crate::openapi;

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_route_is_in_it_and_nothing_else() {
    let document = openapi();
    let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
        names(operations).into_iter().map(move |method| (path.clone(), method.to_uppercase()))
    });
    let routed = routes().map(|(path, method, _)| (path.to_owned(), method.to_string()));
    assert_eq!(described.collect::<BTreeSet<_>>(), BTreeSet::from(routed));
}

#[test]
fn the_file_is_what_the_code_says() {
    let file: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    assert!(file == openapi(), "docs/openapi.json is old: keygate signer openapi > docs/openapi.json");
}

#[test]
fn a_transaction_has_the_fields_that_are_read() {
    let fields = crate::transaction::FIELDS.map(str::to_owned);
    assert_eq!(names(&openapi()["components"]["schemas"]["Transaction"]["properties"]), BTreeSet::from(fields));
}

/// Routes have no other methods than the table says, and answers have what is required of them and nothing unknown.
#[tokio::test]
async fn answers_are_as_it_says() {
    let signer = with_local_key().await;
    let document = openapi();
    let is = |name: &str, body: &Value| {
        let schema = &document["components"]["schemas"][name];
        let required = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        let (required, found) = (required.collect::<BTreeSet<_>>(), names(body));
        assert!(required.is_subset(&found), "{name}: {body}");
        assert!(found.is_subset(&names(&schema["properties"])), "{name}: {body}");
    };
    is("SignedTransaction", &signer.sign("one", &tx(1)).await.body);
    is("SignedTransaction", &signer.get("/v1/keys/hot/transactions/one").await.body);
    is("Problem", &signer.sign("two", &tx(5000)).await.body);
    is("Problem", &signer.sign("three", &json!({})).await.body);
    is("Keys", &signer.get("/v1/keys").await.body);
    for (path, ..) in routes() {
        let path = path.replace("{key}", "hot").replace("{idempotency_key}", "one").replace("{chain}", "polygon");
        let reply = signer.send(request(Method::PATCH, &path, &[], "")).await;
        is_problem(&reply, 405, "method-not-allowed");
    }
    signer.stop().await;
}
