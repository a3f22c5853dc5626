//! Both directions of a connection at a time: an answer while its request still goes on, and a tunnel.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Downstream;
use super::attempt::{Bounds, HALF_CLOSED};
use super::relay::{Pump, Sink, Stop, Waiting};
use super::server::Server;

/// Both directions of an exchange, once its answer has begun.
pub(super) struct Relay<'a, 'b, D> {
    pub(super) client: &'a mut D,
    pub(super) upload: &'a mut Pump<'b>,
    pub(super) server: &'a mut Server,
    pub(super) download: &'a mut Pump<'b>,
    pub(super) bounds: Bounds,
    pub(super) began: Instant,
    pub(super) since: Instant,
    /// What the server sent beyond its answer.
    pub(super) surplus: Vec<u8>,
    /// Whether the rest of the request still goes on.
    pub(super) open: bool,
}

impl<D: Downstream> Relay<'_, '_, D> {
    /// Ready when the answer has been passed on whole.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        match self.download.poll(cx, self.server, self.client.io().0, &mut self.surplus) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stop::Sink)) => return Poll::Ready(Err("Downstream WriteError")),
            Poll::Ready(Err(Stop::Source)) => return Poll::Ready(Err("Upstream ReadError")),
            Poll::Ready(Err(_)) => return Poll::Ready(Err("Upstream InvalidHTTPBody")),
            Poll::Pending => {}
        }
        if self.open && !self.upload.is_done() {
            let (io, input) = self.client.io();
            if let Poll::Ready(Err(_)) = self.upload.poll(cx, io, self.server, input) {
                self.open = false;
            }
        }
        // A stream that is reset is not read from to know: a server may take nothing more of its request.
        if (D::HTTP2 || !self.open || self.upload.is_done()) && self.client.poll_gone(cx).is_err() {
            return Poll::Ready(Err("Downstream ConnectionClosed"));
        }
        // A server may wait for the request; a client that takes nothing cannot make up for it by sending.
        let sent = std::mem::take(&mut self.upload.moved) && self.download.waiting == Waiting::Read;
        if std::mem::take(&mut self.download.moved) | sent || self.since == self.began {
            self.since = Instant::now();
        }
        let (mut by, mut late) = match self.download.waiting {
            Waiting::Write => (self.since + self.bounds.client.send.0, "Downstream WriteTimedout"),
            Waiting::Read => (self.since + self.bounds.server.first_byte.0, "Upstream ReadTimedout"),
        };
        if let Some(since) = self.client.half_closed()
            && self.download.waiting == Waiting::Read
            && since.max(self.since) + HALF_CLOSED < by
        {
            (by, late) = (since.max(self.since) + HALF_CLOSED, "Downstream ConnectionClosed");
        }
        self.client.timer().poll(cx, by).map(|()| Err(late))
    }
}

/// A connection that HTTP has been left on, both ways.
pub(super) struct Tunnel<'a, 'b, D> {
    pub(super) client: &'a mut D,
    pub(super) server: &'a mut Server,
    /// To the server, and whether it has been told of the end.
    pub(super) up: (&'a mut Pump<'b>, bool),
    /// To the client, and whether it has been told of the end.
    pub(super) down: (&'a mut Pump<'b>, bool),
    /// How long both may be silent.
    pub(super) silence: Duration,
    pub(super) since: Instant,
}

impl<D: Downstream> Tunnel<'_, '_, D> {
    /// Ready when both directions have ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let mut surplus = Vec::new();
        let io = self.client.io().0;
        if !self.up.1 && self.up.0.poll(cx, io, self.server, &mut surplus).map_err(|_| "Tunnel Closed")?.is_ready() {
            self.up.1 = self.server.poll_close(cx).is_ready();
        }
        if !self.down.1 && self.down.0.poll(cx, self.server, io, &mut surplus).map_err(|_| "Tunnel Closed")?.is_ready()
        {
            self.down.1 = io.poll_close(cx).is_ready();
        }
        if self.up.1 && self.down.1 {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut self.up.0.moved) | std::mem::take(&mut self.down.0.moved) {
            self.since = Instant::now();
        }
        self.client.timer().poll(cx, self.since + self.silence).map(|()| Err("Tunnel ReadTimedout"))
    }
}
