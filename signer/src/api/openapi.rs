//! The REST API as OpenAPI 3.1 describes it. A test holds it to the router, the parser and the answers; another holds
//! `docs/openapi.json` to it.

use serde_json::{Value, json};

/// The document. JSON-RPC, which is one call with many methods, is in it as that call.
#[must_use]
pub fn openapi() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "keygate signer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Signs Ethereum transactions, messages, typed data and authorizations under a caller's policy. \
                            What each field, rule and error means is in docs/signer.md.",
        },
        "servers": [{ "url": "http://signer", "description": "over the Unix socket that `signer.listen` names" }],
        "security": [{ "token": [] }, {}],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer",
                           "description": "The caller's token. Without one, the user id of the process counts." },
            },
            "parameters": {
                "key": { "name": "key", "in": "path", "required": true, "schema": { "type": "string" },
                         "description": "A key's name in the file." },
            },
            "responses": { "problem": {
                "description": "Refused or failed (RFC 9457).",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            } },
            "schemas": schemas(),
        },
    })
}

fn paths() -> Value {
    let key = json!({ "$ref": "#/components/parameters/key" });
    let idempotency_key = |place: &str, name: &str| {
        json!({ "name": name, "in": place, "required": true, "description": "Names the request, for ever.",
                "schema": { "type": "string", "pattern": "^[!-~]{1,255}$" } })
    };
    let rpc = |parameters: Value| {
        json!({ "post": {
            "operationId": if parameters == json!([]) { "rpc" } else { "rpcOfChain" },
            "summary": "JSON-RPC 2.0: one call, or a batch of 100 at most.",
            "parameters": parameters,
            "requestBody": body(&json!({ "oneOf": [reference("RpcCall"), { "type": "array", "items": reference("RpcCall"), "minItems": 1, "maxItems": 100 }] })),
            "responses": {
                "200": answered("An answer, or one for each call that has an id.", &json!({ "type": ["object", "array"] })),
                "204": { "description": "Notifications alone, which are not carried out." },
                "default": answered("HTTP refuses it: an error of JSON-RPC.", &json!({ "type": "object" })),
            },
        } })
    };
    let statement = |id: &str, summary: &str, request: &str, answer: &str| {
        json!({ "post": {
            "operationId": id, "summary": summary, "parameters": [key],
            "requestBody": body(&reference(request)),
            "responses": { "200": answered("Signed.", &reference(answer)), "default": problem() },
        } })
    };
    let approval =
        json!({ "name": "approval", "in": "path", "required": true, "schema": { "type": "integer", "minimum": 1 } });
    let chain = json!({ "name": "chain", "in": "path", "required": true, "schema": { "type": "string" },
                        "description": "A chain's name in the file." });
    let signs = |id: &str, summary: &str, parameters: Value, request: &str| {
        json!({ "post": {
            "operationId": id, "summary": summary, "parameters": parameters,
            "requestBody": body(&reference(request)),
            "responses": { "200": signed(), "default": problem() },
        } })
    };
    let mut replaces = signs(
        "replaceTransaction",
        "Signs and sends what takes a transaction's place: the same for more, or nothing.",
        json!([key, idempotency_key("path", "idempotency_key"), idempotency_key("header", "Idempotency-Key")]),
        "Replacement",
    );
    replaces["post"]["responses"]["202"] = held();
    json!({
        "/": rpc(json!([])),
        "/chains/{chain}": rpc(json!([chain])),
        "/health": { "get": {
            "operationId": "health", "summary": "Whether it can ask its ledger.", "security": [{}],
            "responses": {
                "200": answered("Healthy.", &json!({ "type": "object", "required": ["status"], "properties": { "status": { "const": "ok" } } })),
                "default": problem(),
            },
        } },
        "/metrics": { "get": {
            "operationId": "metrics", "summary": "Metrics, as Prometheus reads them.", "security": [{}],
            "responses": {
                "200": { "description": "Metrics.", "content": { "text/plain": { "schema": { "type": "string" } } } },
                "default": problem(),
            },
        } },
        "/v1/keys": { "get": {
            "operationId": "keys", "summary": "The caller's keys.",
            "responses": { "200": answered("Keys.", &reference("Keys")), "default": problem() },
        } },
        "/v1/keys/{key}/transactions": { "post": {
            "operationId": "signTransaction",
            "summary": "Signs a transaction, or answers what was signed under the idempotency key first; and sends it.",
            "parameters": [key, idempotency_key("header", "Idempotency-Key"), {
                "name": "send", "in": "query", "description": "Whether it is sent to its chain, and followed there.",
                "schema": { "const": "true" },
            }],
            "requestBody": body(&reference("Transaction")),
            "responses": { "200": signed(), "202": held(), "default": problem() },
        } },
        "/v1/keys/{key}/transactions/{idempotency_key}": { "get": {
            "operationId": "transaction", "summary": "What became of a request.",
            "parameters": [key, idempotency_key("path", "idempotency_key")],
            "responses": {
                "200": answered("Pending, signed, or held and never to be signed.", &json!({ "oneOf": [
                    reference("PendingTransaction"), reference("SignedTransaction"), reference("HeldTransaction"),
                ] })),
                "202": held(),
                "default": problem(),
            },
        } },
        "/v1/keys/{key}/transactions/{idempotency_key}/replacements": replaces,
        "/v1/keys/{key}/nonces/{chain}": { "get": {
            "operationId": "nonces", "summary": "What is known of a key's nonces on a chain: by its nodes, and here.",
            "parameters": [key, chain],
            "responses": { "200": answered("Nonces.", &reference("Nonces")), "default": problem() },
        } },
        "/v1/keys/{key}/nonces/{chain}/fill": signs(
            "fillNonce", "Signs and sends a transaction that does nothing, for a nonce that others wait behind.",
            json!([key, chain, idempotency_key("header", "Idempotency-Key")]), "Fill",
        ),
        "/v1/approvals": { "get": {
            "operationId": "approvals", "summary": "What waits for the caller's approval.",
            "responses": {
                "200": answered("Approvals.", &json!({
                    "type": "object", "required": ["approvals"],
                    "properties": { "approvals": { "type": "array", "items": reference("Approval") } },
                })),
                "default": problem(),
            },
        } },
        "/v1/approvals/{approval}": {
            "get": {
                "operationId": "approval", "summary": "A request that is or was held: for who may approve it, and for who asked.",
                "parameters": [approval],
                "responses": { "200": answered("An approval.", &reference("Approval")), "default": problem() },
            },
            "delete": {
                "operationId": "withdraw", "summary": "Who asked withdraws the request, for good.",
                "parameters": [approval],
                "responses": { "200": answered("Withdrawn.", &reference("Approval")), "default": problem() },
            },
        },
        "/v1/approvals/{approval}/decision": { "post": {
            "operationId": "decide", "summary": "Approves what has this digest, or rejects it, for good.",
            "parameters": [approval],
            "requestBody": body(&reference("Decision")),
            "responses": { "200": answered("Decided.", &reference("Approval")), "default": problem() },
        } },
        "/v1/keys/{key}/messages": statement("signMessage", "Signs a message (EIP-191).", "Message", "Signature"),
        "/v1/keys/{key}/typed-data": statement("signTypedData", "Signs typed data (EIP-712).", "TypedData", "Signature"),
        "/v1/keys/{key}/authorizations":
            statement("signAuthorization", "Signs an authorization (EIP-7702).", "Authorization", "SignedAuthorization"),
    })
}

