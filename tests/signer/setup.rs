//! docs/kms.md: its commands are run, in order, against the emulator.
//!
//! What that shows is in the document itself, under "What the test does not show".

use std::process::Command;

use crate::support::{Home, Identity, Kms, parts, run};

const DOCUMENT: &str = include_str!("../../docs/kms.md");

/// A wallet that was made elsewhere.
const OLD_WALLET: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";

/// The blocks of `sh`, each with the number of its first line.
fn blocks() -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut inside: Option<(usize, String)> = None;
    for (n, line) in DOCUMENT.lines().enumerate() {
        match (line, &mut inside) {
            ("```sh", None) => inside = Some((n + 2, String::new())),
            ("```", Some(_)) => blocks.extend(inside.take()),
            (line, Some((_, block))) => *block += &format!("{line}\n"),
            (_, None) => {}
        }
    }
    blocks
}

/// A shell with `aws` and `keygate`, both of which speak to the emulator.
fn shell(home: &Home, script: &str) -> Command {
    let mut command = home.command_of("bash", ["-c", script]);
    let keygate = std::path::Path::new(env!("CARGO_BIN_EXE_keygate")).parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{keygate}:{}:{path}", parts().join("venv/bin").display()));
    command.env("AWS_ENDPOINT_URL", &Kms::shared().url).env("AWS_DEFAULT_REGION", "eu-central-1").env("AWS_PAGER", "");
    command
}

#[test]
fn the_commands_of_the_document_work() {
    let blocks = blocks();
    assert!(blocks.len() >= 10, "{}", blocks.len());
    let home = Home::new("");
    home.write("old-wallet.hex", OLD_WALLET);
    // What a block ends with is seen between them.
    let mut script = "set -euo pipefail\n".to_owned();
    for (line, block) in &blocks {
        script += &format!("echo '--- line {line}' | tee /dev/stderr\n{block}");
        if block.contains("import-key-material") {
            script += "echo \"$IMPORTED\" > imported-arn\n";
        }
        if block.contains("umask 077") {
            script += "keygate keys --json > keys.json\n";
        }
    }
    let ran = run(&mut shell(&home, &script), b"");
    let last = ran.stderr.lines().rev().find(|line| line.starts_with("---")).unwrap_or_default().to_owned();
    assert_eq!(ran.code, 0, "docs/kms.md, {last}\n{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("0 failed"), "the doctor finds it well: {}", ran.stdout);
    assert!(ran.stdout.contains("\nEnabled\n"), "the key that was to be deleted is back: {}", ran.stdout);

    // The imported key is the wallet, as ethers derives it.
    let imported = std::fs::read_to_string(home.path("imported-arn")).expect("an ARN");
    home.config(&format!(
        "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.keys.old]\nkms = {{ key_id = \"{}\" }}",
        imported.trim()
    ));
    let keys = run(&mut shell(&home, "keygate keys --json"), b"").json();
    assert_eq!(keys[0]["address"], Identity::of_private_key(&format!("0x{OLD_WALLET}")).address);
    // Nothing of it is left.
    for file in ["old-wallet.hex", "old-wallet.der", "wrapped.bin"] {
        assert!(!home.path(file).exists(), "{file}");
    }
}
