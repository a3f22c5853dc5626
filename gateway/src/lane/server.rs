//! A server that is asked, whatever is spoken with it.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use keygate_config::UpstreamProtocol;
use tokio::time::{Instant, timeout};

use super::Lane;
use super::connect::{NoConnection, ServerStream, connect};
use super::relay::{Sink, Source, Stop};
use crate::upstream::Upstream;
use crate::upstream::http2::Http2Server;

/// A connection of HTTP/1.1, or what looks like one.
pub(super) enum Server {
    Http1(ServerStream),
    Http2(Box<Http2Server>),
}

impl Lane {
    /// A connection to a server that waits for a request, or has room for another.
    pub(super) async fn waiting(&self, upstream: &Upstream, place: usize, address: SocketAddr) -> Option<Server> {
        let tls = upstream.tls_id(place);
        match upstream.protocol {
            UpstreamProtocol::Http1 => self.pool.take(address, tls).map(Server::Http1),
            UpstreamProtocol::Http2 => {
                let wait = upstream.timeouts.connect.0;
                let stream = timeout(wait, self.http2.take((address, tls))).await.ok()??;
                Some(Server::Http2(Box::new(stream)))
            }
        }
    }

    /// Opens a connection to a server.
    pub(super) async fn open(
        &self,
        upstream: &Upstream,
        place: usize,
        address: SocketAddr,
    ) -> Result<Server, NoConnection> {
        let tls = upstream.tls.get(place).map(AsRef::as_ref);
        let timeouts = &upstream.timeouts;
        let stream = connect(address, tls, timeouts.connect.0).await?;
        match upstream.protocol {
            UpstreamProtocol::Http1 => Ok(Server::Http1(stream)),
            UpstreamProtocol::Http2 if stream.alpn().is_some_and(|alpn| alpn != b"h2") => {
                Err(NoConnection::Tls(io::Error::other("the server does not speak HTTP/2")))
            }
            UpstreamProtocol::Http2 => {
                let begun = self.http2.begin((address, stream.tls_id()), stream, timeouts.idle.0);
                let begun = timeout(timeouts.connect.0, begun).await.map_err(io::Error::from).flatten();
                begun.map(|stream| Server::Http2(Box::new(stream))).map_err(NoConnection::Tcp)
            }
        }
    }

    /// Keeps a connection that has answered.
    pub(super) fn keep(&self, upstream: &Upstream, address: SocketAddr, server: Server) {
        match server {
            Server::Http1(stream) => self.pool.put(address, stream, Instant::now(), upstream.timeouts.idle.0),
            // The connection beneath is kept already.
            Server::Http2(_) => {}
        }
    }
}

impl Source for Server {
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_fill(cx, into),
            Self::Http2(stream) => stream.poll_fill(cx, into),
        }
    }

    fn poll_trailers(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<u8>, Stop>> {
        Poll::Ready(Ok(Vec::new()))
    }
}

impl Sink for Server {
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_send(cx, bytes, last),
            Self::Http2(stream) => stream.poll_send(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(stream) => Sink::poll_flush(stream, cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(stream) => stream.poll_end(cx, trailers),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(stream) => stream.poll_close(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }
}