fn schemas() -> Value {
    let quantity = || reference("Quantity");
    let (address, bytes, hash) = (|| reference("Address"), || reference("Bytes"), || reference("Hash"));
    let integer = || json!({ "type": "integer", "minimum": 0 });
    json!({
        "Quantity": {
            "description": "An integer up to 2^53, decimal digits, or 0x and hex digits; no leading zeros. Wei, if it is money.",
            "oneOf": [{ "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_u64 },
                      { "type": "string", "pattern": "^(0|[1-9][0-9]*|0x(0|[1-9a-fA-F][0-9a-fA-F]*))$" }],
        },
        "Address": { "type": "string", "pattern": "^0x[0-9a-fA-F]{40}$", "description": "In mixed case, with its EIP-55 checksum." },
        "Bytes": { "type": "string", "pattern": "^0x([0-9a-fA-F]{2})*$" },
        "Hash": { "type": "string", "pattern": "^0x[0-9a-fA-F]{64}$" },
        "Transaction": {
            "type": "object", "additionalProperties": false,
            "required": ["chainId", "type", "gas"],
            "description": "The nonce is left out where the chain has `rpc`, and required where it has none. Types 0 and 1 have gasPrice, the others maxFeePerGas and maxPriorityFeePerGas. What is of another type is refused.",
            "properties": {
                "chainId": quantity(), "type": quantity(), "nonce": quantity(), "gas": quantity(),
                "to": { "description": "Left out or null, a contract is created.", "oneOf": [address(), { "type": "null" }] },
                "value": quantity(), "data": bytes(),
                "gasPrice": quantity(), "maxFeePerGas": quantity(), "maxPriorityFeePerGas": quantity(),
                "accessList": { "type": "array", "description": "Not of type 0.", "items": {
                    "type": "object", "additionalProperties": false, "required": ["address", "storageKeys"],
                    "properties": { "address": address(), "storageKeys": { "type": "array", "items": hash() } },
                } },
                "maxFeePerBlobGas": quantity(),
                "blobVersionedHashes": { "type": "array", "minItems": 1, "maxItems": 6, "items": hash() },
                "blobs": { "type": "array", "items": bytes() },
                "commitments": { "type": "array", "items": bytes() },
                "proofs": { "type": "array", "items": bytes() },
                "authorizationList": { "type": "array", "minItems": 1, "items": {
                    "type": "object", "additionalProperties": false,
                    "required": ["chainId", "address", "nonce", "yParity", "r", "s"],
                    "properties": { "chainId": quantity(), "address": address(), "nonce": quantity(), "yParity": quantity(), "r": hash(), "s": hash() },
                } },
            },
        },
        "SignedTransaction": {
            "type": "object",
            "required": ["raw", "hash", "from", "nonce", "chainId", "r", "s", "yParity"],
            "properties": {
                "state": { "const": "signed", "description": "Where it is asked what became of a request." },
                "raw": bytes(), "hash": hash(), "from": address(), "nonce": integer(), "chainId": integer(),
                "r": hash(), "s": hash(), "yParity": { "enum": [0, 1] }, "send": reference("Progress"),
            },
        },
        "Progress": {
            "type": "object", "description": "How far it has come, where it is sent and asked what became of it. Times are milliseconds since 1970.",
            "required": ["state", "attempts", "firstSentAt", "lastSentAt", "block", "succeeded", "stuck", "note", "replacedBy"],
            "properties": {
                "state": { "enum": ["queued", "sent", "mined", "confirmed", "replaced"] },
                "attempts": { "description": "How often it was sent.", "type": "integer", "minimum": 0 },
                "firstSentAt": or_null("integer"), "lastSentAt": or_null("integer"),
                "block": or_null("integer"),
                "succeeded": { "description": "Whether what it called did not revert.", "type": ["boolean", "null"] },
                "stuck": { "description": "No block has it, and that for long.", "type": "boolean" },
                "note": { "description": "What the node last said against it.", "type": ["string", "null"] },
                "replacedBy": {
                    "description": "The hash of the transaction that has its nonce for good, once it is replaced.",
                    "oneOf": [hash(), { "type": "null" }],
                },
            },
        },
        "HeldTransaction": {
            "type": "object", "required": ["state", "approval", "rule", "digest"],
            "properties": { "state": { "enum": ["held", "approved", "rejected", "withdrawn", "expired"] }, "approval": integer(), "rule": { "type": "string" }, "digest": hash() },
        },
        "Replacement": {
            "type": "object", "additionalProperties": false, "required": ["action"],
            "description": "Fees that are left out are chosen: the chain's now, and an eighth more than before at least.",
            "properties": {
                "action": { "enum": ["speed-up", "cancel"] },
                "gasPrice": quantity(), "maxFeePerGas": quantity(), "maxPriorityFeePerGas": quantity(),
            },
        },
        "Fill": {
            "type": "object", "additionalProperties": false, "required": ["nonce"],
            "properties": {
                "nonce": quantity(), "gasPrice": quantity(), "maxFeePerGas": quantity(), "maxPriorityFeePerGas": quantity(),
            },
        },
        "Nonces": {
            "type": "object", "required": ["address", "chainId", "latest", "pending", "next", "gaps", "unsigned", "unsent", "signed"],
            "properties": {
                "address": address(), "chainId": integer(),
                "latest": { "description": "How many of its transactions blocks have.", "type": "integer" },
                "pending": { "description": "The same, with the pool's.", "type": "integer" },
                "next": { "description": "The next that is chosen, gaps apart.", "type": "integer" },
                "gaps": { "description": "Those below that nobody has.", "type": "array", "items": integer() },
                "unsigned": { "description": "Reserved, and not signed.", "type": "array", "items": integer() },
                "unsent": { "description": "Signed, not to be sent from here, and not in the pool: higher ones wait behind.", "type": "array", "items": integer() },
                "signed": { "description": "The highest that is signed.", "type": ["integer", "null"] },
            },
        },
        "Approval": {
            "type": "object",
            "required": ["approval", "state", "caller", "key", "address", "idempotencyKey", "policy", "rule", "digest", "askedAt",
                         "expiresAt", "replaces", "decision", "transaction"],
            "properties": {
                "approval": integer(), "state": { "enum": ["held", "decided", "expired", "signed"] },
                "caller": { "type": "string" }, "key": { "type": "string" }, "address": address(),
                "idempotencyKey": { "type": "string" }, "policy": { "type": "string" }, "rule": { "type": "string" },
                "digest": hash(), "askedAt": { "description": "Milliseconds since 1970.", "type": "integer" },
                "expiresAt": { "description": "The same: if nobody has decided by then, and no nonce is reserved for it.", "type": "integer" },
                "replaces": { "description": "The nonce of the transaction that it is to replace: one of both is mined.", "type": ["integer", "null"] },
                "decision": {
                    "type": ["object", "null"], "required": ["decision", "by", "at"],
                    "properties": { "decision": { "enum": ["approved", "rejected", "withdrawn"] }, "by": { "type": "string" }, "at": { "type": "integer" } },
                },
                "transaction": { "description": "What is signed, once it is approved; its nonce is chosen then.", "type": "object" },
            },
        },
        "Decision": {
            "type": "object", "additionalProperties": false, "required": ["decision", "digest"],
            "properties": { "decision": { "enum": ["approve", "reject"] }, "digest": hash() },
        },
        "PendingTransaction": {
            "type": "object", "required": ["state", "from", "nonce", "chainId"],
            "properties": { "state": { "const": "pending" }, "from": address(), "nonce": integer(), "chainId": integer() },
        },
        "Message": {
            "type": "object", "additionalProperties": false, "required": ["message"],
            "properties": { "message": { "type": "string" }, "encoding": { "enum": ["utf-8", "hex"], "default": "utf-8" } },
        },
        "TypedData": {
            "type": "object", "additionalProperties": false, "required": ["types", "primaryType", "domain", "message"],
            "properties": {
                "types": { "type": "object", "additionalProperties": { "type": "array", "items": {
                    "type": "object", "additionalProperties": false, "required": ["name", "type"],
                    "properties": { "name": { "type": "string" }, "type": { "type": "string" } },
                } } },
                "primaryType": { "type": "string" }, "domain": { "type": "object" }, "message": { "type": "object" },
            },
        },
        "Authorization": {
            "type": "object", "additionalProperties": false, "required": ["chainId", "address", "nonce"],
            "properties": { "chainId": quantity(), "address": address(), "nonce": quantity() },
        },
        "Signature": {
            "type": "object", "required": ["signature", "digest", "address"],
            "properties": { "signature": { "type": "string", "pattern": "^0x[0-9a-f]{130}$" }, "digest": hash(), "address": address() },
        },
        "SignedAuthorization": {
            "type": "object",
            "required": ["chainId", "address", "nonce", "yParity", "r", "s", "digest", "authority"],
            "properties": {
                "chainId": integer(), "address": address(), "nonce": integer(), "yParity": { "enum": [0, 1] },
                "r": hash(), "s": hash(), "digest": hash(), "authority": address(),
            },
        },
        "Keys": {
            "type": "object", "required": ["keys"],
            "properties": { "keys": { "type": "array", "items": {
                "type": "object", "required": ["name", "kind", "address", "publicKey"],
                "properties": {
                    "name": { "type": "string" }, "kind": { "enum": ["kms", "local"] }, "address": address(), "publicKey": bytes(),
                },
            } } },
        },
        "RpcCall": {
            "type": "object", "additionalProperties": false, "required": ["jsonrpc", "method"],
            "properties": {
                "jsonrpc": { "const": "2.0" }, "method": { "type": "string" }, "params": { "type": "array" },
                "id": { "type": ["string", "number", "null"], "description": "Left out in a notification." },
            },
        },
        "Problem": {
            "type": "object", "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": { "type": "string", "pattern": "^urn:keygate:problem:" },
                "title": { "type": "string" }, "status": { "type": "integer" }, "detail": { "type": "string" },
                "request_id": { "type": "string", "format": "uuid" },
                "rule": { "type": "string", "description": "The policy's rule that says no." },
                "field": { "type": "string", "description": "The field that is wrong." },
            },
        },
    })
}

fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn signed() -> Value {
    json!({
        "description": "Signed.",
        "headers": { "Idempotent-Replayed": { "description": "On an answer that was given before.", "schema": { "const": "true" } } },
        "content": { "application/json": { "schema": reference("SignedTransaction") } },
    })
}

fn held() -> Value {
    json!({
        "description": "Held until somebody else approves it, or approved; to be asked again then.",
        "headers": { "Location": { "description": "The approval.", "schema": { "type": "string" } } },
        "content": { "application/json": { "schema": reference("HeldTransaction") } },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn problem() -> Value {
    json!({ "$ref": "#/components/responses/problem" })
}

fn body(schema: &Value) -> Value {
    json!({ "required": true, "content": { "application/json": { "schema": schema } } })
}

fn answered(what: &str, schema: &Value) -> Value {
    json!({ "description": what, "content": { "application/json": { "schema": schema } } })
}
