//! `keygate demo`: everything on loopback, with embedded parts.

mod services;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use keygate_gateway::Gateway;
use keygate_signer::Signer;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::output::{self, Failed};
use crate::process::{self, Stop};

#[derive(clap::Args)]
pub struct Args {
    /// The port for https; another free one is taken when it is in use.
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
}

/// What the demo listens at.
struct Ports {
    https: u16,
    blue: SocketAddr,
    green: SocketAddr,
}

pub fn demo(args: &Args) -> Result<(), Failed> {
    process::log("warn");
    keygate_signer::harden()?;
    process::runtime()?.block_on(run(args))
}

async fn run(args: &Args) -> Result<(), Failed> {
    let mut stop = Stop::new()?;
    let private = fs::Permissions::from_mode(0o700);
    let dir = tempfile::Builder::new().prefix("keygate-demo-").permissions(private).tempdir()?;
    let blue = services::start("blue").await?;
    let green = services::start("green").await?;
    let ports = Ports { https: free(args.https_port)?, blue, green };
    write_files(dir.path(), &ports)?;

    let loaded = output::load(&dir.path().join("keygate.toml"))?;
    let config = loaded.config.signer.clone().ok_or(Failed(Some("the demo has a signer".into())))?;
    let signer = Signer::start(&config).await?;
    let address = keygate_signer::load_keys(&config).await?.into_iter().map(|key| key.address).next();
    let gateway = Gateway::start(loaded).await?;
    print_guide(&dir, &ports, &address.unwrap_or_default());

    let (stopping, mut stopped) = watch::channel(false);
    let signer =
        tokio::spawn(async move { signer.serve(async move { drop(stopped.wait_for(|stop| *stop).await) }).await });
    gateway.run(stop.wait()).await;
    let _ = stopping.send(true);
    signer.await?;
    output::line("\nStopped. Nothing is left behind.");
    Ok(())
}

/// This port if nobody has it, else one that is free.
fn free(wanted: u16) -> std::io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(wanted).or_else(|_| bind(0))?.local_addr().map(|address| address.port())
}

fn write_files(dir: &Path, ports: &Ports) -> Result<(), Failed> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    ca.distinguished_name.push(rcgen::DnType::CommonName, "keygate demo CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "api.localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;

    let token = uuid::Uuid::new_v4().simple().to_string();
    for (name, text) in [
        ("ca.crt", ca_pem),
        ("demo.crt", leaf.pem()),
        ("demo.key", key.serialize_pem()),
        ("payments.token", token),
        ("keygate.toml", config(ports)),
    ] {
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(dir.join(name))?.write_all(text.as_bytes())?;
    }
    fs::create_dir(dir.join("state"))?;
    keygate_signer::create_local_key(&dir.join("state/dev.key"))?;
    Ok(())
}

fn config(Ports { https, blue, green }: &Ports) -> String {
    format!(
        r#"# The demo's own file: change it while the demo runs, and see.
[access_log]
path = "access.log"

[listeners.https]
bind = ["127.0.0.1:{https}"]
security_headers = "standard"
[listeners.https.tls]
certificates = [{{ cert = "demo.crt", key = "demo.key" }}]

[upstreams.blue]
servers = ["{blue}"]

[upstreams.green]
servers = ["{green}"]

[rate_limits.per-client]
key = "client-ip"
rate = "10/s"
burst = 20

[security_headers.standard]
preset = "strict"

[[routes]]
name = "hello"
hosts = ["localhost", "api.localhost", "127.0.0.1"]
path = "/"
backends = [{{ upstream = "blue", weight = 90 }}, {{ upstream = "green", weight = 10 }}]

[[routes]]
name = "limited"
hosts = ["localhost", "api.localhost", "127.0.0.1"]
path = "/limited"
rate_limits = ["per-client"]
backends = [{{ upstream = "blue" }}]

[signer]
listen = "unix:state/signer.sock"
ledger = "sqlite:state/ledger.db"
allow_local_keys = true               # a demo: real money is signed for by a key in KMS

[signer.keys.dev]
local = {{ path = "state/dev.key" }}

[signer.chains.polygon]
id = 137

[signer.policies.payouts]
chains = ["polygon"]
to = ["0x000000000000000000000000000000000000dead"]
max_value = "1 ether"
max_fee = "0.05 ether"

[signer.callers.payments]
token_file = "payments.token"
keys = ["dev"]
policy = "payouts"
"#
    )
}

fn print_guide(dir: &TempDir, ports: &Ports, address: &str) {
    let dir = dir.path().display();
    let keygate = std::env::current_exe().map_or("keygate".to_owned(), |path| path.display().to_string());
    let https = ports.https;
    output::line(format!(
        r#"keygate is running: a TLS edge in front of two services, blue and green, and a signer with a fresh key.
Everything is in {dir}; Ctrl-C stops it and removes the folder. In another terminal:

1. Ask through the edge: TLS, security headers, a request id. Nine of ten answers are blue.
   D={dir}
   curl -i --cacert $D/ca.crt https://localhost:{https}/
   for i in $(seq 20); do curl -s --cacert $D/ca.crt https://localhost:{https}/; done | sort | uniq -c

2. Move the traffic to green, while it flows; then look.
   {keygate} weights set hello blue=0 green=100 -c $D/keygate.toml
   {keygate} status -c $D/keygate.toml

3. Run into a rate limit (10 a second, 20 more at once).
   curl -s -o /dev/null -w '%{{http_code}} ' --cacert $D/ca.crt "https://localhost:{https}/limited?[1-30]"; echo

4. Have a transaction signed by {address}; ask twice, and get the same bytes.
   curl -s --unix-socket $D/state/signer.sock http://signer/v1/keys/dev/transactions \
     -H "Authorization: Bearer $(cat $D/payments.token)" -H 'Idempotency-Key: payout-1' \
     -H 'Content-Type: application/json' -d '{{"chainId": 137, "type": 2, "nonce": 0,
       "to": "0x000000000000000000000000000000000000dead", "value": "1000000000000000", "data": "0x",
       "gas": 21000, "maxFeePerGas": "40000000000", "maxPriorityFeePerGas": "30000000000"}}'

5. Have somebody else paid: the policy says no, and which of its rules does.
   curl -s --unix-socket $D/state/signer.sock http://signer/v1/keys/dev/transactions \
     -H "Authorization: Bearer $(cat $D/payments.token)" -H 'Idempotency-Key: payout-2' \
     -H 'Content-Type: application/json' -d '{{"chainId": 137, "type": 2, "nonce": 1,
       "to": "0x000000000000000000000000000000000000beef", "value": "1", "data": "0x",
       "gas": 21000, "maxFeePerGas": "40000000000", "maxPriorityFeePerGas": "30000000000"}}'

6. Break the file, and see that nothing breaks: edit $D/keygate.toml, then
   {keygate} check -c $D/keygate.toml"#
    ));
}
