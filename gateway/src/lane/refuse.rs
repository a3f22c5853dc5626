//! The answer to what the front door refuses: it is nobody's request, and no route's.

use std::time::SystemTime;

use super::write::{self, AnswerHead, Edits, Told};
use super::{After, Downstream, Lane, send};
use crate::http1::head::Refusal;
use crate::listen::Connection;
use crate::problem::Problem;
use crate::telemetry::access_log::{Line, timestamp};
use crate::telemetry::request_id::fresh_request_id;

/// Answers, counts it and writes its line. The connection ends, where it is the request's own.
pub(crate) async fn refuse<D: Downstream>(
    lane: &Lane,
    client: &mut D,
    connection: &Connection,
    refusal: Refusal,
) -> After {
    let listener = lane.listener(connection);
    let (status, reason) = (refusal.status(), refusal.reason());
    lane.count_refused(reason);
    let request_id = &*fresh_request_id();
    let detail = refusal.to_string();
    let problem = Problem::new(status, "malformed-request", &detail, Some(request_id));
    let body = problem.body();
    let mut head = client.head(status, problem.title.as_bytes());
    let edits = Edits { policy: &listener.headers, https: connection.tls.is_some(), limit: None, request_id };
    write::own(&mut head, Some(body.len()), None, &edits, Told::of::<D>(false, false));
    head.end().extend_from_slice(&body);
    lane.live.access_log.load().log(&Line {
        time: timestamp(SystemTime::now()),
        request_id,
        client: connection.peer.ip().to_canonical(),
        listener: &connection.listener,
        protocol: if D::HTTP2 { "HTTP/2" } else { "HTTP/1.1" },
        tls: connection.tls,
        method: "-",
        host: "",
        path: "",
        status,
        route: None,
        upstream: None,
        server: None,
        bytes_in: 0,
        bytes_out: body.len() as u64,
        duration_ms: 0.0,
        upstream_ms: None,
        user_agent: None,
        error: Some(reason),
    });
    match send(client, head, listener.timeouts.send.0, true).await {
        Ok(()) => After::Close { unread: true },
        Err(_) => After::Gone,
    }
}
