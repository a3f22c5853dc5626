//! The front door of a connection: reads heads strictly and lets exactly one request's bytes through at a time.
//!
//! Behind it, pingora reads what looks like the client's stream, and sees one judged head and one judged body, no
//! more: what a client pipelines waits here until its turn.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Body;
use super::fields::Field;
use super::head::{self, Framing, Head, Limits, Refusal};
use crate::listen::{ClientStream, Connection};

/// What is written is gathered up to this many bytes: a head and a small body leave as one.
const WRITE_BUFFER: usize = 16 << 10;
/// What is read ahead of a request's own bytes, at most.
const READ_AHEAD: usize = 16 << 10;
/// After an answer to a request that was not read whole, so much more is read and dropped, so that the client gets to
/// see the answer before the connection is reset.
pub(crate) const LINGER_BYTES: usize = 1 << 20;
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(2);
/// While draining, a connection without a request so far is given so long for its first.
pub(crate) const FIRST_HEAD_IN_DRAIN: Duration = Duration::from_millis(500);
/// RFC 9113, 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's stream, behind the front door.
pub struct Door {
    io: BufWriter<ClientStream>,
    read: BytesMut,
    body: Body,
    fields: Vec<Field>,
    /// Whether a request has come by this connection.
    used: bool,
    /// Nothing has been written since the client's bytes were last looked for.
    quiet: bool,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("peer", &self.connection.peer).finish_non_exhaustive()
    }
}

/// How a wait for the next head ended, other than with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHead {
    /// The client is gone, was idle for too long, or the gateway is draining: there is nobody to answer.
    Closed,
    /// The client sent what is refused.
    Refused(Refusal),
}

impl Door {
    /// A door on this stream.
    #[must_use]
    pub fn new(io: ClientStream, connection: Arc<Connection>) -> Self {
        // pingora hands the digest to every request, over HTTP/1 and HTTP/2 alike: it carries the connection there.
        let response = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        let digest = ProxyDigest::new(Box::new(response), Some(Box::new(connection.clone())));
        Self {
            io: BufWriter::with_capacity(WRITE_BUFFER, io),
            read: BytesMut::new(),
            body: Body::new(Framing::Length(0)),
            fields: Vec::new(),
            quiet: false,
            used: false,
            connection,
            digest: Arc::new(digest),
        }
    }

    /// The connection this is the door of.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits for the next request's head: up to `idle` for its first byte, up to `whole` from there to its last.
    ///
    /// # Errors
    /// When there will be no next request.
    pub async fn next_head(
        &mut self,
        limits: Limits,
        idle: Duration,
        whole: Duration,
        drain: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Result<Head, NoHead> {
        if !self.body.is_done() {
            return Err(NoHead::Closed);
        }
        if self.read.is_empty() {
            let used = self.used;
            let draining = async {
                let _ = drain.wait_for(|draining| *draining).await;
                // A client that has just connected is about to ask.
                if !used {
                    tokio::time::sleep(FIRST_HEAD_IN_DRAIN).await;
                }
            };
            let read = tokio::select! {
                biased;
                read = timeout(idle, self.fill()) => read,
                () = draining => return Err(NoHead::Closed),
            };
            if !matches!(read, Ok(Ok(1..))) {
                return Err(NoHead::Closed);
            }
        }
        let deadline = Instant::now() + whole;
        // RFC 9112, 2.2: one empty line before a request is let pass.
        let mut skipped = false;
        loop {
            if !skipped && self.read.starts_with(b"\r\n") {
                self.read.advance(2);
                skipped = true;
            }
            match head::parse(&self.read, limits, &mut self.fields) {
                Ok(Some(head)) => {
                    self.body = Body::new(head.framing);
                    self.used = true;
                    return Ok(head);
                }
                Ok(None) => {}
                Err(refusal) => return Err(NoHead::Refused(refusal)),
            }
            match timeout_at(deadline, self.fill()).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(NoHead::Closed),
                Err(_) => return Err(NoHead::Refused(Refusal::Timeout)),
            }
        }
    }

