//! The pingora lane: HTTP/2 from clients, HTTP/1.1 to servers.
//!
//! The order a request meets: who asks, route, body size, rate limits, split, server; then the response's edits, and
//! its line in the log.

mod answer;
mod exchange;
mod http2;
mod response;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use keygate_config::ListenerLimits;
use pingora_core::apps::HttpServerOptions;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session};

use crate::http1::fields::Name;
use crate::http1::head::{self, Refusal};
use crate::live::Live;
use crate::policy::decide::{
    Answer, Request, body_too_large, decide, exhausted, request_timeout, upstream_timeout, upstream_unavailable,
};
use crate::policy::forward;
use exchange::Exchange;
pub(crate) use exchange::fresh_request_id;
pub(crate) use http2::serve_http2;

/// pingora's proxy with our policy.
pub type EdgeProxy = HttpProxy<Edge>;

/// What is decided about the requests of the pingora lane.
pub struct Edge {
    live: Arc<Live>,
}

/// Attempts at an upstream's servers, in all.
const MAX_ATTEMPTS: usize = 5;
/// Streams of one HTTP/2 connection at a time, as nginx.
const H2_STREAMS: u32 = 128;
/// The largest decoded header list of an HTTP/2 request, in bytes.
const H2_HEADER_LIST: u32 = 64 << 10;

/// A proxy for one worker, with connections of its own to servers.
#[must_use]
pub fn edge_proxy(live: Arc<Live>) -> Arc<EdgeProxy> {
    let conf = ServerConf { max_retries: MAX_ATTEMPTS, threads: 1, ..ServerConf::default() };
    let mut proxy = HttpProxy::new(Edge { live }, Arc::new(conf));
    let mut h2 = H2Options::new();
    h2.max_concurrent_streams(H2_STREAMS).max_header_list_size(H2_HEADER_LIST);
    proxy.h2_options = Some(h2);
    proxy.server_options = Some(server_options());
    proxy.handle_init_modules();
    Arc::new(proxy)
}

