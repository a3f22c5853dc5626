//! What the fuzzers check, for every input that is kept in their corpora.

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

use std::path::Path;

/// Checks every input of a target.
fn corpus(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        let input = std::fs::read(&path).expect("an input");
        let result = std::panic::catch_unwind(|| check(&input));
        assert!(result.is_ok(), "{}: {}", path.display(), input.escape_ascii());
        inputs += 1;
    }
    assert!(inputs > 10, "{} is empty", folder.display());
}

#[test]
fn request_heads() {
    corpus("request_head", checks::request_head);
}

#[test]
fn chunked_bodies() {
    corpus("chunked_body", checks::chunked_body);
}

#[test]
fn response_heads() {
    corpus("response_head", checks::response_head);
}

#[test]
fn rewritten_heads() {
    corpus("rewritten_head", checks::rewritten_head);
}
