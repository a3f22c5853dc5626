//! HTTP/2 to servers, for services that speak nothing else (gRPC): what the lane says in HTTP/1 is said in HTTP/2, and back.
//!
//! The lane has one upstream side, which reads and writes HTTP/1. A stream of HTTP/2 looks like one such connection that is
//! used once; so routing, limits, edits, time-outs and retries are the same. pingora has the connections themselves:
//! streams, flow control, pings, and a server's good-bye.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use parking_lot::Mutex;
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::RequestHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::http1::body::Body;
use crate::http1::fields::{Field, Name};
use crate::http1::head::{self, Framing, Limits};
use crate::http1::rewrite::put;
use crate::lane::status_line;

/// Requests at a time on one connection, at most; servers may allow less.
const STREAMS: usize = 100;
/// What a server may send of one answer before it is taken, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// What it may send of all of them: clients that take nothing of theirs must not keep the others from any.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// A server that does not answer a ping is given up.
const PING: Duration = Duration::from_secs(30);

/// A server's address, and whose TLS is spoken there, as in the pool of HTTP/1.
type Key = (SocketAddr, u64);

/// Connections of one worker, by server.
#[derive(Default)]
pub(crate) struct Http2Pool(Mutex<HashMap<Key, Vec<Known>>>);

struct Known {
    connection: ConnectionRef,
    idle: Duration,
    used: Instant,
}

impl Http2Pool {
    /// A stream on a connection that has room for it.
    pub(crate) async fn take(&self, server: Key) -> Option<Http2Server> {
        loop {
            let connection = {
                let mut pool = self.0.lock();
                let now = Instant::now();
                let takes = |known: &&mut Known| {
                    let over = known.connection.is_idle() && now >= known.used + known.idle;
                    !over && known.connection.can_accept_streams(1)
                };
                let known = pool.get_mut(&server)?.iter_mut().find(takes)?;
                known.used = now;
                known.connection.clone()
            };
            match connection.spawn_stream().await {
                Ok(Some(session)) => return Some(Http2Server::new(session)),
                // The server wants no more of them.
                Ok(None) | Err(_) => connection.mark_shutdown(),
            }
        }
    }

    /// Begins a connection, which others may use from then on, and a stream on it.
    pub(crate) async fn begin<S>(&self, server: Key, io: S, idle: Duration) -> io::Result<Http2Server>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = STREAMS;
        settings.ping_interval = Some(PING);
        (settings.stream_window_size, settings.connection_window_size) = (Some(STREAM_WINDOW), Some(CONNECTION_WINDOW));
        let connection = handshake(Box::new(Io(io)), settings).await.map_err(io::Error::other)?;
        let session = connection.spawn_stream().await.map_err(io::Error::other)?;
        let session = session.ok_or(io::ErrorKind::ConnectionAborted)?;
        let known = Known { connection: connection.clone(), idle, used: Instant::now() };
        self.0.lock().entry(server).or_default().push(known);
        Ok(Http2Server::new(session))
    }

    /// Leaves those whose time is over, or that have ended.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().retain(|_, known| {
            known.retain_mut(|known| {
                if !known.connection.is_idle() {
                    known.used = now;
                }
                let open = !known.connection.is_closed() && !known.connection.is_shutting_down();
                open && now < known.used + known.idle
            });
            !known.is_empty()
        });
    }
}

/// A request to a server, and its answer.
pub(crate) struct Http2Server {
    session: Http2Session,
    request: Option<SendStream<Bytes>>,
    body: Body,
    to_head: bool,
    answer: Answer,
    /// Why the request was not sent.
    unsent: Option<io::Error>,
}

/// How much of the answer has been told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing; and the client wants to be told to go on.
    Continue,
    /// Nothing.
    Nothing,
    /// The head; the body has a length.
    Counted,
    /// The head; the body comes in chunks.
    Chunked,
    /// All.
    All,
}

impl Http2Server {
    fn new(session: Http2Session) -> Self {
        let body = Body::new(Framing::Length(0));
        Self { session, request: None, body, to_head: false, answer: Answer::Nothing, unsent: None }
    }