fn server_options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // Refused in `request_filter`, with our own error.
    options.allow_connect_method_proxying = true;
    options
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // pingora's default is compression, switched off.
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        if !exchange.begin(session, &self.live) {
            return Err(Error::explain(ErrorType::InternalError, "a request without a connection"));
        }
        let listener = exchange.listener().clone();
        session.set_read_timeout(Some(listener.timeouts.request_body.0));
        session.set_write_timeout(Some(listener.timeouts.send.0));
        join_cookies(session);
        if let Err(refusal) = check(session, &listener.limits) {
            self.live.metrics.refused.with_label_values(&[refusal.reason()]).inc();
            let answer = Answer::new(refusal.status(), "malformed-request", refusal.to_string());
            return self.answer(session, exchange, &answer).await;
        }
        let request = session.req_header();
        let target = String::from_utf8_lossy(request.raw_path()).into_owned();
        let asked = Request {
            method: request.method.as_str(),
            target: &target,
            host: &exchange.host,
            announced: announced_body(request),
            client: exchange.origin().client,
        };
        let decision = decide(exchange.snapshot(), &listener, &asked, &request.headers);
        self.live.metrics.decided(&decision);
        match exchange.take(decision) {
            None => Ok(false),
            Some(answer) if answer.status == 204 => self.answer_nothing(session, exchange, &answer).await,
            Some(answer) => self.answer(session, exchange, &answer).await,
        }
    }

    async fn upstream_peer(&self, _: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        let upstream = exchange.upstream.clone().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        // All were asked, and yet there is to be another attempt: a pooled connection was stale, not the server down.
        let server = upstream.pick(&exchange.tried).or_else(|| upstream.pick(&[]));
        let Some((server, address)) = server.and_then(|n| upstream.servers[n].address().map(|a| (n, a))) else {
            return Err(Error::explain(ErrorType::ConnectNoRoute, "no server has a known address").into_up());
        };
        exchange.tried.push(server);
        if !upstream.tls.is_empty() {
            // In the clear it would be asked for what is to be secret.
            return Err(Error::explain(ErrorType::ConnectNoRoute, "TLS to servers is HTTP/1.1's alone").into_up());
        }
        // Each attempt sends the body from its beginning.
        (exchange.body_in, exchange.body_times) = (0, None);
        exchange.server = Some(address);
        let mut peer = HttpPeer::new(address, false, String::new());
        let timeouts = upstream.timeouts;
        peer.options.connection_timeout = Some(timeouts.connect.0);
        peer.options.total_connection_timeout = Some(timeouts.connect.0);
        peer.options.read_timeout = Some(timeouts.first_byte.0);
        peer.options.write_timeout = Some(timeouts.send.0);
        peer.options.idle_timeout = Some(timeouts.idle.0);
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        _: Option<&pingora_core::protocols::Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if let (Some(upstream), Some(server)) = (&exchange.upstream, exchange.tried.last()) {
            upstream.servers[*server].succeeded();
        }
        Ok(())
    }

    /// Nothing has been sent: another server may be asked, whatever the method.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let (Some(upstream), Some(server)) = (&exchange.upstream, exchange.tried.last()) {
            if is_ours(&error) {
                return error;
            }
            if upstream.servers[*server].failed() {
                tracing::warn!(upstream = upstream.name, server = %peer._address, %error, "left out for a while");
            }
            self.live.metrics.upstream_errors.with_label_values(&[&upstream.name, "connect"]).inc();
            error.set_retry(upstream.pick(&exchange.tried).is_some());
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let is_forged = |name: &&HeaderName| forward::is_forged(name.as_str().as_bytes());
        let forged: Vec<HeaderName> = request.headers.keys().filter(is_forged).cloned().collect();
        for name in forged {
            request.remove_header(&name);
        }
        let host = request.headers.get(header::HOST).cloned();
        let received = &session.req_header().headers;
        let host = host.as_ref().map(HeaderValue::as_bytes);
        let mut done = Ok(());
        forward::headers(exchange.origin(), host, &exchange.request_id, received, |name, value| {
            if done.is_ok() {
                done = request.insert_header(HeaderName::from_static(name), value);
            }
        });
        done
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.body_in += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if exchange.body_in > exchange.body_limit {
            return Err(Error::explain(ErrorType::HTTPStatus(413), "the request body is too large").into_down());
        }
        let now = Instant::now();
        exchange.body_times = Some((exchange.body_times.map_or(now, |(began, _)| began), now));
        // Once the answer has begun, both talk as they please.
        if !end && exchange.first_byte.is_none() && exchange.is_slow() {
            return Err(Error::explain(ErrorType::ReadTimedout, "the request body is too slow").into_down());
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        _: &mut Exchange,
    ) -> Result<()> {
        response::check(response.version, response.status, &response.headers)
            .map_err(|bad| Error::explain(ErrorType::InvalidHTTPHeader, bad.to_string()).into_up())?;
        if response.status == http::StatusCode::NO_CONTENT {
            response.remove_header(&header::CONTENT_LENGTH);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.first_byte.get_or_insert_with(|| exchange.started.elapsed());
        if response.status.is_informational() {
            return Ok(());
        }
        remove_hop_by_hop(response);
        exchange.edit(response)
    }

    /// The server is done with it; the client may still be sending.
    fn response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<std::time::Duration>> {
        if end {
            exchange.in_flight = None;
        }
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        // The server had nothing to answer: the rest of the request was not there. This is how a client that falls silent
        // is noticed, as pingora has no time-out for the bodies of HTTP/2.
        let request = session.req_header();
        let asked_first = request.headers.contains_key(header::EXPECT) && exchange.body_in == 0;
        let waiting = *error.etype() == ErrorType::ReadTimedout && session.response_written().is_none();
        let unfinished = waiting && !session.is_body_done() && !asked_first;
        let source = if unfinished { &ErrorSource::Downstream } else { error.esource() };
        let answer = match (source, error.etype()) {
            (_, ErrorType::HTTPStatus(413)) => Some(body_too_large()),
            (_, ErrorType::HTTPStatus(code)) => Some(Answer::new(*code, "error", "the request failed")),
            (ErrorSource::Upstream, _) if is_ours(error) => Some(exhausted()),
            (ErrorSource::Upstream, kind) => {
                use ErrorType::{ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
                let late = matches!(kind, ConnectTimedout | ReadTimedout | TLSHandshakeTimedout | WriteTimedout);
                Some(if late { upstream_timeout() } else { upstream_unavailable() })
            }
            (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(request_timeout()),
            (ErrorSource::Downstream, kind) => match kind {
                ErrorType::WriteError
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::WriteTimedout
                | ErrorType::H2Error => None,
                _ => Some(Answer::new(400, "bad-request", "the request is malformed")),
            },
            _ => Some(Answer::new(500, "internal", "the gateway failed; its log says why")),
        };
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        // The kind only: pingora's context quotes what the upstream sent.
        exchange.error = Some(format!("{} {}", source.as_str(), error.etype().as_str()));
        if let Some(upstream) = &exchange.upstream
            && *source == ErrorSource::Upstream
            && !is_ours(error)
        {
            let what = if status == 504 { "timeout" } else { "failed" };
            self.live.metrics.upstream_errors.with_label_values(&[&upstream.name, what]).inc();
        }
        // The server is done with it; the client may not be.
        exchange.in_flight = None;
        // Once the answer has begun, all that is left is to cut it short, so that the client sees that it is.
        if let Some(answer) = answer.filter(|_| session.response_written().is_none())
            && let Err(error) = self.answer(session, exchange, &answer).await
        {
            tracing::debug!(%error, "the client is gone before its error");
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        exchange.end(session, &self.live);
    }

    /// Errors are in the access log.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Exchange,
        _: &Error,
        _: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Whether a connection could not be opened for want of descriptors or ports here, which is not the server's failure.
fn is_ours(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::SocketError | ErrorType::BindError | ErrorType::InternalError)
}

/// Holds an HTTP/2 head to the rules and limits of HTTP/1, whose heads the front door has seen to. Its size is counted as
/// the same head would be in HTTP/1, a line for each field.
fn check(session: &Session, limits: &ListenerLimits) -> std::result::Result<(), Refusal> {
    let request = session.req_header();
    let line = |name: &str, value: &[u8]| (name.len() + value.len() + 4) as u64;
    let target = (request.method.as_str().len() + request.raw_path().len()) as u64;
    let fields: u64 = request.headers.iter().map(|(name, value)| line(name.as_str(), value.as_bytes())).sum();
    if target > limits.head_size.0 {
        return Err(Refusal::TargetSize);
    }
    if target + fields > limits.head_size.0 {
        return Err(Refusal::HeadSize);
    }
    if request.headers.len() > usize::from(limits.header_count) {
        return Err(Refusal::HeaderCount);
    }
    if request.headers.keys().any(|name| Name::of(name.as_str().as_bytes()) == Name::Disguised) {
        return Err(Refusal::Header);
    }
    // One HTTP/2 frames by itself, and h2 looks at the first only: an HTTP/1 server would see them all.
    let mut lengths = request.headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| head::content_length(length.as_bytes()).is_some();
    if !lengths.next().is_none_or(is_number) || lengths.next().is_some() {
        return Err(Refusal::ContentLength);
    }
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let hosts = request.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    head::check_http2(request.method.as_str().as_bytes(), request.raw_path(), authority.into_iter().chain(hosts))
}

/// RFC 9113, 8.2.3: clients may send cookies a line each, servers of HTTP/1 know one line only.
fn join_cookies(session: &mut Session) {
    let mut cookies = session.req_header().headers.get_all(header::COOKIE).iter();
    if cookies.by_ref().nth(1).is_none() {
        return;
    }
    let lines = session.req_header().headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let joined = lines.collect::<Vec<_>>().join(&b"; "[..]);
    // What was valid in parts is valid as a whole.
    let _ = session.req_header_mut().insert_header(header::COOKIE, joined);
}

/// Bytes the request says its body has.
fn announced_body(request: &RequestHeader) -> u64 {
    let length = request.headers.get(header::CONTENT_LENGTH);
    length.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Takes off what is between the upstream and us alone (RFC 9110, 7.6.1), but for what frames the body.
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    let named: Vec<HeaderName> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| ![header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name))
        .collect();
    for name in named.iter().map(HeaderName::as_str).chain(["keep-alive", "proxy-connection"]) {
        response.remove_header(name);
    }
}
