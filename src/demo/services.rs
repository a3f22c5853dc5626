//! The demo's two services.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use tokio::net::TcpListener;

/// A service that answers with its name, on a free port, for as long as the runtime lives.
pub async fn start(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let service = Router::new().fallback(move || async move { format!("hello from {name}\n") });
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(address)
}