    /// Sends a request's head, which is all at the start of `bytes`. Answers its length.
    fn send_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut fields = Vec::with_capacity(24);
        // It is ours, and was judged before.
        let limits = Limits { size: usize::MAX, headers: usize::MAX };
        let head = head::parse(bytes, limits, &mut fields).ok().flatten().ok_or(io::ErrorKind::InvalidInput)?;
        let unfit = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let request = request(&bytes[..head.len], &head, &fields).map_err(unfit)?;
        let (parts, ()) = request.into_parts();
        self.to_head = parts.method == Method::HEAD;
        let ended = head.framing == Framing::Length(0);
        self.body = Body::new(head.framing);
        // The connection has just ended: nothing of the request has left.
        let unsent = |error| io::Error::new(io::ErrorKind::ConnectionRefused, error);
        self.session.write_request_header(Box::new(RequestHeader::from(parts)), ended).map_err(unsent)?;
        self.request = self.session.take_request_body_writer();
        if fields.iter().any(|field| field.name == Name::Expect) {
            self.answer = Answer::Continue;
        }
        Ok(head.len)
    }

    /// Tells the answer's head.
    fn tell_head(&mut self, into: &mut Vec<u8>) {
        let Some(head) = self.session.response_header() else { return };
        let bodiless = self.to_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let counted = head.headers.contains_key(header::CONTENT_LENGTH);
        let framing = match self.session.response_finished() {
            _ if bodiless => "",
            // In HTTP/1, nothing follows a body that is counted. h2 has it be as long as it says in any case.
            false if !counted || has_trailers(&head.headers) => "transfer-encoding: chunked\r\n",
            _ if counted => "",
            _ => "content-length: 0\r\n",
        };
        let chunked = framing.starts_with('t');
        status_line(into, head.status.as_u16(), head.status.canonical_reason().unwrap_or_default().as_bytes());
        put_all(into, head.headers.iter().filter(|(name, _)| !chunked || *name != header::CONTENT_LENGTH));
        into.extend_from_slice(framing.as_bytes());
        into.extend_from_slice(b"\r\n");
        self.answer = if chunked { Answer::Chunked } else { Answer::Counted };
    }
}

/// A request as HTTP/2 has it (RFC 9113, 8.3.1), from its head of HTTP/1.
fn request(bytes: &[u8], head: &head::Head, fields: &[Field]) -> Result<Request<()>, http::Error> {
    let host = fields.iter().find(|field| field.name == Name::Host).map_or(&b""[..], |field| field.value(bytes));
    let uri = Uri::builder()
        // The client's own scheme is in `X-Forwarded-Proto`.
        .scheme(Scheme::HTTP)
        .authority(Authority::try_from(host)?)
        .path_and_query(PathAndQuery::try_from(&bytes[head.path()])?)
        .build()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(&bytes[head.method.clone()])?;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for field in fields {
        use Name::{Connection, Expect, HopByHop, Host, TransferEncoding, Upgrade};
        if !matches!(field.name, Connection | Expect | HopByHop | Host | TransferEncoding | Upgrade) {
            let name = HeaderName::from_bytes(field.name(bytes))?;
            headers.append(name, HeaderValue::from_bytes(field.value(bytes))?);
        }
    }
    // Trailers are passed on; gRPC's servers want to be sure of it.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

/// Whether an answer says that trailers follow its body, or is gRPC's, which do.
fn has_trailers(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let grpc = kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc"));
    grpc || headers.contains_key(header::TRAILER)
}

fn put_all<'a>(into: &mut Vec<u8>, headers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) {
    for (name, value) in headers {
        put(into, name.as_str(), value.as_bytes());
    }
}

