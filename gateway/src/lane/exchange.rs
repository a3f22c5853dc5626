//! One request and its answer.

mod ask;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::Answered;
use super::both_ways::{Relay, Tunnel};
use super::relay::{Coding, Pump, Stop};
use super::server::Server;
use super::write::{self, AnswerHead, Edits, Framed, Lines, Told};
use super::{Asked, Downstream, Lane, send};
use crate::http1::body::Body;
use crate::http1::fields::Name;
use crate::http1::head::{Framing, Head};
use crate::http1::response::{self, Malformed};
use crate::listen::Connection;
use crate::live::{ListenerPolicy, Snapshot};
use crate::policy::decide::{Answer, Decision, Request, Then, body_too_large, decide};
use crate::policy::forward::{self, Origin};
use crate::problem::Problem;
use crate::telemetry::access_log::{Line, milliseconds, timestamp};
use crate::telemetry::request_id::fresh_request_id;
use ask::NoAnswer;

/// What becomes of the connection.
pub(crate) enum After {
    /// It waits for the next request.
    Next,
    /// It ends; the client may still be sending.
    Close { unread: bool },
    /// It has ended.
    Gone,
    /// It ends before the answer does, whose only end would be the connection's: it must not look like one.
    Cut,
}

/// A request, and what is known of it along the way.
struct Exchange<'a> {
    lane: &'a Lane,
    connection: &'a Connection,
    listener: &'a ListenerPolicy,
    asked: &'a mut Asked,
    started: Instant,
    origin: Origin,
    request_id: String,
    host: String,
    decision: Decision,
    /// Whether the client's connection can serve another request.
    keep: bool,
    told: Record,
}

/// What the log tells of it besides.
struct Record {
    protocol: &'static str,
    /// Whether it came to its end, good or bad.
    ended: bool,
    server: Option<SocketAddr>,
    status: u16,
    first_byte: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    error: Option<String>,
}

/// Answers a request, whose head has been read.
pub(crate) async fn run<D: Downstream>(
    lane: &Lane,
    client: &mut D,
    connection: &Connection,
    asked: &mut Asked,
    drain: &watch::Receiver<bool>,
) -> After {
    let started = Instant::now();
    let snapshot = lane.snapshot();
    let listener = snapshot.0.listener(connection);
    let head = &asked.head;
    let lines = asked.lines();
    let origin = forward::origin(connection.peer.ip(), connection.tls.is_some(), &lines, &listener.trusted_proxies);
    let request_id = origin.request_id.clone().unwrap_or_else(fresh_request_id);
    let host =
        forward::host(lines.first(Name::Host).and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default());
    let keep = if head.http10 { lines.connection(b"keep-alive") } else { !lines.connection(b"close") };
    let decision = judge(&snapshot.0, &listener, head, &lines, &host, &origin);
    lane.live.metrics.decided(&decision);
    let protocol = match head.http10 {
        _ if D::HTTP2 => "HTTP/2",
        true => "HTTP/1.0",
        false => "HTTP/1.1",
    };
    let told = Record {
        protocol,
        ended: false,
        server: None,
        status: 499,
        first_byte: None,
        bytes_in: 0,
        bytes_out: 0,
        error: None,
    };
    // Who asks for a tunnel may have sent what belongs into it: that is no request of theirs.
    let keep = keep
        && &lines.head[head.method.clone()] != b"CONNECT"
        && client.is_wanted(drain, listener.limits.connection_requests);
    let mut exchange = Exchange {
        lane,
        connection,
        listener: &listener,
        asked,
        started,
        origin,
        request_id,
        host,
        decision,
        keep,
        told,
    };
    let after = exchange.serve(client).await;
    exchange.told.ended = true;
    after
}

