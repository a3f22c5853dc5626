//! A client's connection: heads, one after the other, and its end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::either::Either;
use tokio_util::io::poll_read_buf;

use super::fields::Field;
use super::head::{self, Head, Limits, Refusal};
use crate::lane::{After, Asked, Buffers, Downstream, Lane, Timer, refuse, run, status_line};
use crate::listen::{ClientStream, Connection, FIRST_HEAD_IN_DRAIN, LINGER_BYTES, LINGER_TIME};

/// What a client may send ahead, at most, while its request is answered.
const AHEAD: usize = 16 << 10;

/// Serves a connection of HTTP/1 to its end.
pub(crate) async fn serve(lane: &Lane, io: ClientStream, connection: &Connection, drain: watch::Receiver<bool>) {
    let mut client = Client::new(io, drain.clone(), &lane.buffers);
    loop {
        let listener = lane.listener(connection);
        let (limits, timeouts) = (listener.head_limits(), listener.timeouts);
        drop(listener);
        match client.next_head(limits, timeouts.idle.0, timeouts.request_head.0).await {
            Ok(head) => {
                let input = std::mem::take(&mut client.input);
                let mut asked = Asked { head, input, fields: std::mem::take(&mut client.fields) };
                let after = run(lane, &mut client, connection, &mut asked, &drain).await;
                lane.buffers.put(asked.input);
                client.fields = asked.fields;
                match after {
                    After::Next => {}
                    After::Close { unread } => return client.close(unread).await,
                    After::Gone => return,
                    After::Cut => return client.reset(),
                }
            }
            Err(NoHead::Closed) => return client.close(false).await,
            Err(NoHead::Refused(refusal)) => {
                return match refuse(lane, &mut client, connection, refusal).await {
                    After::Gone => {}
                    _ => client.close(true).await,
                };
            }
        }
    }
}

/// A client's connection.
struct Client<'a> {
    io: ClientStream,
    /// What was read and is not used up.
    input: Vec<u8>,
    /// The header lines of the head that was read last.
    fields: Vec<Field>,
    timer: Timer,
    /// Since when the client sends no more.
    half_closed: Option<Instant>,
    /// Requests that have come by this connection.
    asked: u32,
    draining: Draining,
    buffers: &'a Buffers,
}

/// How a wait for the next head ended, other than with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoHead {
    /// The client is gone, was idle for too long, or the gateway is draining: there is nobody to answer.
    Closed,
    /// The client sent what is refused.
    Refused(Refusal),
}

/// Whether the gateway is draining.
enum Draining {
    No(Pin<Box<dyn Future<Output = ()> + Send>>),
    Since(Instant),
}

impl Draining {
    /// Since when it has been.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        if let Self::No(begun) = self
            && begun.as_mut().poll(cx).is_ready()
        {
            *self = Self::Since(Instant::now());
        }
        match self {
            Self::No(_) => None,
            Self::Since(begun) => Some(*begun),
        }
    }
}

impl<'a> Client<'a> {
    fn new(io: ClientStream, mut drain: watch::Receiver<bool>, buffers: &'a Buffers) -> Self {
        let draining = Box::pin(async move {
            let _ = drain.wait_for(|draining| *draining).await;
        });
        Self {
            io,
            input: Vec::new(),
            fields: Vec::new(),
            timer: Timer::default(),
            half_closed: None,
            asked: 0,
            draining: Draining::No(draining),
            buffers,
        }
    }

