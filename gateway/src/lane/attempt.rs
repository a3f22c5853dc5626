//! One attempt to have a request answered: it is sent, its body follows, and the head of the answer is waited for.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use keygate_config::{ListenerLimits, ListenerTimeouts, UpstreamTimeouts};
use tokio::time::Instant;

use super::relay::{Pump, Stop, Waiting};
use super::relay::{Sink, Source};
use super::server::Server;
use super::write::{self, AnswerHead, Edits, Lines};
use super::{Downstream, send};
use crate::http1::fields::Field;
use crate::http1::head::Limits;
use crate::http1::response::{self, Malformed, ResponseHead};

/// What a server's head may be.
const SERVER_HEAD: Limits = Limits { size: 64 << 10, headers: 256 };
/// A client that sends no more may wait for its answer still, or be gone: it is given so long.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(3);

/// The head of an answer, and what came behind it.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    pub(super) fields: Vec<Field>,
    pub(super) bytes: Vec<u8>,
    /// Whether the rest of the request can follow.
    pub(super) open: bool,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server closed the connection, or it broke. `silent`: it had said nothing.
    Closed { error: io::Error, silent: bool },
    /// The server took too long.
    Late,
    /// What the server said is no answer.
    Malformed(Malformed),
    /// The request's body is not as it must be.
    Body(Stop),
    /// The client took too long over the request's body.
    Slow,
    /// The client is gone.
    Gone(&'static str),
}

/// What bounds the wait.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) client: ListenerTimeouts,
    pub(super) limits: ListenerLimits,
    pub(super) server: UpstreamTimeouts,
}

impl Bounds {
    /// When a body that began to arrive then is too slow: it has the longest pause on top of what the rate grants.
    pub(super) fn body_by(&self, began: Instant, content: u64) -> Option<Instant> {
        let granted = content.saturating_mul(1000).checked_div(self.limits.body_min_rate.0)?;
        began.checked_add(self.client.request_body.0)?.checked_add(Duration::from_millis(granted))
    }
}

/// An attempt under way.
pub(super) struct Attempt<'a, 'b, D> {
    pub(super) client: &'a mut D,
    pub(super) upload: &'a mut Pump<'b>,
    pub(super) server: &'a mut Server,
    /// The request's head, and what there is of its body.
    pub(super) request: &'a [u8],
    /// How much of it has been sent.
    pub(super) sent: usize,
    pub(super) bounds: Bounds,
    /// What interim answers are edited by.
    pub(super) edits: Edits<'a>,
    /// Whether the client asks with HEAD.
    pub(super) to_head: bool,
    /// Whether the client knows interim answers.
    pub(super) interim: bool,
    /// Whether the client waits to be told to send its body.
    pub(super) expects: bool,
    /// When the request's first byte was here.
    pub(super) began: Instant,
    /// The last time that anything moved towards the server.
    pub(super) since: Instant,
    /// Whether the server has given an interim answer.
    pub(super) spoke: bool,
    /// Whether the server takes what it is sent.
    pub(super) open: bool,
}

impl<D: Downstream> Attempt<'_, '_, D> {
    /// Waits for the head of the answer; interim ones are passed on. `came` is a buffer, which the answer takes along.
    pub(super) async fn run(mut self, mut came: Vec<u8>) -> (Result<Answered, Failure>, usize) {
        let answered = self.answer(&mut came).await;
        let (sent, open) = (self.sent, self.open);
        (answered.map(|(head, fields)| Answered { head, fields, bytes: came, open }), sent)
    }

    async fn answer(&mut self, came: &mut Vec<u8>) -> Result<(ResponseHead, Vec<Field>), Failure> {
        let mut fields = Vec::with_capacity(16);
        loop {
            poll_fn(|cx| self.poll(cx, came)).await?;
            // Interim answers may come together, and with the last one.
            while let Some(head) =
                response::parse(came, SERVER_HEAD, self.to_head, &mut fields).map_err(Failure::Malformed)?
            {
                if !(100..200).contains(&head.status) || head.status == 101 {
                    return Ok((head, fields));
                }
                if self.interim {
                    let mut out = self.client.head(head.status, &came[head.reason.clone()]);
                    write::interim(&mut out, &Lines { head: came, fields: &fields }, &self.edits);
                    out.end();
                    let wait = self.bounds.client.send.0;
                    send(self.client, out, wait, false).await.map_err(|_| Failure::Gone("WriteError"))?;
                }
                // The answer itself is not waited for any longer because of it.
                came.drain(..head.len);
                (self.expects, self.spoke) = (false, true);
            }
        }
    }

    /// Moves what can be moved, until more of the answer has come.
    fn poll(&mut self, cx: &mut Context<'_>, came: &mut Vec<u8>) -> Poll<Result<(), Failure>> {
        let gone = |_| Failure::Gone("ConnectionClosed");
        // A stream that is reset is not read from to know, and may be so before anything was sent.
        if D::HTTP2 {
            self.client.poll_gone(cx).map_err(gone)?;
        }
        self.poll_send(cx)?;
        if !D::HTTP2 && (self.upload.has_ended() || !self.open) {
            self.client.poll_gone(cx).map_err(gone)?;
        }
        if came.len() == came.capacity() {
            came.reserve(came.len());
        }
        match self.server.poll_fill(cx, came) {
            Poll::Ready(Ok(0)) => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Poll::Ready(Err(Failure::Closed { error, silent: came.is_empty() && !self.spoke }))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(Failure::Closed { error, silent: came.is_empty() && !self.spoke }))
            }
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        while self.open && self.sent < self.request.len() {
            match self.server.poll_send(cx, &self.request[self.sent..], false) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(n @ 1..)) => (self.sent, self.since) = (self.sent + n, Instant::now()),
                // It may have answered before it closed.
                Poll::Ready(_) => self.open = false,
            }
        }
        if !self.open || self.upload.is_done() {
            return Ok(());
        }
        let (io, input) = self.client.io();
        let moved = self.upload.poll(cx, io, self.server, input);
        // Who was asked to wait and sends what has no content has not begun.
        if std::mem::take(&mut self.upload.moved) && !(self.expects && self.upload.content == 0) {
            self.since = Instant::now();
        }
        match moved {
            Poll::Ready(Err(Stop::Sink)) => self.open = false,
            Poll::Ready(Err(Stop::Source)) => return Err(Failure::Gone("ReadError")),
            Poll::Ready(Err(stop)) => return Err(Failure::Body(stop)),
            Poll::Pending | Poll::Ready(Ok(())) => {}
        }
        Ok(())
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let sent = self.sent == self.request.len();
        let reading = self.open && sent && !self.upload.is_done() && self.upload.waiting == Waiting::Read;
        let (mut by, mut late) = if reading && self.expects && self.upload.content == 0 {
            (self.since + self.bounds.server.first_byte.0, Failure::Late)
        } else if reading {
            let pause = self.since + self.bounds.client.request_body.0;
            let rate = self.bounds.body_by(self.began, self.upload.content);
            (rate.map_or(pause, |rate| rate.min(pause)), Failure::Slow)
        } else if self.open && !self.upload.is_done() {
            (self.since + self.bounds.server.send.0, Failure::Late)
        } else {
            (self.since + self.bounds.server.first_byte.0, Failure::Late)
        };
        if let Some(since) = self.client.half_closed()
            && since.max(self.since) + HALF_CLOSED < by
        {
            (by, late) = (since.max(self.since) + HALF_CLOSED, Failure::Gone("ConnectionClosed"));
        }
        self.client.timer().poll(cx, by).map(|()| Err(late))
    }
}
