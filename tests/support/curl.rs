use std::ffi::OsStr;
use std::process::Command;

use serde_json::Value;

use super::{Finished, run};

/// What curl received.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// "1.1" or "2".
    pub version: String,
    /// In the order they came, names as they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The time all of it took.
    pub seconds: f64,
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    /// All headers of this name.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON, {error}: {self:?}"))
    }
}

/// Why curl received nothing.
#[derive(Debug, Clone)]
pub struct CurlFailure {
    /// curl's exit code: 7 refused, 28 too slow, 35 TLS, 52 empty reply, 60 certificate.
    pub code: i32,
    pub message: String,
}

/// Runs the real curl. It must receive an answer, of whatever status.
#[track_caller]
pub fn curl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Response {
    match try_curl(args) {
        Ok(response) => response,
        Err(failure) => panic!("curl failed: {failure:?}"),
    }
}

/// Runs the real curl. A URL with `{a,b}` or `[1-3]` makes several requests, on one connection where the server lets
/// it: the answer is the last.
pub fn try_curl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Response, CurlFailure> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (head, body) = (dir.path().join("head"), dir.path().join("body"));
    let mut command = Command::new("curl");
    // -q: nobody's .curlrc; the arguments come last, so that they may say otherwise.
    command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "30", "-w", "%{json}", "-D"]).arg(&head);
    command.arg("-o").arg(&body).args(args);
    let done = run(&mut command, b"");
    if done.code != 0 {
        return Err(CurlFailure { code: done.code, message: done.stderr });
    }
    let wrote = serde_json::Deserializer::from_str(&done.stdout).into_iter::<Value>().last();
    let wrote = wrote.expect("an answer").expect("curl writes JSON");
    let head = String::from_utf8_lossy(&std::fs::read(head).expect("a head")).into_owned();
    // 100 Continue and the like have heads of their own, before the last.
    let last = head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
    let headers = last.lines().skip(1).filter_map(|line| line.split_once(':'));
    Ok(Response {
        status: wrote["http_code"].as_u64().and_then(|code| code.try_into().ok()).expect("a status"),
        version: wrote["http_version"].as_str().expect("a version").to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
        body: std::fs::read(body).unwrap_or_default(),
        seconds: wrote["time_total"].as_f64().expect("a time"),
    })
}

/// Runs the real openssl.
#[track_caller]
pub fn openssl<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, stdin: &[u8]) -> Finished {
    run(Command::new("openssl").args(args), stdin)
}
