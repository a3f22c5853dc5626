//! A stream of HTTP/2: one request and its answer.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::budget::{End, Traffic};
use super::head::{self, Answer};
use crate::lane::{After, Asked, Buffers, Downstream, Lane, Sink, Source, Stop, Timer, refuse, run};
use crate::listen::{Connection, LINGER_BYTES, LINGER_TIME};

/// A stream, as the lane sees it.
pub(super) struct Stream<'a> {
    io: Io<'a>,
    timer: Timer,
    /// HTTP/2 knows where a request ends: this stays empty.
    beyond: Vec<u8>,
    buffers: &'a Buffers,
}

/// The bodies of a stream.
pub(super) struct Io<'a> {
    request: RecvStream,
    /// What came of the request's body and has not been taken.
    left: Bytes,
    respond: SendResponse<Bytes>,
    answer: Option<SendStream<Bytes>>,
    /// Whether the client asks with HEAD: what is refused may not have a body either (RFC 9113, 8.1).
    to_head: bool,
    /// Whether the answer is complete.
    ended: bool,
    traffic: &'a Traffic,
}

/// Answers a request.
pub(super) async fn answer(
    lane: &Lane,
    connection: &Connection,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    drain: &watch::Receiver<bool>,
    traffic: &Traffic,
) -> End {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let limits = lane.listener(connection).head_limits();
    // It is kept until the answer has ended: a buffer of the lane's would be much for most.
    let (mut input, mut fields) = (Vec::with_capacity(1 << 10), Vec::with_capacity(24));
    let head = head::request(&parts, body.is_end_stream(), limits, &mut input, &mut fields);
    let to_head = parts.method == Method::HEAD;
    drop(parts);
    traffic.of_use(input.len());
    let io = Io { request: body, left: Bytes::new(), respond, answer: None, to_head, ended: false, traffic };
    let mut stream = Stream { io, timer: Timer::default(), beyond: Vec::new(), buffers: &lane.buffers };
    let after = match head {
        Ok(head) => {
            let mut asked = Asked { head, input, fields };
            run(lane, &mut stream, connection, &mut asked, drain).await
        }
        Err(refusal) => refuse(lane, &mut stream, connection, refusal).await,
    };
    let reset = !stream.io.ended && poll_fn(|cx| Poll::Ready(stream.poll_gone(cx).is_err())).await;
    match after {
        After::Close { unread: true } => {
            let _ = timeout(LINGER_TIME, stream.io.drop_request()).await;
        }
        // Once the answer has begun, all that is left is to cut it short, so that the client sees that it is.
        After::Gone | After::Cut if !stream.io.ended => {
            // A reset takes what waits to be sent with it: the connection is let send that first.
            yield_now().await;
            stream.io.respond.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {}
    }
    match reset {
        true => End::Reset(began.elapsed()),
        false if stream.io.ended => End::Answered,
        false => End::Cut,
    }
}

impl Io<'_> {
    /// Takes what is left of a request's body, up to a bound. The stream is reset when it has not ended by then (RFC 9113,
    /// 8.1), and clients such as curl 7.88 drop the answer that they have with it.
    async fn drop_request(&mut self) {
        let mut left = LINGER_BYTES;
        while let Some(Ok(bytes)) = self.request.data().await
            && left > 0
        {
            left = left.saturating_sub(bytes.len());
            self.traffic.of_use(bytes.len());
            let _ = self.request.flow_control().release_capacity(bytes.len());
        }
    }
}

impl<'a> Downstream for Stream<'a> {
    type Io = Io<'a>;
    type Head = Answer;
    const HTTP2: bool = true;

    fn io(&mut self) -> (&mut Io<'a>, &mut Vec<u8>) {
        (&mut self.io, &mut self.beyond)
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let reset = match &mut self.io.answer {
            Some(answer) => answer.poll_reset(cx),
            None => self.io.respond.poll_reset(cx),
        };
        if reset.is_ready() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn half_closed(&self) -> Option<Instant> {
        None
    }

    /// Its connection sees to that.
    fn is_wanted(&self, _: &watch::Receiver<bool>, _: Option<u32>) -> bool {
        true
    }

    fn head(&mut self, status: u16, _: &[u8]) -> Answer {
        Answer::new(status, self.buffers.take())
    }

    fn begin(&mut self, mut head: Answer, last: bool) -> io::Result<Vec<u8>> {
        if self.io.to_head {
            head.body.clear();
        }
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
        if head.status.is_informational() {
            self.io.respond.send_informational(response).map_err(broken)?;
        } else {
            self.io.ended = last && head.body.is_empty();
            self.io.answer = Some(self.io.respond.send_response(response, self.io.ended).map_err(broken)?);
        }
        Ok(head.body)
    }

    fn spare(&mut self, buffer: Vec<u8>) {
        self.buffers.put(buffer);
    }
}

impl Source for Io<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = into.len();
        let done = loop {
            if self.left.is_empty() {
                match self.request.poll_data(cx) {
                    Poll::Ready(Some(Ok(bytes))) => {
                        // What is not taken from here holds the client back: it is one frame at most.
                        let _ = self.request.flow_control().release_capacity(bytes.len());
                        self.traffic.of_use(bytes.len());
                        self.left = bytes;
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(broken(error))),
                    Poll::Ready(None) => break Poll::Ready(Ok(0)),
                    Poll::Pending => break Poll::Pending,
                }
            }
            // A chunk's end has to follow, and not to make the buffer grow.
            let room = (into.capacity() - into.len()).saturating_sub(2);
            if room == 0 {
                break Poll::Pending;
            }
            let taken = self.left.split_to(room.min(self.left.len()));
            into.extend_from_slice(&taken);
        };
        // What broke, or the end, is found again.
        match into.len() - before {
            0 => done,
            n => Poll::Ready(Ok(n)),
        }
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Stop>> {
        let trailers = ready!(self.request.poll_trailers(cx)).map_err(|_| Stop::Source)?;
        Poll::Ready(
            trailers.map_or(Ok(Vec::new()), |trailers| head::request_trailers(&trailers)).map_err(Stop::Refused),
        )
    }
}

impl Sink for Io<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.ended) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        answer.reserve_capacity(bytes.len());
        while answer.capacity() == 0 {
            match ready!(answer.poll_capacity(cx)) {
                Some(more) => more.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let step = bytes.len().min(answer.capacity());
        self.ended = last && step == bytes.len();
        answer.send_data(Bytes::copy_from_slice(&bytes[..step]), self.ended).map_err(broken)?;
        self.traffic.of_use(step);
        Poll::Ready(Ok(step))
    }

    /// The connection sends all that there is.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.ended) else {
            return Poll::Ready(Ok(()));
        };
        self.ended = true;
        let trailers = if trailers.is_empty() { HeaderMap::new() } else { head::answer_trailers(trailers) };
        let sent =
            if trailers.is_empty() { answer.send_data(Bytes::new(), true) } else { answer.send_trailers(trailers) };
        Poll::Ready(sent.map_err(broken))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx, &[])
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
