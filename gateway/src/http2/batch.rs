//! A connection whose small writes leave together: one record of TLS and one system call for the frames of many streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Traffic;
use crate::lane::Buffers;
use crate::listen::ClientStream;

/// What is held back at most, in bytes: two records of TLS.
const MOST: usize = 32 << 10;

/// A client's stream that writes when it is flushed, or has much to write.
pub(super) struct Batch<'a> {
    io: ClientStream,
    buffers: &'a Buffers,
    traffic: &'a Traffic,
    out: Vec<u8>,
    at: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(io: ClientStream, buffers: &'a Buffers, traffic: &'a Traffic) -> Self {
        Self { io, buffers, traffic, out: Vec::new(), at: 0 }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.at..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.at += n;
                    self.traffic.wrote(n);
                }
            }
        }
        self.at = 0;
        self.buffers.put(std::mem::take(&mut self.out));
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Batch<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.traffic.came(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Batch<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() + data.len() > MOST {
            ready!(self.poll_drain(cx))?;
        }
        if self.out.capacity() == 0 {
            self.out = self.buffers.take();
        }
        let step = data.len().min(MOST);
        self.out.extend_from_slice(&data[..step]);
        Poll::Ready(Ok(step))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.buffers.put(std::mem::take(&mut self.out));
    }
}
