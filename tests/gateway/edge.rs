//! A gateway that serves.

use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{Client, Reply};
use crate::support::{Ca, CurlFailure, Home, Keygate, Response, SOON, free_port, run, try_curl, wait_until};

/// A gateway that serves, and the ports that `$HTTP` and `$HTTPS` in its file became.
pub struct Edge {
    pub keygate: Keygate,
    pub home: Home,
    pub http: u16,
    pub https: u16,
}

/// A TLS listener with the certificate of [`tls_home`].
pub const TLS: &str = r#"
[listeners.https]
bind = ["127.0.0.1:$HTTPS"]
tls.certificates = [{ cert = "tls/site.crt", key = "tls/site.key" }]
"#;

/// A folder with a certificate for `names`, and the `ca.pem` to trust.
pub fn tls_home(ca: &Ca, names: &[&str]) -> Home {
    let home = Home::new("");
    let leaf = ca.leaf(names);
    home.write("ca.pem", &ca.cert);
    home.write("tls/site.crt", &leaf.cert);
    home.secret("tls/site.key", &leaf.key);
    home
}

/// What most tests need: a plain listener, the upstream "service", and the route "all" to it; with more lines in each
/// of their tables, and more tables in `rest`.
#[derive(Default)]
pub struct Simple<'a> {
    pub servers: &'a [String],
    pub listener: &'a str,
    pub upstream: &'a str,
    pub route: &'a str,
    pub rest: &'a str,
}

impl Simple<'_> {
    pub fn toml(&self) -> String {
        let Self { servers, listener, upstream, route, rest } = self;
        format!(
            "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n{listener}\n\
             [upstreams.service]\nservers = {servers:?}\n{upstream}\n\
             [[routes]]\nname = \"all\"\nbackends = [{{ upstream = \"service\" }}]\n{route}\n{rest}\n"
        )
    }

    #[track_caller]
    pub fn start(&self) -> Edge {
        self.start_in(&Home::new(""))
    }

    #[track_caller]
    pub fn start_in(&self, home: &Home) -> Edge {
        Edge::start(home, &self.toml())
    }
}

impl Edge {
    /// Writes the file, starts the gateway and waits until it serves.
    #[track_caller]
    pub fn start(home: &Home, config: &str) -> Self {
        let (http, https) = (free_port(), free_port());
        home.config(&with_ports(config, http, https));
        let mut edge = Self { keygate: home.start("gateway"), home: home.clone(), http, https };
        edge.wait_ready();
        edge
    }

    /// Starts it again, after it has ended, with the file as it is now.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.keygate.exited().is_some(), "it still runs");
        self.keygate = self.home.start("gateway");
        self.wait_ready();
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        let socket = self.home.path("state/admin.sock");
        self.keygate.wait_until(SOON, "the gateway serves", |_| {
            let mut client = Client::new(UnixStream::connect(&socket).ok()?);
            client.try_send("GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
            (client.try_reply().ok()?.status == 200).then_some(())
        });
    }

    /// Writes the file anew, with the same ports.
    pub fn config(&self, config: &str) {
        self.home.config(&with_ports(config, self.http, self.https));
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://127.0.0.1:{}{target}", self.http)
    }

