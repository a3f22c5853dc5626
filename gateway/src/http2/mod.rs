//! HTTP/2 from clients, to the lane's servers: one task a connection, in which all of its streams are answered.
//!
//! Frames, flow control and header compression are the `h2` crate's, and so are the bounds of what a client may do with
//! them: streams reset at once (CVE-2023-44487), endless CONTINUATION frames, settings and pings that nobody reads the
//! answers of, small and empty DATA frames. What a request says is judged by the rules of HTTP/1, as which it is forwarded.

mod batch;
mod head;
mod stream;

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::lane::{Lane, Timer};
use crate::listen::{ClientStream, Connection, FIRST_HEAD_IN_DRAIN, drained_for};
use batch::Batch;
pub(crate) use head::answer_trailers as trailers;

/// Streams of one connection at a time, as nginx.
const STREAMS: u32 = 128;
/// The largest decoded header list of a request, in bytes.
const HEADER_LIST: u32 = 64 << 10;
/// What a client may send of one request's body before it is taken, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// What a client may send in all before it is taken, in bytes.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What waits to be sent of one answer, in bytes.
const SEND_BUFFER: usize = 128 << 10;

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves a connection to its end.
pub(crate) async fn serve(lane: &Lane, io: ClientStream, connection: &Connection, drain: watch::Receiver<bool>) {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    let handshake = builder.handshake(Batch::new(io, &lane.buffers));
    let begun = tokio::select! {
        biased;
        // A silent client is not waited for for ever.
        begun = timeout(connection.policy.timeouts.request_head.0, handshake) => begun,
        () = drained_for(drain.clone(), FIRST_HEAD_IN_DRAIN) => return,
    };
    let Ok(Ok(http2)) = begun else { return };
    let mut draining = drain.clone();
    let mut draining = pin!(async move {
        let _ = draining.wait_for(|draining| *draining).await;
    });
    let mut driver = Driver { http2, timer: Timer::default(), quiet: None, ending: None };
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        if driver.ending.is_none() && draining.as_mut().poll(cx).is_ready() {
            driver.end();
        }
        loop {
            match driver.poll_accept(cx) {
                Poll::Ready(Some((request, respond))) => {
                    streams.push(stream::answer(lane, connection, request, respond, &drain));
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            // An answer that has ended is sent with the next look at the connection; others wake this task.
            let mut ended = false;
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
                ended = true;
            }
            if !ended {
                let idle = || lane.listener(connection).timeouts.idle.0;
                return if streams.is_empty() { driver.poll_quiet(cx, idle) } else { driver.busy() };
            }
        }
    })
    .await;
    // The client is gone, or the connection's time is over: each stream is told, and ends.
    drop(driver);
    while streams.next().await.is_some() {}
}

/// A connection, and when it ends.
struct Driver<T> {
    http2: server::Connection<T, Bytes>,
    timer: Timer,
    /// Since when there has been no stream, and for how long that may be.
    quiet: Option<(Instant, Duration)>,
    /// Since when the client has been asked to leave.
    ending: Option<Instant>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Sends and receives. The next request; none, when the connection has ended.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        // What breaks the connection is told to the client by h2 itself.
        self.http2.poll_accept(cx).map(|accepted| accepted.and_then(Result::ok))
    }

    /// Asks the client to leave (RFC 9113, 6.8); requests under way are answered.
    fn end(&mut self) {
        self.ending = Some(Instant::now());
        self.http2.graceful_shutdown();
    }

    fn busy(&mut self) -> Poll<()> {
        self.quiet = None;
        Poll::Pending
    }

    /// Ready when a connection without streams has been so for too long.
    fn poll_quiet(&mut self, cx: &mut Context<'_>, idle: impl Fn() -> Duration) -> Poll<()> {
        let (since, idle) = *self.quiet.get_or_insert_with(|| (Instant::now(), idle()));
        if self.ending.is_none() {
            ready!(self.timer.poll(cx, since + idle));
            self.end();
            // It is sent with the next look at the connection.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A client that does not answer is not waited for; one that is still taking its answers is.
        let ending = self.ending.unwrap_or(since);
        let patience = if self.http2.has_streams() { idle } else { FIRST_HEAD_IN_DRAIN };
        self.timer.poll(cx, ending.max(since) + patience)
    }
}
