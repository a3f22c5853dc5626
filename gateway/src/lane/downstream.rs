//! Who asks, as the lane sees it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::relay::{Sink, Source};
use super::timer::Timer;
use super::write::{AnswerHead, Lines};
use crate::http1::fields::Field;
use crate::http1::head::Head;

/// A request's head.
pub(crate) struct Asked {
    pub(crate) head: Head,
    /// The bytes that it was read from.
    pub(crate) input: Vec<u8>,
    pub(crate) fields: Vec<Field>,
}

impl Asked {
    pub(super) fn lines(&self) -> Lines<'_> {
        Lines { head: &self.input[..self.head.len], fields: &self.fields }
    }
}

/// Who asks: a connection of HTTP/1, or a stream of HTTP/2.
pub(crate) trait Downstream {
    /// What bodies come by and go by.
    type Io: Source + Sink;
    /// The head of an answer.
    type Head: AnswerHead;
    /// Whether it is a stream of HTTP/2, which frames bodies by itself.
    const HTTP2: bool;

    /// The body's way, and what was read beyond the request.
    fn io(&mut self) -> (&mut Self::Io, &mut Vec<u8>);

    /// What it waits with.
    fn timer(&mut self) -> &mut Timer;

    /// Whether it is still there, while it is not read from for another reason.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Since when it sends no more, and may be gone.
    fn half_closed(&self) -> Option<Instant>;

    /// Whether another request is wanted by this connection, of which there may be so many.
    fn is_wanted(&self, drain: &watch::Receiver<bool>, most: Option<u32>) -> bool;

    /// Begins to put an answer together.
    fn head(&mut self, status: u16, reason: &[u8]) -> Self::Head;

    /// Begins an answer; what is to be written first is answered. `last`: the body ends with that.
    fn begin(&mut self, head: Self::Head, last: bool) -> io::Result<Vec<u8>>;

    /// Takes back what was written.
    fn spare(&mut self, buffer: Vec<u8>);
}

/// Writes an answer's head and what its body begins with, or fails when the client takes nothing for so long. `last`: the
/// body ends with that.
pub(super) async fn send<D: Downstream>(client: &mut D, head: D::Head, wait: Duration, last: bool) -> io::Result<()> {
    let out = client.begin(head, last)?;
    let written = write(client, &out, wait, last).await;
    client.spare(out);
    written
}

/// Waits for what is not the client's doing, while the client is there. `whole`: its request has been read.
pub(super) async fn unless_gone<D: Downstream, T>(
    client: &mut D,
    whole: bool,
    what: impl Future<Output = T>,
) -> io::Result<T> {
    let mut what = pin!(what);
    poll_fn(|cx| {
        // A connection of HTTP/1 is read from to know, which is not done in the middle of a body.
        if D::HTTP2 || whole {
            client.poll_gone(cx)?;
        }
        what.as_mut().poll(cx).map(Ok)
    })
    .await
}

async fn write<D: Downstream>(client: &mut D, bytes: &[u8], wait: Duration, last: bool) -> io::Result<()> {
    let mut at = 0;
    let mut by = None;
    poll_fn(|cx| {
        loop {
            let io = client.io().0;
            let done = if at < bytes.len() {
                io.poll_send(cx, &bytes[at..], last)
            } else if last {
                io.poll_end(cx, &[]).map_ok(|()| 0)
            } else {
                io.poll_flush(cx).map_ok(|()| 0)
            };
            match done {
                Poll::Ready(Ok(_)) if at == bytes.len() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => (at, by) = (at + n, None),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let by = *by.get_or_insert_with(|| Instant::now() + wait);
                    ready!(client.timer().poll(cx, by));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    })
    .await
}