    /// A connection to the plain listener.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.http)
    }

    /// The real curl, to the plain listener.
    #[track_caller]
    pub fn curl<const N: usize>(&self, target: &str, args: [&str; N]) -> Response {
        let url = self.url(target);
        match try_curl(args.into_iter().chain([url.as_str()])) {
            Ok(response) => response,
            Err(failure) => panic!("curl failed: {failure:?}\n{}", self.keygate.logs()),
        }
    }

    /// The real curl, to the TLS listener as `host`, trusting `ca.pem`.
    #[track_caller]
    pub fn curl_tls<const N: usize>(&self, host: &str, target: &str, args: [&str; N]) -> Response {
        match self.try_curl_tls(host, target, args) {
            Ok(response) => response,
            Err(failure) => panic!("curl failed: {failure:?}\n{}", self.keygate.logs()),
        }
    }

    pub fn try_curl_tls<const N: usize>(
        &self,
        host: &str,
        target: &str,
        args: [&str; N],
    ) -> Result<Response, CurlFailure> {
        let ca = self.home.path("ca.pem").display().to_string();
        let to = format!("{host}:443:127.0.0.1:{}", self.https);
        let url = format!("https://{host}{target}");
        try_curl(["--cacert", &ca, "--connect-to", &to].into_iter().chain(args).chain([url.as_str()]))
    }

    /// A POST of so many bytes over HTTP/2, by node, to the TLS listener; with `content-length`, or without.
    ///
    /// Not by curl: 7.88 drops an answer whose stream is reset while it still sends.
    #[track_caller]
    pub fn post_http2(&self, target: &str, size: usize, announced: bool) -> Response {
        const SCRIPT: &str = r#"
const [url, target, size, announced] = process.argv.slice(1);
const session = require("node:http2").connect(url, { rejectUnauthorized: false });
const length = announced === "true" ? { "content-length": size } : {};
const request = session.request({ ":method": "POST", ":path": target, ...length });
const answer = { headers: [], body: "" };
request.on("response", (_, __, raw) => { answer.headers = raw; });
request.on("data", data => { answer.body += data; });
// The gateway ends the stream when it has answered; node, now and then, does not say that it did.
const done = () => { console.log(JSON.stringify(answer)); process.exit(); };
request.on("end", done);
request.on("close", done);
request.end(Buffer.alloc(Number(size), "x"));
"#;
        let url = format!("https://127.0.0.1:{}", self.https);
        let args = ["-e", SCRIPT, &url, target, &size.to_string(), &announced.to_string()];
        let answer = run(std::process::Command::new("node").args(args), b"").json();
        node_answer(&answer).expect("an answer")
    }

    /// A POST over HTTP/2, by node, that sends so many bytes, one each `pause` milliseconds, and does not end.
    #[track_caller]
    pub fn post_http2_slowly(&self, target: &str, bytes: usize, pause: usize) -> Response {
        const SCRIPT: &str = r#"
const [url, target, bytes, pause] = process.argv.slice(1);
const session = require("node:http2").connect(url, { rejectUnauthorized: false });
const request = session.request({ ":method": "POST", ":path": target });
const answer = { headers: [], body: "" };
let left = Number(bytes);
const timer = setInterval(() => left-- > 0 ? request.write("x") : clearInterval(timer), Number(pause));
request.on("response", (_, __, raw) => { answer.headers = raw; });
request.on("data", data => { answer.body += data; });
request.on("error", () => {});
const done = () => { console.log(JSON.stringify(answer)); process.exit(); };
request.on("end", done);
request.on("close", done);
"#;
        let url = format!("https://127.0.0.1:{}", self.https);
        let args = ["-e", SCRIPT, &url, target, &bytes.to_string(), &pause.to_string()];
        let answer = run(std::process::Command::new("node").args(args), b"").json();
        node_answer(&answer).expect("an answer")
    }

    /// Requests over HTTP/2 with exactly these fields, on a connection each, by node; `None` where the stream, or the
    /// connection with it, was reset.
    #[track_caller]
    pub fn http2(&self, requests: &[Vec<(&str, &str)>]) -> Vec<Option<Response>> {
        const SCRIPT: &str = r#"
const [url, requests] = process.argv.slice(1);
const ask = fields => new Promise(done => {
  const headers = { __proto__: null };
  for (const [name, value] of fields) headers[name] = name in headers ? [headers[name], value].flat() : value;
  const answer = { headers: [], body: "" };
  const session = require("node:http2").connect(url, { rejectUnauthorized: false });
  session.on("error", () => done(null));
  const request = session.request(headers);
  request.on("response", (_, __, raw) => { answer.headers = raw; });
  request.on("data", data => { answer.body += data; });
  request.on("error", () => {});
  request.on("end", () => { if (answer.headers.length) done(answer); });
  request.on("close", () => done(answer.headers.length ? answer : null));
  request.end();
});
(async () => {
  const answers = [];
  for (const fields of JSON.parse(requests)) answers.push(await ask(fields));
  console.log(JSON.stringify(answers));
  process.exit();
})();
"#;
        let url = format!("https://127.0.0.1:{}", self.https);
        let requests = serde_json::to_string(requests).expect("JSON");
        let answers = run(std::process::Command::new("node").args(["-e", SCRIPT, &url, &requests]), b"").json();
        answers.as_array().expect("answers").iter().map(node_answer).collect()
    }

    /// A call to the admin API.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Reply {
        self.admin_with(method, path, body, "")
    }

    /// A call to the admin API, with more header lines.
    #[track_caller]
    pub fn admin_with(&self, method: &str, path: &str, body: &str, headers: &str) -> Reply {
        let stream = UnixStream::connect(self.home.path("state/admin.sock")).expect("an admin socket");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut client = Client::new(stream);
        let length = body.len();
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: keygate\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ));
        client.reply()
    }

    /// `GET /v1/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin("GET", "/v1/status", "").json()
    }

    /// Sets a route's weights; answered 200, they hold.
    #[track_caller]
    pub fn set_weights(&self, route: &str, weights: &Value) {
        let reply = self.admin("PUT", &format!("/v1/routes/{route}/weights"), &weights.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The sum of a metric's samples that have these labels; none when there is no such sample.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let text = self.admin("GET", "/metrics", "").text();
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (sample_name, of) = sample.split_once('{').unwrap_or((sample, "}"));
            let has = |label: &String| of.trim_end_matches('}').split(',').any(|have| have == label);
            (sample_name == name && labels.iter().all(has)).then(|| value.parse::<f64>().expect("a number"))
        });
        samples.reduce(|a, b| a + b)
    }

    /// Waits until [`Self::metric`] is this: a request is counted after it has been answered.
    #[track_caller]
    pub fn counts(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let mut last = None;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while last != Some(wanted) && std::time::Instant::now() < deadline {
            last = self.metric(name, labels);
        }
        assert_eq!(last, Some(wanted), "{name} {labels:?}");
    }

    /// Waits until so many reloads have had this result ("ok", "error").
    #[track_caller]
    pub fn wait_reloads(&self, result: &str, count: f64) {
        wait_until(SOON, &format!("{count} reloads end with {result}"), || {
            (self.metric("keygate_reloads_total", &[("result", result)]).unwrap_or(0.0) >= count).then_some(())
        });
    }

    /// Lines of the access log on standard output.
    pub fn log_lines(&self) -> Vec<Value> {
        let text = self.keygate.stdout();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Waits for the line of a request.
    #[track_caller]
    pub fn wait_log(&mut self, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        wait_until(SOON, &format!("a log line: {what}"), || self.log_lines().into_iter().find(|line| is(line)))
    }
}

