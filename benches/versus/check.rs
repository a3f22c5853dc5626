//! Whether a proxy does the job: asked before it is measured, so that none is fast by leaving something out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::load::tls;
use crate::peers::{Edge, Peer, Running};

const FIVE: [&str; 5] =
    ["x-frame-options", "x-content-type-options", "content-security-policy", "referrer-policy", "permissions-policy"];

/// # Panics
/// When something is left out, with what.
pub fn same_job(running: &Running, edge: &Edge) {
    let host = &edge.hosts[0];
    let path = format!("{}/headers", edge.paths[0].trim_end_matches('/'));
    let plain = get(TcpStream::connect(running.http).expect("it listens"), host, &path);
    let config = tls::config(&rustls::version::TLS13, false, false);
    let session = ClientConnection::new(config, tls::NAME.try_into().expect("a name")).expect("a configuration");
    let stream = StreamOwned::new(session, TcpStream::connect(running.https).expect("it listens"));
    let secure = get(stream, host, &path);
    for (scheme, answer) in [("http", plain), ("https", secure)] {
        let complain = |what: &str| -> ! { panic!("{} over {scheme}: {what}\n{answer:?}", running.peer.name()) };
        let text = answer.as_deref().unwrap_or_else(|error| complain(error));
        let (head, received) = text.split_once("\r\n\r\n").unwrap_or_else(|| complain("no head"));
        if !head.starts_with("HTTP/1.1 200 ") {
            complain("not 200");
        }
        if let Some(missing) = FIVE.iter().find(|name| header(head, name).is_none()) {
            complain(missing);
        }
        if header(head, "x-powered-by").is_some() || header(head, "server") == Some("origin") {
            complain("the origin shows");
        }
        let id = header(received, "x-request-id").unwrap_or_else(|| complain("no request id for the origin"));
        if header(head, "x-request-id") != Some(id) || id.len() < 16 {
            complain("the answer's request id");
        }
        let client = "127.0.0.1";
        let forwarded_for = match running.peer {
            // For clients on loopback it gives an address of the machine's.
            Peer::Envoy => header(received, "x-forwarded-for").unwrap_or_else(|| complain("x-forwarded-for")),
            _ => client,
        };
        for (name, value) in [
            ("host", host.as_str()),
            ("x-real-ip", client),
            ("x-forwarded-for", forwarded_for),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", host),
        ] {
            if header(received, name) != Some(value) {
                complain(name);
            }
        }
        logged(running, id, &path);
    }
    let (metrics, expected) = running.metrics();
    assert!(metrics.contains(expected), "{}: not in its metrics: {expected}\n{metrics}", running.peer.name());
}

/// The access log has the request, as JSON.
fn logged(running: &Running, id: &str, path: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let log = std::fs::read_to_string(running.access_log()).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains(id)) {
            let line: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}: not JSON, {error}: {line}", running.peer.name()));
            assert_eq!(line["path"], path, "{}: {line}", running.peer.name());
            return;
        }
        assert!(Instant::now() < deadline, "{}: not in the access log: {id}", running.peer.name());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Between 5 and 15 of 100 requests go to green.
pub fn split(name: &str, [blue, green]: [u64; 2]) -> Result<(), String> {
    let share = green as f64 / (blue + green) as f64;
    if blue + green < 1000 || (0.05..0.15).contains(&share) {
        return Ok(());
    }
    Err(format!("{name} gives green {share}, not 0.1"))
}

/// One header of a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Asks once, and reads to the end.
pub fn get(mut stream: impl Read + Write, host: &str, path: &str) -> Result<String, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: versus/1\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    match stream.read_to_end(&mut answer) {
        // Not all say goodbye in TLS.
        Err(error) if answer.is_empty() => Err(error.to_string()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}
