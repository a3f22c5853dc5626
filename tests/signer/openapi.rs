//! The API's description: `keygate signer openapi`.

use serde_json::{Value, json};

use crate::support::{Home, client, run};

#[test]
fn the_document_is_the_committed_one_and_valid() {
    let home = Home::new("");
    let printed = home.run(["signer", "openapi"]).json();
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).expect("a file");
    let committed: Value = serde_json::from_str(&committed).expect("JSON");
    assert!(printed == committed, "docs/openapi.json is old: keygate signer openapi > docs/openapi.json");
    let file = home.write("openapi.json", printed.to_string());
    assert_eq!(run(client("openapi.py").arg(&file), b"").json(), json!("3.1.0"));
    // One that is none is seen to be none.
    let mut broken = printed;
    broken["paths"]["/v1/keys"]["get"]["responses"] = json!([]);
    let file = home.write("openapi.json", broken.to_string());
    let refused = client("openapi.py").arg(&file).output().expect("python");
    assert!(!refused.status.success(), "{refused:?}");
}