fn judge(
    snapshot: &Snapshot,
    listener: &ListenerPolicy,
    head: &Head,
    lines: &Lines<'_>,
    host: &str,
    origin: &Origin,
) -> Decision {
    let text = |range: Range<usize>| std::str::from_utf8(&lines.head[range]).unwrap_or_default();
    let announced = match head.framing {
        Framing::Length(length) => length,
        Framing::Chunked => 0,
    };
    let client = origin.client;
    let request = Request { method: text(head.method.clone()), target: text(head.path()), host, announced, client };
    decide(snapshot, listener, &request, lines)
}

impl Exchange<'_> {
    fn lines(&self) -> Lines<'_> {
        self.asked.lines()
    }

    fn method(&self) -> &str {
        std::str::from_utf8(&self.asked.input[self.asked.head.method.clone()]).unwrap_or_default()
    }

    async fn serve<D: Downstream>(&mut self, client: &mut D) -> After {
        let limit = self.decision.body_limit;
        let framing = self.asked.head.framing;
        let (body, coding) = match framing {
            // HTTP/2 ends a body by itself.
            Framing::Chunked if D::HTTP2 => (None, Coding::IntoChunks),
            framing => (Some(Body::new(framing)), Coding::Same),
        };
        let mut upload = Pump::new(body, coding, limit, &self.lane.buffers);
        // What came with the head: the body's part goes on with it, the next request's waits.
        let mut body = Vec::new();
        let fed = if D::HTTP2 {
            poll_fn(|cx| Poll::Ready(upload.gather(cx, client.io().0, &mut body))).await
        } else {
            let came = &self.asked.input[self.asked.head.len..];
            upload.feed(came, &mut body).map(|taken| client.io().1.extend_from_slice(&came[taken..]))
        };
        match fed {
            Ok(()) => {}
            Err(Stop::Source) => return After::Gone,
            Err(stop) => {
                let answer = self.refused(&stop);
                return self.answer(client, &answer, true).await;
            }
        }
        self.asked.input.truncate(self.asked.head.len);
        if let Then::Answer(answer) = &self.decision.then {
            let answer = answer.clone();
            return self.answer(client, &answer, framing != Framing::Length(0)).await;
        }
        let upgrade =
            !D::HTTP2 && !self.asked.head.http10 && self.lines().connection(b"upgrade") && self.lines().may_upgrade();
        let asked = self.ask(client, &mut upload, &body, upgrade).await;
        self.told.bytes_in = upload.content;
        match asked {
            Ok((server, answered)) if answered.head.status == 101 => self.tunnel(client, server, &answered).await,
            Ok((server, answered)) => self.pass_on(client, upload, server, answered).await,
            Err(NoAnswer::Gone) => After::Gone,
            Err(NoAnswer::Instead(answer)) => self.answer(client, &answer, framing != Framing::Length(0)).await,
        }
    }

    /// Passes an answer on, while the rest of the request goes the other way.
    async fn pass_on<D: Downstream>(
        &mut self,
        client: &mut D,
        mut upload: Pump<'_>,
        mut server: Server,
        answered: Answered,
    ) -> After {
        let Answered { head, fields, bytes, open } = answered;
        // RFC 9112, 6.1: who asks in 1.0 knows no chunks, and the body ends with the connection. HTTP/2 has none.
        let http10 = self.asked.head.http10;
        let beneath = http10 || D::HTTP2;
        let (body, coding, framed) = match head.framing {
            response::Framing::Length(length) => {
                let framed = if D::HTTP2 { Framed::Beneath } else { Framed::Same };
                (Some(Body::new(Framing::Length(length))), Coding::Same, framed)
            }
            response::Framing::Chunked if beneath => {
                (Some(Body::new(Framing::Chunked)), Coding::OutOfChunks, Framed::Beneath)
            }
            response::Framing::Chunked => (Some(Body::new(Framing::Chunked)), Coding::Same, Framed::Same),
            response::Framing::UntilClose if beneath => (None, Coding::Same, Framed::Beneath),
            response::Framing::UntilClose => (None, Coding::IntoChunks, Framed::Chunks),
        };
        let ends = http10 && (body.is_none() || coding == Coding::OutOfChunks);
        self.keep &= open && upload.has_ended() && client.half_closed().is_none() && !ends;
        let upstream = self.decision.upstream.clone();
        let mut download = Pump::new(body, coding, u64::MAX, &self.lane.buffers);
        let told = Told::of::<D>(self.keep, http10);
        let lines = Lines { head: &bytes[..head.len], fields: &fields };
        let mut out = client.head(head.status, &bytes[head.reason.clone()]);
        write::response(&mut out, &head, &lines, &self.edits(), told, framed);
        let surplus = match download.feed(&bytes[head.len..], out.end()) {
            Ok(taken) => bytes.len() - head.len > taken,
            Err(_) => {
                let failed = upstream.map(|upstream| self.malformed(&upstream, Malformed::Chunk));
                return match failed {
                    Some(NoAnswer::Instead(answer)) => self.answer(client, &answer, !upload.has_ended()).await,
                    _ => After::Gone,
                };
            }
        };
        self.lane.buffers.put(bytes);
        self.told.status = head.status;
        let Ok(out) = client.begin(out, download.is_last()) else { return After::Gone };
        download.prime(out);
        let Some(upstream) = upstream else { return After::Gone };
        let mut relay = Relay {
            client,
            upload: &mut upload,
            server: &mut server,
            download: &mut download,
            bounds: self.bounds(&upstream),
            began: self.started,
            since: self.started,
            surplus: Vec::new(),
            open,
        };
        let done = poll_fn(|cx| relay.poll(cx)).await;
        let (open, surplus) = (relay.open, surplus || !relay.surplus.is_empty());
        (self.told.bytes_in, self.told.bytes_out) = (upload.content, download.content);
        if let Err(why) = done {
            if why.starts_with("Upstream") {
                self.count_failed(&upstream, why.ends_with("ReadTimedout"));
            }
            self.told.error = Some(why.to_owned());
            return if ends { After::Cut } else { After::Gone };
        }
        let sent = upload.is_done();
        if let Some(address) = self.told.server.filter(|_| head.keep_alive && open && sent && !surplus) {
            self.lane.keep(&upstream, address, server);
        }
        // What the client has sent ahead is unread, too.
        if self.keep { After::Next } else { After::Close { unread: !sent || !client.io().1.is_empty() } }
    }

    /// After 101, bytes pass as they are, both ways, until both have ended.
    async fn tunnel<D: Downstream>(&mut self, client: &mut D, mut server: Server, answered: &Answered) -> After {
        let Answered { head, fields, bytes, .. } = answered;
        let lines = Lines { head: &bytes[..head.len], fields };
        let mut out = client.head(head.status, &bytes[head.reason.clone()]);
        write::response(&mut out, head, &lines, &self.edits(), Told::Upgrade, Framed::Same);
        out.end().extend_from_slice(&bytes[head.len..]);
        self.told.status = 101;
        let Ok(out) = client.begin(out, false) else { return After::Gone };
        let Some(upstream) = self.decision.upstream.clone() else { return After::Gone };
        let lane = self.lane;
        let pump = || Pump::new(None, Coding::Same, u64::MAX, &lane.buffers);
        let (mut up, mut down) = (pump(), pump());
        up.prime(std::mem::take(client.io().1));
        down.prime(out);
        let mut tunnel = Tunnel {
            client,
            server: &mut server,
            up: (&mut up, false),
            down: (&mut down, false),
            silence: upstream.timeouts.first_byte.0,
            since: Instant::now(),
        };
        if let Err(why) = poll_fn(|cx| tunnel.poll(cx)).await {
            self.told.error = Some(why.to_owned());
        }
        (self.told.bytes_in, self.told.bytes_out) = (up.content, down.content);
        After::Gone
    }

    pub(super) fn edits(&self) -> Edits<'_> {
        let route = self.decision.route.as_ref().and_then(|route| route.headers.as_ref());
        Edits {
            policy: route.unwrap_or(&self.listener.headers),
            https: self.origin.https,
            limit: self.decision.limit.as_ref(),
            request_id: &self.request_id,
        }
    }

    /// Answers in place of a server.
    async fn answer<D: Downstream>(&mut self, client: &mut D, answer: &Answer, unread: bool) -> After {
        // The server is done with it; the client may not be.
        self.release();
        // A body that nobody reads would be taken for the next request: the connection ends instead.
        let keep = self.keep && !unread && client.half_closed().is_none();
        let told = Told::of::<D>(keep, self.asked.head.http10);
        let problem = Problem::new(answer.status, answer.kind, &answer.detail, Some(&self.request_id));
        let body = if answer.status == 204 { Vec::new() } else { problem.body() };
        let mut out = client.head(answer.status, problem.title.as_bytes());
        let problem = (answer.status != 204).then_some(body.len());
        let besides = answer.header.as_ref().map(|(name, value)| (*name, value.as_str()));
        write::own(&mut out, problem, besides, &self.edits(), told);
        let first = out.end();
        if self.method() != "HEAD" {
            first.extend_from_slice(&body);
            self.told.bytes_out = body.len() as u64;
        }
        self.told.status = answer.status;
        let written = send(client, out, self.listener.timeouts.send.0, true).await;
        match (written, keep) {
            (Err(_), _) => After::Gone,
            (Ok(()), true) => After::Next,
            (Ok(()), false) => After::Close { unread },
        }
    }

    fn refused(&mut self, stop: &Stop) -> Answer {
        match stop {
            Stop::Refused(refusal) => {
                self.lane.live.metrics.refused.with_label_values(&[refusal.reason()]).inc();
                self.told.error = Some(format!("Downstream {}", refusal.reason()));
                Answer::new(refusal.status(), "malformed-request", refusal.to_string())
            }
            _ => body_too_large(),
        }
    }

    /// It is no longer in flight.
    fn release(&mut self) {
        self.decision.then = Then::Answer(Answer::new(0, "", ""));
    }

    /// Counts the request, and writes its line.
    fn tell(&mut self) {
        self.release();
        let live = &self.lane.live;
        let duration = self.started.elapsed();
        let route = self.decision.route.as_ref().map(|route| route.name.as_str());
        let upstream = self.decision.upstream.as_ref().map(|upstream| upstream.name.as_str());
        let text = |range: Range<usize>| std::str::from_utf8(&self.asked.input[range]).unwrap_or_default();
        let method = text(self.asked.head.method.clone());
        live.metrics.answered(self.decision.route.as_deref(), upstream, method, self.told.status, duration);
        let log = live.access_log.load();
        if !log.is_on() {
            return;
        }
        log.log(&Line {
            time: timestamp(SystemTime::now() - duration),
            request_id: &self.request_id,
            client: self.origin.client,
            listener: &self.connection.listener,
            protocol: self.told.protocol,
            tls: self.connection.tls,
            method,
            host: &self.host,
            path: text(self.asked.head.path()).split('?').next().unwrap_or_default(),
            status: self.told.status,
            route,
            upstream,
            server: self.told.server,
            bytes_in: self.told.bytes_in,
            bytes_out: self.told.bytes_out,
            duration_ms: milliseconds(duration),
            upstream_ms: self.told.first_byte.map(milliseconds),
            user_agent: self.lines().first(Name::UserAgent).and_then(|value| std::str::from_utf8(value).ok()),
            error: self.told.error.as_deref(),
        });
    }
}

impl Drop for Exchange<'_> {
    /// However it ends, there is a line for it: also when the gateway drains and waits for it no longer.
    fn drop(&mut self) {
        if !self.told.ended {
            self.told.error.get_or_insert_with(|| "Internal Cut".to_owned());
        }
        self.tell();
    }
}