impl Http2Server {
    /// Takes some of a request, which is told in HTTP/1.1: its head, and then its body.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(request) = &mut self.request else {
            return Poll::Ready(self.send_head(bytes).map_err(|error| {
                let kind = error.kind();
                self.unsent = Some(error);
                kind.into()
            }));
        };
        request.reserve_capacity(bytes.len());
        let mut content = Vec::with_capacity(bytes.len().min(request.capacity()));
        let taken = loop {
            // Only content needs room: a server may give none before it has seen the end, which a chunk of none is.
            let room = request.capacity();
            let taken = self.body.advance_up_to(bytes, room, |part| content.extend_from_slice(part));
            match taken.map_err(|_| io::ErrorKind::InvalidInput)? {
                0 if !self.body.is_done() => {}
                taken => break taken,
            }
            match ready!(request.poll_capacity(cx)) {
                Some(more) => more.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        };
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        let trailers = self.body.trailers();
        let ended = self.body.is_done();
        if !content.is_empty() || ended && trailers.is_empty() {
            request.send_data(content.into(), ended && trailers.is_empty()).map_err(broken)?;
        }
        // What framed the content asked for room, too, and would keep it from the other streams.
        if request.capacity() > 0 {
            request.reserve_capacity(0);
        }
        if ended && !trailers.is_empty() {
            request.send_trailers(crate::http2::trailers(trailers)).map_err(broken)?;
        }
        Poll::Ready(Ok(taken))
    }

    /// Tells more of the answer, in HTTP/1.1: its head, and then its body. Nothing: that was all.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = into.len();
        match self.answer {
            Answer::All => {}
            Answer::Continue => {
                // RFC 9110, 10.1.1: a proxy may say so by itself; the server's own would not be seen.
                into.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.answer = Answer::Nothing;
            }
            // pingora expects to be asked for what there can be.
            Answer::Nothing if self.request.is_none() => {
                let unsent = self.unsent.take();
                return Poll::Ready(Err(unsent.unwrap_or_else(|| io::ErrorKind::NotConnected.into())));
            }
            Answer::Nothing => {
                let read = ready!(self.session.poll_read_response_header(cx));
                self.answer = Answer::All;
                read.map_err(broken)?;
                self.tell_head(into);
            }
            Answer::Counted | Answer::Chunked => match ready!(self.session.poll_read_response_body(cx)) {
                Some(bytes) => {
                    let bytes = bytes.map_err(broken)?;
                    if self.answer == Answer::Chunked && !bytes.is_empty() {
                        let mut size = String::new();
                        let _ = write!(size, "{:x}\r\n", bytes.len());
                        into.extend_from_slice(size.as_bytes());
                    }
                    into.extend_from_slice(&bytes);
                    if self.answer == Answer::Chunked && !bytes.is_empty() {
                        into.extend_from_slice(b"\r\n");
                    }
                    if bytes.is_empty() {
                        return self.poll_fill(cx, into);
                    }
                }
                None => {
                    // Nothing is kept between the polls of this future.
                    let trailers = ready!(pin!(self.session.read_trailers()).poll(cx)).map_err(io::Error::other)?;
                    if self.answer == Answer::Chunked {
                        into.extend_from_slice(b"0\r\n");
                        put_all(into, &trailers.unwrap_or_default());
                        into.extend_from_slice(b"\r\n");
                    }
                    self.answer = Answer::All;
                }
            },
        }
        Poll::Ready(Ok(into.len() - before))
    }
}

/// What broke a stream. [`io::ErrorKind::ConnectionRefused`]: the server has done nothing about the request, and it may be
/// sent again (RFC 9113, 8.7). [`io::ErrorKind::InvalidInput`]: it is over with this request, but not with the connection,
/// which says nothing of what another would come to.
fn broken(error: h2::Error) -> io::Error {
    let refused = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    let kind = match error.get_io() {
        _ if refused => io::ErrorKind::ConnectionRefused,
        Some(io) => io.kind(),
        None if error.is_go_away() => io::ErrorKind::ConnectionReset,
        None => io::ErrorKind::InvalidInput,
    };
    io::Error::new(kind, error)
}

/// A connection, as pingora takes it.
struct Io<S>(S);

impl<S> std::fmt::Debug for Io<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Io<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> Shutdown for Io<S> {
    async fn shutdown(&mut self) {
        let _ = self.0.shutdown().await;
    }
}

impl<S> UniqueID for Io<S> {
    fn id(&self) -> UniqueIDType {
        // pingora's own pool, which is not used here, tells connections apart by it.
        0
    }
}

impl<S> Ssl for Io<S> {}

impl<S> GetTimingDigest for Io<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Io<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Io<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl<S> Peek for Io<S> {}
