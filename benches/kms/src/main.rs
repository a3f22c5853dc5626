//! `kms-stub`: the stub as a process. The first line on standard output is its URL.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use keygate_kms_stub::{Options, Stub};

/// A KMS that keeps its keys in memory. For tests and benches: whoever reaches it may sign.
#[derive(Debug, Parser)]
#[command(name = "kms-stub")]
struct Arguments {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads that sign.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The same digest has the same signature (RFC 6979).
    #[arg(long)]
    deterministic: bool,
    /// What Sign takes, in milliseconds; of several, each in turn.
    #[arg(long, value_delimiter = ',')]
    latency: Vec<u64>,
}

fn main() -> std::io::Result<()> {
    let Arguments { listen, threads, deterministic, latency } = Arguments::parse();
    let latency = latency.into_iter().map(Duration::from_millis).collect();
    let stub = Stub::new(Options { deterministic, latency });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        println!("http://{}", listener.local_addr()?);
        // On a thread of the pool, which signs as well.
        tokio::spawn(stub.serve(listener)).await.map_err(std::io::Error::other)
    })
}
