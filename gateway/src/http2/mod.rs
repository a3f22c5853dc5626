//! HTTP/2 from clients, to the lane's servers: one task a connection, in which all of its streams are answered.
//!
//! Frames, flow control and header compression are the `h2` crate's, and so are most bounds of what a client may do with
//! them: streams reset before they are accepted, endless CONTINUATION frames, header lists out of proportion, settings and
//! pings that nobody reads the answers of, small and empty DATA frames. What it does not bound is in [`budget`]. What a
//! request says is judged by the rules of HTTP/1, as which it is forwarded.

mod batch;
mod budget;
mod head;
mod stream;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use keygate_config::{ListenerLimits, ListenerTimeouts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::lane::{Lane, Timer};
use crate::listen::{ClientStream, Connection, FIRST_HEAD_IN_DRAIN, drained_for};
use batch::Batch;
use budget::{Budget, Traffic};
pub(crate) use head::answer_trailers as trailers;

/// Streams of one connection at a time, as nginx.
const STREAMS: u32 = 128;
/// The largest decoded header list of a request, in bytes, unless the listener lets heads be larger.
const HEADER_LIST: u32 = 64 << 10;
/// What a header list counts for a field besides its bytes (RFC 9113, 6.5.2).
const PER_FIELD: u64 = 32;
/// What a client may send of one request's body before it is taken, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// What a client may send in all before it is taken, in bytes: bodies that servers leave lying must not hold up those of
/// others, who share a connection where a proxy is in front.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What waits to be sent of one answer, in bytes: a client that takes nothing can make all of its streams wait.
const SEND_BUFFER: usize = 64 << 10;
/// A client that has been asked to leave may not have seen it before it asks again: that is believed for so long.
const FAREWELL: Duration = Duration::from_secs(2);

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves a connection to its end.
pub(crate) async fn serve(lane: &Lane, io: ClientStream, connection: &Connection, drain: watch::Receiver<bool>) {
    let traffic = Traffic::default();
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(header_list(&lane.listener(connection).limits))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    let handshake = builder.handshake(Batch::new(io, &lane.buffers, &traffic));
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
    let mut driver = Driver::new(http2, lane, connection.peer, &traffic);
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        if driver.ending.is_none() && draining.as_mut().poll(cx).is_ready() {
            driver.end();
        }
        loop {
            match driver.poll_accept(cx) {
                Poll::Ready(Some((request, respond))) => {
                    driver.asked(connection);
                    streams.push(stream::answer(lane, connection, request, respond, &drain, &traffic));
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            // An answer that has ended is sent with the next look at the connection; others wake this task.
            let mut again = false;
            while let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx) {
                driver.budget.count(end, Instant::now());
                again = true;
            }
            again |= driver.judge();
            if !again {
                let timeouts = || lane.listener(connection).timeouts;
                return if streams.is_empty() { driver.poll_quiet(cx, timeouts) } else { driver.busy() };
            }
        }
    })
    .await;
    // The client is gone, or the connection's time is over: each stream is told, and ends.
    drop(driver);
    while streams.next().await.is_some() {}
}

/// The bound on header lists: what the listener lets a head be, which is refused with a reason, fits into it.
fn header_list(limits: &ListenerLimits) -> u32 {
    let head = limits.head_size.0 + PER_FIELD * u64::from(limits.header_count);
    u32::try_from(head).unwrap_or(u32::MAX).max(HEADER_LIST)
}

/// A connection, and when it ends.
struct Driver<'a, T> {
    http2: server::Connection<T, Bytes>,
    lane: &'a Lane,
    peer: SocketAddr,
    traffic: &'a Traffic,
    budget: Budget,
    timer: Timer,
    quiet: Option<Quiet>,
    /// Since when the client has been asked to leave.
    ending: Option<Instant>,
    /// Whether it was sent away.
    expelled: bool,
    /// Requests that have come by it.
    asked: u32,
}

