//! One direction of a message's body: what is read is judged and written on; while it waits to be written, nothing more
//! is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::{BUFFER, Buffers};
use crate::http1::body::Body;
use crate::http1::head::Refusal;

/// Hex digits, and the line's end, of a chunk that is made here.
const CHUNK_HEAD: usize = 10;

/// How a body is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it came.
    Same,
    /// It came until the connection's end, and goes on in chunks.
    IntoChunks,
    /// It came in chunks, and goes on until the connection's end.
    OutOfChunks,
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Reads once, and appends what came. Nothing is the body's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>>;

    /// The trailers behind that end, as header lines. Where they are a part of the body's coding, there are none here.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Stop>>;
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes some of these bytes. `last`: the body ends with them, and there are no trailers.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<io::Result<usize>>;

    /// Sends what was taken on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the body. `trailers`: header lines behind it, where they are no part of its coding.
    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>>;

    /// Takes nothing any more.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<T: AsyncRead + Unpin> Source for T {
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(self), cx, into)
    }

    fn poll_trailers(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<u8>, Stop>> {
        Poll::Ready(Ok(Vec::new()))
    }
}

impl<T: AsyncWrite + Unpin> Sink for T {
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], _: bool) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

/// A body on its way.
pub(super) struct Pump<'a> {
    /// Where it ends; `None`: with the connection.
    body: Option<Body>,
    coding: Coding,
    buffers: &'a Buffers,
    /// What waits to be written.
    out: Vec<u8>,
    at: usize,
    ended: bool,
    dirty: bool,
    /// What it waits for, when it is pending.
    pub(super) waiting: Waiting,
    /// Whether anything moved since this was last set to false.
    pub(super) moved: bool,
    /// Bytes of content passed on.
    pub(super) content: u64,
    /// The most there may be.
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Read,
    Write,
}

/// Why a body stops short.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Its source failed, or ended before the body did.
    Source,
    /// It is not framed as it must be.
    Refused(Refusal),
    /// It is larger than it may be.
    TooLarge,
    /// Its destination takes no more.
    Sink,
}

impl<'a> Pump<'a> {
    pub(super) fn new(body: Option<Body>, coding: Coding, limit: u64, buffers: &'a Buffers) -> Self {
        let ended = body.as_ref().is_some_and(Body::is_done);
        Self {
            body,
            coding,
            buffers,
            out: Vec::new(),
            at: 0,
            ended,
            dirty: false,
            waiting: Waiting::Read,
            moved: false,
            content: 0,
            limit,
        }
    }

    /// Judges bytes that were read already, and appends what is to be written of them to `out`. Answers how many
    /// belong to the body.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Stop> {
        let Some(body) = &mut self.body else {
            self.content += bytes.len() as u64;
            if self.coding == Coding::IntoChunks && !bytes.is_empty() {
                out.extend_from_slice(format!("{:08x}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(bytes);
            }
            return Ok(bytes.len());
        };
        let taken = if self.coding == Coding::OutOfChunks {
            body.advance_with(bytes, |content| out.extend_from_slice(content))
        } else {
            body.advance(bytes).inspect(|taken| out.extend_from_slice(&bytes[..*taken]))
        };
        let taken = taken.map_err(Stop::Refused)?;
        self.content = body.content();
        self.ended = body.is_done();
        if self.content > self.limit { Err(Stop::TooLarge) } else { Ok(taken) }
    }

    /// Gives it what is to be written before anything else.
    pub(super) fn prime(&mut self, out: Vec<u8>) {
        self.release();
        self.out = out;
    }

    /// Whether all of it has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether all of it has been read, and nothing follows it.
    pub(super) fn is_last(&self) -> bool {
        self.ended && self.trailers().is_empty()
    }

    /// Whether all of it has been read and written.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.out.is_empty() && !self.dirty
    }