/// An answer as the scripts for node write it.
fn node_answer(answer: &Value) -> Option<Response> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let raw: Vec<String> = answer["headers"].as_array()?.iter().map(text).collect();
    let mut headers: Vec<(String, String)> = raw.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let status = headers.iter().find(|(name, _)| name == ":status")?.1.parse().expect("a status");
    headers.retain(|(name, _)| !name.starts_with(':'));
    let body = answer["body"].as_str().expect("a body").into();
    Some(Response { status, version: "2".into(), headers, body, seconds: 0.0 })
}

fn with_ports(config: &str, http: u16, https: u16) -> String {
    config.replace("$HTTPS", &https.to_string()).replace("$HTTP", &http.to_string())
}

/// Asserts that an answer is our own problem document of this status and kind, with the id it is logged by.
#[track_caller]
pub fn problem(status: u16, headers: &[(String, String)], body: &[u8], wanted: (u16, &str)) {
    let header = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let text = String::from_utf8_lossy(body);
    let json: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("not JSON, {error}: {status} {text}"));
    let kind = format!("urn:keygate:problem:{}", wanted.1);
    assert_eq!((status, json["type"].as_str()), (wanted.0, Some(kind.as_str())), "{text}");
    assert_eq!(header("content-type"), Some("application/problem+json"));
    assert_eq!(json["status"], wanted.0);
    assert!(json["title"].is_string() && json["detail"].is_string(), "{text}");
    let id = header("x-request-id").expect("an id");
    assert_eq!(json["request_id"], id);
    assert_eq!(id.len(), 36, "a fresh id is a UUID: {id}");
}

impl Reply {
    /// [`problem`]
    #[track_caller]
    pub fn is_problem(&self, status: u16, kind: &str) {
        problem(self.status, &self.headers, &self.body, (status, kind));
    }
}