/// A time without a request.
struct Quiet {
    /// Since when, or since the client last took some of what is still on its way to it.
    since: Instant,
    /// What it had taken by then.
    went: u64,
    timeouts: ListenerTimeouts,
}

impl<'a, T: AsyncRead + AsyncWrite + Unpin> Driver<'a, T> {
    fn new(http2: server::Connection<T, Bytes>, lane: &'a Lane, peer: SocketAddr, traffic: &'a Traffic) -> Self {
        let (budget, timer) = (Budget::new(Instant::now()), Timer::default());
        Self { http2, lane, peer, traffic, budget, timer, quiet: None, ending: None, expelled: false, asked: 0 }
    }

    /// Sends and receives. The next request; none, when the connection has ended.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        loop {
            match ready!(self.http2.poll_accept(cx)) {
                // Only a client that has not answered the farewell still begins streams (RFC 9113, 6.8).
                Some(Ok((_, mut respond))) if self.ending.is_some_and(|since| since.elapsed() > FAREWELL) => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Some(Ok(accepted)) => return Poll::Ready(Some(accepted)),
                // The client has been told by h2.
                Some(Err(error)) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.lane.count_refused("http2-flood");
                    }
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Counts a request. After the last that the connection may have, the client is asked to leave.
    fn asked(&mut self, connection: &Connection) {
        self.asked = self.asked.saturating_add(1);
        let most = self.lane.listener(connection).limits.connection_requests;
        if self.ending.is_none() && most.is_some_and(|most| self.asked >= most) {
            self.end();
        }
    }

    /// Asks the client to leave (RFC 9113, 6.8); requests under way are answered.
    fn end(&mut self) {
        self.ending = Some(Instant::now());
        self.http2.graceful_shutdown();
    }

    /// Sends a client away that does what none does (RFC 9113, 10.5). Its requests end with the connection.
    fn judge(&mut self) -> bool {
        let reason = match (self.budget.is_exceeded(), self.traffic.is_flood()) {
            _ if self.expelled => return false,
            (true, _) => "reset-flood",
            (false, true) => "http2-flood",
            (false, false) => return false,
        };
        self.lane.count_refused(reason);
        tracing::debug!(peer = %self.peer, reason, "a client of HTTP/2 is sent away");
        (self.expelled, self.ending) = (true, Some(Instant::now()));
        self.http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    }

    fn busy(&mut self) -> Poll<()> {
        self.quiet = None;
        Poll::Pending
    }

    /// Ready when a connection without requests has been so for too long.
    fn poll_quiet(&mut self, cx: &mut Context<'_>, timeouts: impl Fn() -> ListenerTimeouts) -> Poll<()> {
        let went = self.traffic.went();
        let quiet = self.quiet.get_or_insert_with(|| Quiet { since: Instant::now(), went, timeouts: timeouts() });
        if self.http2.has_streams() {
            // Answers are on their way: who takes none of them is not waited for.
            if quiet.went != went {
                (quiet.since, quiet.went) = (Instant::now(), went);
            }
            return self.timer.poll(cx, quiet.since + quiet.timeouts.send.0);
        }
        let Some(ending) = self.ending else {
            ready!(self.timer.poll(cx, quiet.since + quiet.timeouts.idle.0));
            self.end();
            // It is sent with the next look at the connection.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        // A client that does not answer is not waited for.
        self.timer.poll(cx, ending.max(quiet.since) + FIRST_HEAD_IN_DRAIN)
    }
}

#[cfg(test)]
mod tests {
    use keygate_config::units::Size;

    use super::*;

    #[test]
    fn heads_that_the_listener_takes_fit_into_the_header_list() {
        assert_eq!(header_list(&ListenerLimits::default()), HEADER_LIST);
        let large = ListenerLimits { head_size: Size(1 << 20), header_count: 200, ..ListenerLimits::default() };
        assert_eq!(header_list(&large), (1 << 20) + 200 * 32);
    }
}
