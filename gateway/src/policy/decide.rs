//! What becomes of a request: the one decision that every lane asks for.
//!
//! The order a request meets: method, redirect, route, body size, rate limits, split, requests in flight.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keygate_config::RateKey;

use super::Fields;
use super::limit::{Limit, Verdict, key_of};
use super::path::Readings;
use crate::live::{ListenerPolicy, Route, Snapshot};
use crate::upstream::{InFlight, Upstream};

/// A request, as every lane shows it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, as they came.
    pub target: &'a str,
    /// The host asked for: lower case, without port; empty when there is none.
    pub host: &'a str,
    /// Bytes its body is announced to have; zero when it is not said.
    pub announced: u64,
    /// Who asks.
    pub client: IpAddr,
}

/// What becomes of it.
#[derive(Debug)]
pub struct Decision {
    /// The route it takes, if it came so far.
    pub route: Option<Arc<Route>>,
    /// Who shall answer, if it came so far.
    pub upstream: Option<Arc<Upstream>>,
    /// The tightest of the limits it was counted by.
    pub limit: Option<(Arc<Limit>, Verdict)>,
    /// The most bytes its body may have.
    pub body_limit: u64,
    /// Whether it is forwarded.
    pub then: Then,
}

/// Whether a request is forwarded.
#[derive(Debug)]
pub enum Then {
    /// To the decision's upstream, where it is counted until this is dropped.
    Forward(InFlight),
    /// The gateway answers.
    Answer(Answer),
}

/// An answer of the gateway's own: a problem (RFC 9457), or nothing with status 204.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The problem's type.
    pub kind: &'static str,
    /// This occurrence, in words.
    pub detail: Cow<'static, str>,
    /// A header beside it.
    pub header: Option<(&'static str, String)>,
    /// What it is counted as.
    pub counted: Counted,
}

/// What an answer of the gateway's own is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// As an answer only.
    No,
    /// Refused, for this reason.
    Refused(&'static str),
    /// Over the decision's limit.
    Limited,
    /// The upstream had no room.
    Overload,
}

impl Answer {
    /// With this status and type, in these words.
    pub fn new(status: u16, kind: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, detail: detail.into(), header: None, counted: Counted::No }
    }
}

/// Decides. Rate limits, the split's turn and requests in flight are counted here.
#[must_use]
pub fn decide(snapshot: &Snapshot, listener: &ListenerPolicy, request: &Request<'_>, fields: &impl Fields) -> Decision {
    let (mut route, mut upstream, mut limit) = (None, None, None);
    let mut body_limit = listener.limits.body_size.0;
    let then = 'then: {
        // Methods as `Allow` tells them; others are forwarded as well.
        let allow = || Some(("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
        if matches!(request.method, "CONNECT" | "TRACE") {
            let answer = Answer::new(405, "method-not-allowed", "this method is not served");
            break 'then Then::Answer(Answer { header: allow(), ..answer });
        }
        // RFC 9110, 9.3.7: this asks about the server as a whole, which no route is.
        if request.target == "*" {
            break 'then Then::Answer(Answer { header: allow(), ..Answer::new(204, "options", "") });
        }
        if listener.redirect {
            break 'then Then::Answer(redirect(request));
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let found = Readings::new(path).and_then(|path| path.agree(|path| snapshot.route(request.host, path)));
        let taken = match found {
            Ok(Some(taken)) => taken,
            Ok(None) => break 'then Then::Answer(Answer::new(404, "no-route", "nothing is served here")),
            Err(error) => {
                let answer = Answer::new(400, "bad-path", error.to_string());
                break 'then Then::Answer(Answer { counted: Counted::Refused("path"), ..answer });
            }
        };
        route = Some(taken.clone());
        body_limit = taken.body_size.unwrap_or(body_limit);
        if request.announced > body_limit {
            break 'then Then::Answer(body_too_large());
        }
        match within_limits(taken, request, fields) {
            Ok(tightest) => limit = tightest,
            Err(doubled) => {
                let answer = Answer::new(400, "doubled-header", doubled.to_string());
                break 'then Then::Answer(Answer { counted: Counted::Refused("rate-limit-key"), ..answer });
            }
        }
        if limit.as_ref().is_some_and(|(_, verdict)| !verdict.allowed) {
            let answer = Answer::new(429, "rate-limited", "too many requests");
            break 'then Then::Answer(Answer { counted: Counted::Limited, ..answer });
        }
        let turn = taken.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = taken.backends[taken.split.pick(turn)].upstream.clone();
        let entered = chosen.enter();
        upstream = Some(chosen);
        match entered {
            Some(in_flight) => Then::Forward(in_flight),
            None => {
                let answer = Answer::new(503, "overload", "the service has as many requests in flight as it may");
                let header = Some(("retry-after", "1".to_owned()));
                Then::Answer(Answer { header, counted: Counted::Overload, ..answer })
            }
        }
    };
    Decision { route, upstream, limit, body_limit, then }
}

/// A body that is larger than its route allows.
#[must_use]
pub fn body_too_large() -> Answer {
    Answer::new(413, "body-too-large", "the request body is too large")
}

/// The service took too long.
#[must_use]
pub fn upstream_timeout() -> Answer {
    Answer::new(504, "upstream-timeout", "the service did not answer in time")
}

/// The service cannot be reached, or what it says is no answer.
#[must_use]
pub fn upstream_unavailable() -> Answer {
    Answer::new(502, "upstream-unavailable", "the service cannot be reached or gave no valid answer")
}

/// The gateway itself has no descriptors, ports or memory left.
#[must_use]
pub fn exhausted() -> Answer {
    let header = Some(("retry-after", "1".to_owned()));
    Answer { header, ..Answer::new(503, "exhausted", "the gateway has nothing left to open a connection with") }
}

/// The client took too long over its body.
#[must_use]
pub fn request_timeout() -> Answer {
    Answer::new(408, "request-timeout", "the request body did not arrive in time")
}

/// To the same address, by https.
fn redirect(request: &Request<'_>) -> Answer {
    if request.host.is_empty() || !request.target.starts_with('/') {
        return Answer::new(400, "bad-request", "a redirect needs a Host");
    }
    let host: Cow<'_, str> =
        if request.host.contains(':') { format!("[{}]", request.host).into() } else { request.host.into() };
    let header = Some(("location", format!("https://{host}{}", request.target)));
    Answer { header, ..Answer::new(301, "moved", "this service speaks https") }
}

/// Asks all of a route's limits; the tightest, or the first that says no.
fn within_limits(
    route: &Route,
    request: &Request<'_>,
    fields: &impl Fields,
) -> Result<Option<(Arc<Limit>, Verdict)>, super::limit::Doubled> {
    // All are known before the first is counted: a request that is refused for its key costs nobody anything.
    let mut keys = Vec::new();
    for limit in &route.limits {
        if let RateKey::Header(name) = &limit.key {
            keys.push(key_of(fields, name)?);
        }
    }
    let mut keys = keys.into_iter();
    let mut tightest: Option<(&Arc<Limit>, Verdict)> = None;
    for limit in &route.limits {
        let key = if matches!(limit.key, RateKey::Header(_)) { keys.next().flatten() } else { None };
        let verdict = limit.check(request.client, key.as_deref(), &route.name);
        let tighter = tightest.is_none_or(|(_, before)| verdict.remaining < before.remaining);
        if tighter || !verdict.allowed {
            tightest = Some((limit, verdict));
        }
        if !verdict.allowed {
            break;
        }
    }
    Ok(tightest.map(|(limit, verdict)| (limit.clone(), verdict)))
}