    /// Moves what can be moved. What is read beyond the body's end goes to `surplus`.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        surplus: &mut Vec<u8>,
    ) -> Poll<Result<(), Stop>>
    where
        R: Source,
        W: Sink,
    {
        loop {
            self.waiting = Waiting::Write;
            while self.at < self.out.len() {
                let last = self.is_last();
                match ready!(sink.poll_send(cx, &self.out[self.at..], last)) {
                    Ok(n @ 1..) => self.at += n,
                    _ => return Poll::Ready(Err(Stop::Sink)),
                }
                self.moved = true;
                self.dirty = true;
            }
            self.out.clear();
            self.at = 0;
            if self.ended {
                self.release();
                ready!(sink.poll_end(cx, self.trailers())).map_err(|_| Stop::Sink)?;
                self.dirty = false;
                return Poll::Ready(Ok(()));
            }
            self.waiting = Waiting::Read;
            match self.poll_source(cx, source, surplus) {
                Poll::Ready(Ok(())) => self.moved = true,
                Poll::Ready(Err(stop)) => return Poll::Ready(Err(stop)),
                Poll::Pending => {
                    self.release();
                    if self.dirty && sink.poll_flush(cx).map_err(|_| Stop::Sink)?.is_ready() {
                        self.dirty = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Moves what is there already to `out`, which is written before anything else, up to a buffer's size.
    pub(super) fn gather<R: Source>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let mut surplus = Vec::new();
        while !self.ended && out.len() < BUFFER {
            match self.poll_source(cx, source, &mut surplus) {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            out.append(&mut self.out);
        }
        self.release();
        Ok(())
    }

    /// The trailers of a body that leaves its chunks behind.
    fn trailers(&self) -> &[u8] {
        self.body.as_ref().filter(|_| self.coding == Coding::OutOfChunks).map_or(&[], Body::trailers)
    }

    fn release(&mut self) {
        self.buffers.put(std::mem::take(&mut self.out));
    }

    /// Reads once, and judges what came.
    fn poll_source<R: Source>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        surplus: &mut Vec<u8>,
    ) -> Poll<Result<(), Stop>> {
        if self.out.capacity() == 0 {
            self.out = self.buffers.take();
        }
        match self.coding {
            Coding::Same => {
                let n = ready!(source.poll_fill(cx, &mut self.out)).map_err(|_| Stop::Source)?;
                let Some(body) = &mut self.body else {
                    self.content += n as u64;
                    self.ended = n == 0;
                    return Poll::Ready(Ok(()));
                };
                if n == 0 {
                    return Poll::Ready(Err(Stop::Source));
                }
                let taken = body.advance(&self.out).map_err(Stop::Refused)?;
                surplus.extend_from_slice(&self.out[taken..]);
                self.out.truncate(taken);
                self.content = body.content();
                self.ended = body.is_done();
                Poll::Ready(if self.content > self.limit { Err(Stop::TooLarge) } else { Ok(()) })
            }
            Coding::IntoChunks => {
                self.out.resize(CHUNK_HEAD, 0);
                let read = source.poll_fill(cx, &mut self.out);
                let Poll::Ready(read) = read else {
                    self.out.clear();
                    return Poll::Pending;
                };
                let n = read.map_err(|_| Stop::Source)?;
                self.content += n as u64;
                if n == 0 {
                    self.out.clear();
                    let trailers = ready!(source.poll_trailers(cx))?;
                    self.ended = true;
                    self.out.extend_from_slice(b"0\r\n");
                    self.out.extend_from_slice(&trailers);
                    self.out.extend_from_slice(b"\r\n");
                } else {
                    self.out[..CHUNK_HEAD].copy_from_slice(format!("{n:08x}\r\n").as_bytes());
                    self.out.extend_from_slice(b"\r\n");
                }
                Poll::Ready(if self.content > self.limit { Err(Stop::TooLarge) } else { Ok(()) })
            }
            Coding::OutOfChunks => {
                let mut came = self.buffers.take();
                let read = source.poll_fill(cx, &mut came);
                let fed = match read {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_) | Ok(0)) => Poll::Ready(Err(Stop::Source)),
                    Poll::Ready(Ok(_)) => {
                        let mut out = std::mem::take(&mut self.out);
                        let fed = self.feed(&came, &mut out);
                        self.out = out;
                        Poll::Ready(fed.map(|taken| surplus.extend_from_slice(&came[taken..])))
                    }
                };
                self.buffers.put(came);
                fed
            }
        }
    }
}

impl Drop for Pump<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
