//! Servers are asked, one after the other, until there is the head of an answer.

use std::io;
use std::net::SocketAddr;

use keygate_config::UpstreamProtocol;
use tokio::time::Instant;

use super::Exchange;
use crate::http1::fields::Name;
use crate::http1::response::Malformed;
use crate::lane::attempt::{Answered, Attempt, Bounds, Failure};
use crate::lane::connect::{NoConnection, kind_of};
use crate::lane::relay::Pump;
use crate::lane::server::Server;
use crate::lane::write;
use crate::lane::{Downstream, unless_gone};
use crate::policy::decide::{Answer, exhausted, request_timeout, upstream_timeout, upstream_unavailable};
use crate::upstream::Upstream;
use crate::upstream::tls::refuses_us;

/// Attempts at an upstream's servers, in all.
const MAX_ATTEMPTS: usize = 5;
/// Addresses of a server's name that are tried for one connection.
const MOST_ADDRESSES: usize = 4;

/// Why there is no answer to pass on.
pub(super) enum NoAnswer {
    /// The gateway answers in the server's place.
    Instead(Answer),
    /// The client is gone.
    Gone,
}

impl Exchange<'_> {
    /// Asks one server after the other, until there is the head of an answer.
    pub(super) async fn ask<D: Downstream>(
        &mut self,
        client: &mut D,
        upload: &mut Pump<'_>,
        body: &[u8],
        upgrade: bool,
    ) -> Result<(Server, Answered), NoAnswer> {
        let upstream = self.decision.upstream.clone().ok_or(NoAnswer::Gone)?;
        // A body that has not come whole cannot be sent again.
        let whole = upload.has_ended();
        let mut tried: Vec<usize> = Vec::new();
        let (mut again, mut was_stale) = (None, false);
        for _ in 0..MAX_ATTEMPTS {
            let stale = std::mem::take(&mut was_stale);
            let next = again.take().or_else(|| {
                let place = upstream.pick(&tried)?;
                Some((place, upstream.servers[place].address()?))
            });
            let Some((place, address)) = next else { break };
            self.told.server = Some(address);
            let pooled = match upstream.protocol {
                UpstreamProtocol::Http1 if stale => None,
                // A connection of HTTP/2 that has ended is known to have.
                _ => self.lane.waiting(&upstream, place, address).await,
            };
            let reused = pooled.is_some() && !stale;
            let mut server = match pooled {
                Some(server) => server,
                None => match unless_gone(client, whole, self.connect(&upstream, place, address)).await {
                    Err(_) => return Err(self.no_answer(&upstream, Failure::Gone("ConnectionClosed"))),
                    Ok(Ok((server, address))) => {
                        self.told.server = Some(address);
                        server
                    }
                    Ok(Err(error)) if !error.is_theirs() => return Err(NoAnswer::Instead(exhausted())),
                    Ok(Err(error)) => {
                        tried.push(place);
                        if upstream.pick(&tried).is_none() {
                            return Err(self.failed(&upstream, error.is_late()));
                        }
                        continue;
                    }
                },
            };
            let mut request = self.lane.buffers.take();
            let name = upstream.servers[place].server.as_str();
            let lines = self.lines();
            write::request(&mut request, &self.asked.head, &lines, &self.origin, &self.request_id, name, upgrade);
            request.extend_from_slice(body);
            let now = Instant::now();
            let attempt = Attempt {
                client: &mut *client,
                upload: &mut *upload,
                server: &mut server,
                request: &request,
                sent: 0,
                bounds: self.bounds(&upstream),
                edits: self.edits(),
                to_head: self.method() == "HEAD",
                interim: !self.asked.head.http10,
                expects: self.lines().first(Name::Expect).is_some(),
                began: self.started,
                since: now,
                spoke: false,
                open: true,
            };
            let (answered, sent) = attempt.run(self.lane.buffers.take()).await;
            let all_sent = sent == request.len();
            self.lane.buffers.put(request);
            match answered {
                Ok(answered) if answered.head.status == 101 && !upgrade => {
                    return Err(self.malformed(&upstream, Malformed::StatusLine));
                }
                Ok(mut answered) => {
                    self.told.first_byte = Some(self.started.elapsed());
                    // A request that has a hole is not gone on with.
                    answered.open &= all_sent;
                    return Ok((server, answered));
                }
                // The handshake's end, for the server: the request has not been read.
                Err(Failure::Closed { error, silent: true }) if !reused && refuses_us(&error) => {
                    self.left_out(&upstream, place, address, &NoConnection::Tls(error));
                    tried.push(place);
                    if !whole || upstream.pick(&tried).is_none() {
                        return Err(self.failed(&upstream, false));
                    }
                }
                // RFC 9113, 8.7: the server says that it has done nothing about it.
                Err(Failure::Closed { error, silent: true })
                    if whole && error.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    again = Some((place, address));
                }
                // RFC 9112, 9.3.1: it had been closed before the request came, and nothing is lost by asking again.
                // A stream of HTTP/2 that fails alone is another matter.
                Err(Failure::Closed { error, silent: true })
                    if reused
                        && whole
                        && error.kind() != io::ErrorKind::InvalidInput
                        && (sent == 0 || is_idempotent(self.method())) =>
                {
                    (again, was_stale) = (Some((place, address)), true);
                }
                Err(failure) => return Err(self.no_answer(&upstream, failure)),
            }
        }
        self.told.error.get_or_insert_with(|| "Upstream ConnectNoRoute".to_owned());
        Err(self.failed(&upstream, false))
    }

    pub(super) fn bounds(&self, upstream: &Upstream) -> Bounds {
        Bounds { client: self.listener.timeouts, limits: self.listener.limits, server: upstream.timeouts }
    }

    /// Opens a connection to a server, by one of its addresses: the next ones are tried before the server is given up.
    async fn connect(
        &mut self,
        upstream: &Upstream,
        place: usize,
        first: SocketAddr,
    ) -> Result<(Server, SocketAddr), NoConnection> {
        let server = &upstream.servers[place];
        let mut address = first;
        for left in (0..server.addresses().clamp(1, MOST_ADDRESSES)).rev() {
            let error = match self.lane.open(upstream, place, address).await {
                Ok(stream) => {
                    server.succeeded();
                    return Ok((stream, address));
                }
                Err(error) => error,
            };
            if !error.is_theirs() {
                tracing::warn!(%error, "no connection to a server can be opened");
                self.told.error = Some("Internal SocketError".to_owned());
                return Err(error);
            }
            match server.address().filter(|_| left > 0) {
                Some(next) => {
                    self.count(upstream, &error);
                    address = next;
                }
                None => {
                    self.left_out(upstream, place, address, &error);
                    return Err(error);
                }
            }
        }
        Err(NoConnection::Tcp(io::ErrorKind::AddrNotAvailable.into()))
    }

    fn count(&mut self, upstream: &Upstream, error: &NoConnection) {
        self.lane.live.metrics.upstream_errors.with_label_values(&[&upstream.name, error.counted()]).inc();
        self.told.error = Some(format!("Upstream {}", error.kind()));
    }

    /// Counts what failed, and leaves the server out for a while.
    fn left_out(&mut self, upstream: &Upstream, place: usize, address: SocketAddr, error: &NoConnection) {
        self.count(upstream, error);
        if upstream.servers[place].failed() {
            tracing::warn!(upstream = upstream.name, server = %address, %error, "server left out");
        }
    }

    pub(super) fn no_answer(&mut self, upstream: &Upstream, failure: Failure) -> NoAnswer {
        let (error, no_answer) = match failure {
            Failure::Closed { error, .. } => (format!("Upstream {}", kind_of(&error)), self.failed(upstream, false)),
            Failure::Late => ("Upstream ReadTimedout".to_owned(), self.failed(upstream, true)),
            Failure::Malformed(malformed) => return self.malformed(upstream, malformed),
            Failure::Body(stop) => return NoAnswer::Instead(self.refused(&stop)),
            Failure::Slow => ("Downstream ReadTimedout".to_owned(), NoAnswer::Instead(request_timeout())),
            Failure::Gone(why) => (format!("Downstream {why}"), NoAnswer::Gone),
        };
        self.told.error = Some(error);
        no_answer
    }

    pub(super) fn count_failed(&self, upstream: &Upstream, timed_out: bool) {
        let what = if timed_out { "timeout" } else { "failed" };
        self.lane.live.metrics.upstream_errors.with_label_values(&[&upstream.name, what]).inc();
    }

    fn failed(&self, upstream: &Upstream, timed_out: bool) -> NoAnswer {
        self.count_failed(upstream, timed_out);
        NoAnswer::Instead(if timed_out { upstream_timeout() } else { upstream_unavailable() })
    }

    pub(super) fn malformed(&mut self, upstream: &Upstream, malformed: Malformed) -> NoAnswer {
        self.told.error = Some(format!("Upstream InvalidHTTPHeader {malformed}"));
        self.failed(upstream, false)
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}
