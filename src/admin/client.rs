//! One call to the admin API, or to the signer's.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use keygate_config::Address;
use rustix::process::Pid;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::output::Failed;
use crate::process;

/// A reload resolves names and reads certificates; everything else is at once.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Client {
    /// `gateway` or `signer`, for what is printed.
    pub part: &'static str,
    pub address: Address,
    pub token: Option<String>,
}

impl Client {
    /// Answers the JSON of a success; a problem's detail is the failure.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        version: Option<&str>,
    ) -> Result<Value, Failed> {
        let (ok, body) = self.ask(method, path, body, version)?;
        let value: Value = serde_json::from_slice(&body)?;
        if ok {
            return Ok(value);
        }
        let said = value["detail"].as_str().or(value["title"].as_str());
        Err(Failed(Some(said.map_or_else(|| format!("the {} refused", self.part), str::to_owned))))
    }

    /// Answers whether it was a success, and what was answered.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        version: Option<&str>,
    ) -> Result<(bool, Bytes), Failed> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        process::runtime()?.block_on(async {
            match tokio::time::timeout(PATIENCE, self.send(request)).await {
                Ok(sent) => sent,
                Err(_) => Err(Failed(Some(format!("the {} at {} does not answer", self.part, self.address)))),
            }
        })
    }

    /// The process that listens, if it is on a Unix socket, and this one can see it.
    pub fn pid(&self) -> Result<Option<Pid>, Failed> {
        let Address::Unix(path) = &self.address else { return Ok(None) };
        let connected = process::runtime()?.block_on(UnixStream::connect(path)).map_err(|error| self.absent(&error))?;
        Ok(connected.peer_cred()?.pid().and_then(Pid::from_raw))
    }

    fn absent(&self, error: &std::io::Error) -> Failed {
        let Self { part, address, .. } = self;
        Failed(Some(format!("no {part} answers at {address}: {error}; is it running, with this file?")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(bool, Bytes), Failed> {
        match &self.address {
            Address::Unix(path) => {
                exchange(UnixStream::connect(path).await.map_err(|error| self.absent(&error))?, request).await
            }
            Address::Tcp(address) => {
                exchange(TcpStream::connect(address).await.map_err(|error| self.absent(&error))?, request).await
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(bool, Bytes), Failed>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: Read + Write,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let ok = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((ok, body))
}
