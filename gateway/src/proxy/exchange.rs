//! One request and its answer: what is known of it along the way, and what is told of it at the end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{self, HeaderValue};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::listen::Connection;
use crate::live::{ListenerPolicy, Live, Route, Snapshot};
use crate::policy::decide::{Answer, Decision, Then};
use crate::policy::forward::{self, Origin, X_REQUEST_ID};
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::{Limit, Verdict};
use crate::telemetry::access_log::{Line, milliseconds, timestamp};
use crate::upstream::{InFlight, Upstream};

/// One request and its answer.
pub struct Exchange {
    pub(super) started: Instant,
    pub(super) request_id: String,
    /// Lower case, without port; empty when there is none.
    pub(super) host: String,
    pub(super) route: Option<Arc<Route>>,
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) server: Option<std::net::SocketAddr>,
    /// Places, in the upstream's list, of servers that were asked.
    pub(super) tried: Vec<usize>,
    limit: Option<(Arc<Limit>, Verdict)>,
    pub(super) body_limit: u64,
    pub(super) body_in: u64,
    /// When the body began to arrive, and when its last part did.
    pub(super) body_times: Option<(Instant, Instant)>,
    pub(super) first_byte: Option<Duration>,
    pub(super) error: Option<String>,
    begun: Option<Begun>,
}

/// What is there from the moment the head has been read.
struct Begun {
    connection: Arc<Connection>,
    snapshot: Arc<Snapshot>,
    listener: Arc<ListenerPolicy>,
    origin: Origin,
}

const NOT_BEGUN: &str = "an exchange begins before anything is asked of it";

impl Default for Exchange {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            request_id: "-".to_owned(),
            host: String::new(),
            route: None,
            upstream: None,
            in_flight: None,
            server: None,
            tried: Vec::new(),
            limit: None,
            body_limit: u64::MAX,
            body_in: 0,
            body_times: None,
            first_byte: None,
            error: None,
            begun: None,
        }
    }
}

impl Exchange {
    /// Reads who asks for what. False when the request came by no connection of ours: never.
    pub(super) fn begin(&mut self, session: &Session, live: &Live) -> bool {
        let Some(connection) = connection(session) else {
            return false;
        };
        let snapshot = live.snapshot();
        let listener = snapshot.listener(&connection);
        let request = session.req_header();
        let tls = connection.tls.is_some();
        let origin = forward::origin(connection.peer.ip(), tls, &request.headers, &listener.trusted_proxies);
        self.request_id = origin.request_id.clone().unwrap_or_else(fresh_request_id);
        self.host = host(request);
        self.begun = Some(Begun { connection, snapshot, listener, origin });
        true
    }

    fn begun(&self) -> &Begun {
        self.begun.as_ref().expect(NOT_BEGUN)
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.begun().snapshot
    }

    pub(super) fn listener(&self) -> &Arc<ListenerPolicy> {
        &self.begun().listener
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.begun().origin
    }

    /// Whether the body that has come so far came too slowly: a client that sends a byte now and then would hold its
    /// place for ever. It has the longest pause on top of what the rate grants.
    pub(super) fn is_slow(&self) -> bool {
        let listener = self.listener();
        let rate = listener.limits.body_min_rate.0;
        let Some((began, last)) = self.body_times else { return false };
        let granted = Duration::from_millis(self.body_in.saturating_mul(1000).checked_div(rate).unwrap_or(u64::MAX));
        last.duration_since(began) > listener.timeouts.request_body.0.saturating_add(granted)
    }

    /// Takes what was decided; the gateway's own answer, when it is one.
    pub(super) fn take(&mut self, decision: Decision) -> Option<Answer> {
        let Decision { route, upstream, limit, body_limit, then } = decision;
        (self.route, self.upstream, self.limit, self.body_limit) = (route, upstream, limit, body_limit);
        match then {
            Then::Forward(in_flight) => {
                self.in_flight = Some(in_flight);
                None
            }
            Then::Answer(answer) => Some(answer),
        }
    }

    fn header_policy(&self) -> Option<&Arc<HeaderPolicy>> {
        let route = self.route.as_ref().and_then(|route| route.headers.as_ref());
        route.or(self.begun.as_ref().map(|begun| &begun.listener.headers))
    }

    /// The edits that every answer gets.
    pub(super) fn edit(&self, response: &mut ResponseHeader) -> Result<()> {
        if let Some(policy) = self.header_policy() {
            for name in policy.removed() {
                response.remove_header(name);
            }
            let https = self.begun.as_ref().is_some_and(|begun| begun.origin.https);
            for (name, value) in policy.set(https) {
                response.insert_header(name.clone(), value.clone())?;
            }
            if policy.edits_cookies() && response.headers.contains_key(header::SET_COOKIE) {
                let cookies: Vec<HeaderValue> = response.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
                response.remove_header(&header::SET_COOKIE);
                for cookie in cookies {
                    let edited = policy.cookie(cookie.as_bytes()).and_then(|v| HeaderValue::from_bytes(&v).ok());
                    response.append_header(header::SET_COOKIE, edited.unwrap_or(cookie))?;
                }
            }
        }
        let mut done = Ok(());
        if let Some((limit, verdict)) = &self.limit {
            limit.headers(*verdict, |name, value| {
                if done.is_ok() {
                    done = response.insert_header(name, value);
                }
            });
        }
        done?;
        response.insert_header(X_REQUEST_ID, &self.request_id)
    }

    /// Counts the request, and writes its line.
    pub(super) fn end(&mut self, session: &Session, live: &Live) {
        self.in_flight = None;
        let Some(begun) = &self.begun else { return };
        let request = session.req_header();
        // 499: the client was gone before there was an answer, as nginx has it.
        let status = session.response_written().map_or(499, |response| response.status.as_u16());
        let route = self.route.as_ref().map(|route| route.name.as_str());
        let upstream = self.upstream.as_ref().map(|upstream| upstream.name.as_str());
        let duration = self.started.elapsed();
        live.metrics.answered(self.route.as_deref(), upstream, request.method.as_str(), status, duration);
        let log = live.access_log.load();
        if !log.is_on() {
            return;
        }
        let path = String::from_utf8_lossy(request.raw_path());
        log.log(&Line {
            time: timestamp(SystemTime::now() - duration),
            request_id: &self.request_id,
            client: begun.origin.client,
            listener: &begun.connection.listener,
            protocol: "HTTP/2",
            tls: begun.connection.tls,
            method: request.method.as_str(),
            host: &self.host,
            path: path.split('?').next().unwrap_or_default(),
            status,
            route,
            upstream,
            server: self.server,
            bytes_in: self.body_in,
            bytes_out: session.body_bytes_sent() as u64,
            duration_ms: milliseconds(duration),
            upstream_ms: self.first_byte.map(milliseconds),
            user_agent: request.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()),
            error: self.error.as_deref(),
        });
    }
}

/// A request id that nobody else has.
pub(crate) fn fresh_request_id() -> String {
    // Unlike anybody else's; not beyond guessing, which would cost a system call each.
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

/// The connection a request came by: pingora carries it in the digest.
fn connection(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().cloned()
}

/// The host asked for, as [`forward::host`] has it.
fn host(request: &RequestHeader) -> String {
    // RFC 9113, 8.3.1: `:authority` comes first.
    let of_header = || request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    forward::host(request.uri.authority().map(http::uri::Authority::as_str).or_else(of_header).unwrap_or_default())
}