    /// Takes the head that was just read, its target in origin form.
    pub fn take_head(&mut self, head: &Head) -> BytesMut {
        let bytes = self.read.split_to(head.len);
        match &head.origin_form {
            None => bytes,
            // `Host` says the same as the target's authority: it was compared.
            Some(origin_form) => {
                let parts = [&bytes[..head.target.start], &bytes[origin_form.clone()], &bytes[head.target.end..]];
                BytesMut::from(parts.concat().as_slice())
            }
        }
    }

    /// Waits for the client's HTTP/2 preface, so that a silent client is not waited for for ever.
    ///
    /// Answers whether it came. From here on the door is open: HTTP/2 frames its own requests.
    pub async fn expect_h2(&mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        while self.read.len() < H2_PREFACE.len() {
            if !matches!(timeout_at(deadline, self.fill()).await, Ok(Ok(1..))) {
                return false;
            }
        }
        self.connection.open.store(true, Ordering::Relaxed);
        self.read.starts_with(H2_PREFACE)
    }

    /// Answers a refused request, and ends the connection.
    pub async fn refuse(mut self: Box<Self>, answer: &[u8], wait: Duration) {
        let _ = timeout(wait, async {
            self.io.write_all(answer).await?;
            self.io.flush().await
        })
        .await;
        self.close(true).await;
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.read.reserve(4 << 10);
        self.io.get_mut().read_buf(&mut self.read).await
    }

    async fn close(&mut self, unread: bool) {
        let _ = timeout(LINGER_TIME, async {
            self.io.shutdown().await?;
            let mut left = if unread { LINGER_BYTES } else { 0 };
            let mut dropped = vec![0; READ_AHEAD];
            while left > 0 {
                match self.io.get_mut().read(&mut dropped).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        })
        .await;
    }

    /// Sends what is gathered once nothing more comes: pingora flushes a body of known length at its end only, and
    /// the upstream may be slow. It looks for the client's bytes whenever it waits; when it does so twice and has
    /// written nothing between, there is nothing to wait for.
    fn flush_when_quiet(&mut self, cx: &mut Context<'_>) {
        if self.io.buffer().is_empty() {
            return;
        }
        if std::mem::replace(&mut self.quiet, true) {
            // An error shows at the next write.
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        } else {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads more of the stream into the read-ahead buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let start = self.read.len();
        self.read.resize(start + READ_AHEAD, 0);
        let mut into = ReadBuf::new(&mut self.read[start..]);
        let polled = Pin::new(self.io.get_mut()).poll_read(cx, &mut into);
        let filled = into.filled().len();
        self.read.truncate(start + filled);
        polled.map_ok(|()| filled)
    }
}

impl AsyncRead for Door {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.open.load(Ordering::Relaxed) {
            if this.read.is_empty() {
                return Pin::new(this.io.get_mut()).poll_read(cx, out);
            }
            let step = this.read.len().min(out.remaining());
            out.put_slice(&this.read.split_to(step));
            return Poll::Ready(Ok(()));
        }
        this.flush_when_quiet(cx);
        if this.body.is_done() {
            // pingora only looks whether the client is still there. What it pipelined waits for its turn; then there
            // is nothing to be woken for, because this request ends by its response.
            return if !this.read.is_empty() {
                Poll::Pending
            } else {
                match ready!(this.poll_fill(cx)) {
                    Ok(0) => Poll::Ready(Ok(())),
                    Ok(_) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                }
            };
        }
        if this.read.is_empty() && ready!(this.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let window = this.read.len().min(out.remaining());
        match this.body.advance(&this.read[..window]) {
            Ok(taken) => {
                out.put_slice(&this.read.split_to(taken));
                Poll::Ready(Ok(()))
            }
            Err(refusal) => {
                *this.connection.refused.lock() = Some(refusal);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)))
            }
        }
    }
}

impl AsyncWrite for Door {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.quiet = false;
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
        self.quiet = false;
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Door {
    async fn shutdown(&mut self) {
        let unread = !self.body.is_done() || !self.read.is_empty();
        self.close(unread).await;
    }
}

impl UniqueID for Door {
    fn id(&self) -> UniqueIDType {
        self.connection.fd
    }
}

impl Ssl for Door {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.connection.h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Door {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Door {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Door {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Door {}
