//! Answers of the gateway's own.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header;
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Edge;
use super::exchange::{Exchange, fresh_request_id};
use crate::http1::head::Refusal;
use crate::listen::{Connection, LINGER_BYTES, LINGER_TIME};
use crate::live::Live;
use crate::policy::decide::Answer;
use crate::problem::{CONTENT_TYPE, Problem};
use crate::telemetry::access_log::{Line, timestamp};

/// Takes what is left of a request's body, up to a bound. The stream is reset when it has not ended by then (RFC 9113,
/// 8.1), and clients such as curl 7.88 drop the answer that they have with it.
async fn drop_body(session: &mut Session) {
    let mut left = LINGER_BYTES;
    while let Ok(Some(bytes)) = session.downstream_session.read_request_body().await
        && left > 0
    {
        left = left.saturating_sub(bytes.len());
    }
}

impl Edge {
    /// Answers a request with a problem. Always `Ok(true)`: "a response was sent", as pingora's filter has it.
    pub(super) async fn answer(&self, session: &mut Session, exchange: &Exchange, answer: &Answer) -> Result<bool> {
        let problem = Problem::new(answer.status, answer.kind, &answer.detail, Some(&exchange.request_id));
        let body = Bytes::from(problem.body());
        let mut response = ResponseHeader::build(answer.status, Some(12))?;
        response.insert_header(header::CONTENT_TYPE, CONTENT_TYPE)?;
        response.insert_header(header::CONTENT_LENGTH, body.len())?;
        response.insert_header(header::CACHE_CONTROL, "no-store")?;
        if let Some((name, value)) = &answer.header {
            response.insert_header(*name, value)?;
        }
        exchange.edit(&mut response)?;
        let no_body = session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(response), no_body).await?;
        if !no_body {
            session.write_response_body(Some(body), true).await?;
        }
        // Who was too slow is not waited for.
        if answer.status != 408 {
            let _ = tokio::time::timeout(LINGER_TIME, drop_body(session)).await;
        }
        Ok(true)
    }

    /// Answers 204. Always `Ok(true)`, as [`Self::answer`].
    pub(super) async fn answer_nothing(
        &self,
        session: &mut Session,
        exchange: &Exchange,
        answer: &Answer,
    ) -> Result<bool> {
        let mut response = ResponseHeader::build(answer.status, Some(4))?;
        if let Some((name, value)) = &answer.header {
            response.insert_header(*name, value)?;
        }
        exchange.edit(&mut response)?;
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }

    /// The whole answer to a request that the front door refused, which is counted and logged here.
    pub(crate) fn refuse(live: &Arc<Live>, connection: &Connection, refusal: Refusal) -> Vec<u8> {
        let snapshot = live.snapshot();
        let policy = snapshot.listener(connection);
        let (status, reason) = (refusal.status(), refusal.reason());
        live.metrics.refused.with_label_values(&[reason]).inc();
        let request_id = &*fresh_request_id();
        let detail = refusal.to_string();
        let problem = Problem::new(status, "malformed-request", &detail, Some(request_id));
        let body = problem.body();
        let mut answer = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n\
             connection: close\r\nx-request-id: {request_id}\r\ndate: {}\r\n",
            problem.title,
            body.len(),
            httpdate::fmt_http_date(SystemTime::now()),
        )
        .into_bytes();
        if !policy.headers.replaces(b"cache-control", connection.tls.is_some()) {
            answer.extend_from_slice(b"cache-control: no-store\r\n");
        }
        answer.extend_from_slice(policy.headers.lines(connection.tls.is_some()));
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        live.access_log.load().log(&Line {
            time: timestamp(SystemTime::now()),
            request_id,
            client: connection.peer.ip().to_canonical(),
            listener: &connection.listener,
            protocol: "HTTP/1.1",
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
        answer
    }
}
