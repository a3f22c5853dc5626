//! A client's HTTP/2 connection, as pingora takes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::{EdgeProxy, server_options};
use crate::listen::{ClientStream, Connection, FIRST_HEAD_IN_DRAIN, drained_for};

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The proxy for HTTP/2 connections that may be idle for so long.
struct Http2 {
    proxy: Arc<EdgeProxy>,
    options: HttpServerOptions,
}

/// Serves a connection to its end.
pub(crate) async fn serve_http2(
    proxy: Arc<EdgeProxy>,
    io: ClientStream,
    connection: Arc<Connection>,
    drain: &ShutdownWatch,
) {
    let timeouts = connection.policy.timeouts;
    let mut stream = Box::new(Stream::new(io, connection));
    let begun = tokio::select! {
        biased;
        begun = stream.expect_preface(timeouts.request_head.0) => begun,
        () = drained_for(drain.clone(), FIRST_HEAD_IN_DRAIN) => false,
    };
    if begun {
        let mut options = server_options();
        options.h2_idle_timeout = Some(timeouts.idle.0);
        Arc::new(Http2 { proxy, options }).process_new(stream, drain).await;
    }
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// A client's stream, with what was read of it already.
struct Stream {
    io: ClientStream,
    read: BytesMut,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("peer", &self.connection.peer).finish_non_exhaustive()
    }
}

impl Stream {
    fn new(io: ClientStream, connection: Arc<Connection>) -> Self {
        // pingora hands the digest to every request: it carries the connection there.
        let response = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        let digest = ProxyDigest::new(Box::new(response), Some(Box::new(connection.clone())));
        Self { io, read: BytesMut::new(), connection, digest: Arc::new(digest) }
    }

    /// Waits for the client's preface, so that a silent client is not waited for for ever. Answers whether it came.
    async fn expect_preface(&mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        while self.read.len() < PREFACE.len() {
            self.read.reserve(4 << 10);
            if !matches!(timeout_at(deadline, self.io.read_buf(&mut self.read)).await, Ok(Ok(1..))) {
                return false;
            }
        }
        self.read.starts_with(PREFACE)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, out);
        }
        let step = self.read.len().min(out.remaining());
        out.put_slice(&self.read.split_to(step));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        let _ = self.io.shutdown().await;
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        self.connection.fd
    }
}

impl Ssl for Stream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(ALPN::H2)
    }
}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Stream {}
