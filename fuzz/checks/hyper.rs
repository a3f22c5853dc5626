//! Messages as hyper reads them, from memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};

use super::{Headers, headers};

/// A request as hyper's server reads it.
#[derive(Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Headers,
    /// Its content, if it is well-formed.
    pub body: Option<Vec<u8>>,
}

/// A response as hyper's client reads it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    /// Its content, if it is well-formed.
    pub body: Option<Vec<u8>>,
}

/// The requests on a connection.
pub fn requests(wire: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let pairs = parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            seen.borrow_mut().push(Seen {
                method: parts.method.to_string(),
                target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                headers: headers(pairs),
                body,
            });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let _ = run(server
        .max_headers(300)
        .half_close(true)
        .serve_connection(Memory { wire: wire.to_vec(), at: 0, open: true }, service));
    seen.take()
}

/// The answer to a GET, or to a HEAD; `None` when it is none.
pub fn answer(wire: Vec<u8>, to_head: bool) -> Option<Answer> {
    let asked = async {
        let mut client = hyper::client::conn::http1::Builder::new();
        let memory = Memory { wire, at: 0, open: false };
        let (mut sender, connection) = client.max_headers(300).handshake(memory).await.ok()?;
        let mut connection = pin!(connection);
        let mut over = false;
        let method = if to_head { Method::HEAD } else { Method::GET };
        let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new());
        let mut answer = pin!(async {
            let (parts, body) = sender.send_request(request.expect("a request")).await.ok()?.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let pairs = parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            Some(Answer { status: parts.status.as_u16(), headers: headers(pairs), body })
        });
        poll_fn(|cx| {
            over = over || connection.as_mut().poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    };
    run(asked).flatten()
}

/// Polls until it is ready: memory never lets anybody wait.
fn run<F: Future>(future: F) -> Option<F::Output> {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    (0..10_000).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    })
}

/// A connection that brings these bytes, and takes any.
struct Memory {
    wire: Vec<u8>,
    at: usize,
    /// Whether anybody has asked yet: who answers, answers then.
    open: bool,
}

impl Read for Memory {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.open {
            return Poll::Pending;
        }
        let step = (self.wire.len() - self.at).min(out.remaining());
        let (from, to) = (self.at, self.at + step);
        out.put_slice(&self.wire[from..to]);
        self.at = to;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