    /// Waits for the next request's head: up to `idle` for its first byte, up to `whole` from there to its last.
    async fn next_head(&mut self, limits: Limits, idle: Duration, whole: Duration) -> Result<Head, NoHead> {
        let begun = Instant::now();
        let mut whole_by = (!self.input.is_empty()).then(|| begun + whole);
        // RFC 9112, 2.2: one empty line before a request is let pass.
        let mut skipped = false;
        let mut fresh = 0;
        poll_fn(|cx| {
            loop {
                if !skipped && self.input.starts_with(b"\r\n") {
                    self.input.drain(..2);
                    (skipped, fresh) = (true, 0);
                }
                // Without another line there is nothing new to judge, but for a head that is too large.
                let more = &self.input[fresh..];
                if memchr::memchr(b'\n', more).is_some() || !more.is_empty() && self.input.len() >= limits.size {
                    fresh = self.input.len();
                    match head::parse(&self.input, limits, &mut self.fields) {
                        Ok(Some(head)) => {
                            self.asked = self.asked.saturating_add(1);
                            return Poll::Ready(Ok(head));
                        }
                        Ok(None) => {}
                        Err(refusal) => return Poll::Ready(Err(NoHead::Refused(refusal))),
                    }
                }
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => whole_by = whole_by.or_else(|| Some(Instant::now() + whole)),
                    Poll::Ready(_) => return Poll::Ready(Err(NoHead::Closed)),
                    Poll::Pending => {
                        if self.input.is_empty() {
                            let mut until = begun + idle;
                            if let Some(since) = self.draining.poll(cx) {
                                // A client that has just connected is about to ask.
                                until = if self.asked > 0 { begun } else { since + FIRST_HEAD_IN_DRAIN };
                            }
                            ready!(self.timer.poll(cx, until));
                            return Poll::Ready(Err(NoHead::Closed));
                        }
                        ready!(self.timer.poll(cx, whole_by.unwrap_or(begun + whole)));
                        return Poll::Ready(Err(NoHead::Refused(Refusal::Timeout)));
                    }
                }
            }
        })
        .await
    }

    /// Reads once. While nothing is there, no memory is held.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = self.buffers.take();
        } else if self.input.len() == self.input.capacity() {
            self.input.reserve(self.input.len());
        }
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        if self.input.is_empty() {
            self.buffers.put(std::mem::take(&mut self.input));
        }
        read
    }

    /// Breaks the connection off.
    fn reset(self) {
        let stream = match &self.io {
            Either::Left(plain) => plain,
            Either::Right(tls) => tls.get_ref().0,
        };
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }

    /// Ends the connection. `unread`: the client may still be sending.
    async fn close(mut self, unread: bool) {
        let _ = timeout(LINGER_TIME, async {
            self.io.shutdown().await?;
            let mut left = if unread && self.half_closed.is_none() { LINGER_BYTES } else { 0 };
            let mut dropped = self.buffers.take();
            while left > 0 {
                dropped.clear();
                match self.io.read_buf(&mut dropped).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            self.buffers.put(dropped);
            io::Result::Ok(())
        })
        .await;
    }
}

impl Downstream for Client<'_> {
    type Io = ClientStream;
    type Head = Vec<u8>;
    const HTTP2: bool = false;

    fn io(&mut self) -> (&mut ClientStream, &mut Vec<u8>) {
        (&mut self.io, &mut self.input)
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// What it sends is kept for its turn; when it sends no more, that is noted.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.half_closed.is_none() && self.input.len() < AHEAD {
            match self.poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.half_closed = Some(Instant::now()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn half_closed(&self) -> Option<Instant> {
        self.half_closed
    }

    fn is_wanted(&self, drain: &watch::Receiver<bool>, most: Option<u32>) -> bool {
        !matches!(self.draining, Draining::Since(_)) && !*drain.borrow() && most.is_none_or(|most| self.asked < most)
    }

    fn head(&mut self, status: u16, reason: &[u8]) -> Vec<u8> {
        let mut head = self.buffers.take();
        status_line(&mut head, status, reason);
        head
    }

    fn begin(&mut self, head: Vec<u8>, _: bool) -> io::Result<Vec<u8>> {
        Ok(head)
    }

    fn spare(&mut self, buffer: Vec<u8>) {
        self.buffers.put(buffer);
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.buffers.put(std::mem::take(&mut self.input));
    }
}
