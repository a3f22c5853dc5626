//! The four proxies: how each is configured, started, and told to read its configuration again.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::template::{Context, Value, render};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Keygate,
    Nginx,
    Haproxy,
    Envoy,
}

/// The job that all are given.
#[derive(Clone)]
pub struct Edge {
    pub hosts: Vec<String>,
    /// Of each host, as prefixes.
    pub paths: Vec<String>,
    /// Rate limits go by `X-Api-Key`, not by address.
    pub limits_by_key: bool,
    /// X-Frame-Options: what a reload changes, to be seen from outside.
    pub frame_options: &'static str,
}

/// A peer at work, in a folder of its own, on ports of its own.
pub struct Running {
    pub peer: Peer,
    pub process: Process,
    pub http: SocketAddr,
    pub https: SocketAddr,
    admin: SocketAddr,
    origins: [u16; 2],
    dir: TempDir,
}

impl Peer {
    pub const ALL: [Self; 4] = [Self::Keygate, Self::Nginx, Self::Haproxy, Self::Envoy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Keygate => "keygate",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        }
    }

    /// Where the program is: keygate is built with this bench, the others are where `benches/versus/run` put them.
    /// `VERSUS_KEYGATE` and its like name others.
    pub fn program(self) -> PathBuf {
        let (variable, default) = match self {
            Self::Keygate => ("VERSUS_KEYGATE", env!("CARGO_BIN_EXE_keygate")),
            Self::Nginx => ("VERSUS_NGINX", "nginx"),
            Self::Haproxy => ("VERSUS_HAPROXY", "haproxy"),
            Self::Envoy => ("VERSUS_ENVOY", "envoy"),
        };
        std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from)
    }

    /// What it says its version is.
    ///
    /// # Panics
    /// When it is not there.
    pub fn version(self) -> String {
        let program = self.program();
        let flag = if matches!(self, Self::Nginx | Self::Haproxy) { "-v" } else { "--version" };
        let output = Command::new(&program).arg(flag).output().unwrap_or_else(|error| {
            panic!("{} cannot be run: {error}. Start benches/versus/run, which installs it.", program.display())
        });
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut numbers = text.split(|c: char| c.is_whitespace() || c == '/' || c == '-');
        let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        numbers.find(is_version).unwrap_or("unknown").to_owned()
    }

    /// The files of its configuration, as templates.
    fn templates(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Keygate => &[("keygate.toml", include_str!("peers/keygate.toml"))],
            Self::Nginx => &[("nginx.conf", include_str!("peers/nginx.conf"))],
            Self::Haproxy => &[
                ("haproxy.cfg", include_str!("peers/haproxy.cfg")),
                ("routes.map", include_str!("peers/haproxy-routes.map")),
            ],
            Self::Envoy => &[
                ("envoy.yaml", include_str!("peers/envoy.yaml")),
                ("routes.yaml", include_str!("peers/envoy-routes.yaml")),
            ],
        }
    }

    fn command(self) -> Vec<String> {
        let arguments = match self {
            Self::Keygate => "gateway -c keygate.toml",
            Self::Nginx => "-e error.log -p . -c nginx.conf",
            Self::Haproxy => "-W -f haproxy.cfg",
            Self::Envoy => {
                "-c envoy.yaml --concurrency 1 --disable-hot-restart --log-level error --file-flush-interval-msec 1000"
            }
        };
        let program = self.program().display().to_string();
        [program].into_iter().chain(arguments.split(' ').map(str::to_owned)).collect()
    }
}

impl Edge {
    /// So many routes: 100 paths a host, or fewer.
    pub fn with_routes(routes: usize) -> Self {
        let (hosts, paths) = if routes <= 100 { (1, routes) } else { (routes.div_ceil(100), 100) };
        let hosts = match hosts {
            1 => vec![crate::load::tls::NAME.to_owned()],
            _ => (0..hosts).map(|host| format!("api-{host:03}.example.com")).collect(),
        };
        let paths = match paths {
            1 => vec!["/".to_owned()],
            _ => (0..paths).map(|path| format!("/service-{path:02}")).collect(),
        };
        Self { hosts, paths, limits_by_key: false, frame_options: "DENY" }
    }
}

impl Running {
    /// Starts a peer on a core, before these origins, and waits until it answers.
    pub fn start(peer: Peer, core: usize, origins: [u16; 2], edge: &Edge) -> Self {
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(place()).expect("a folder");
        // nginx' worker is another user when its master is root.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own folder");
        let tls = rcgen::generate_simple_self_signed(vec![crate::load::tls::NAME.to_owned()]).expect("a certificate");
        let (cert, key) = (tls.cert.pem(), tls.signing_key.serialize_pem());
        for (name, content) in [("tls.crt", &cert), ("tls.key", &key), ("tls.pem", &(cert.clone() + &key))] {
            fs::write(dir.path().join(name), content).expect("our own folder");
        }
        let [http, https, admin] = free_addresses();
        // HAProxy's standard output is its access log, see its configuration.
        let stdout = dir.path().join(if peer == Peer::Haproxy { "access.log" } else { "stdout.log" });
        for (name, text) in files(peer, [http, https, admin], origins, dir.path(), edge) {
            fs::write(dir.path().join(name), text).expect("our own folder");
        }
        let process = Process::start(&core.to_string(), dir.path(), &stdout, &peer.command());
        let mut running = Self { peer, process, http, https, admin, origins, dir };
        running.wait_until_it_listens();
        running
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.http).is_err() {
            if let Some(end) = self.process.ended() {
                panic!("{} ended: {end}", self.peer.name());
            }
            let printed = || self.process.printed();
            assert!(Instant::now() < deadline, "{} does not listen: {}", self.peer.name(), printed());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a new configuration beside the one in use.
    pub fn prepare(&self, edge: &Edge) {
        for (name, text) in files(self.peer, [self.http, self.https, self.admin], self.origins, self.dir.path(), edge) {
            fs::write(self.beside(name), text).expect("our own folder");
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.new"))
    }

    /// Puts the prepared configuration in the old one's place, and has it read. This is when the peer is told, which for
    /// most is not when it is done.
    pub fn reload(&self) {
        // Envoy is told by the file of its routes, which it watches; its other file cannot change.
        for (name, _) in self.peer.templates().iter().filter(|(name, _)| *name != "envoy.yaml") {
            fs::rename(self.beside(name), self.dir.path().join(name)).expect("our own folder");
        }
        match self.peer {
            Peer::Keygate => {
                let config = self.dir.path().join("keygate.toml");
                let output = Command::new(self.peer.program()).arg("reload").arg("-c").arg(config).output();
                let output = output.expect("it was started before");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            Peer::Nginx => self.process.signal(Signal::HUP),
            Peer::Haproxy => self.process.signal(Signal::USR2),
            Peer::Envoy => {}
        }
    }

    pub fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    /// Its metrics, as it exports them, and what must be among them.
    pub fn metrics(&self) -> (String, &'static str) {
        let (path, expected) = match self.peer {
            Peer::Keygate => ("/metrics", "http_requests_total{"),
            Peer::Nginx => ("/metrics", "server accepts handled requests"),
            Peer::Haproxy => ("/metrics", "haproxy_server_http_responses_total{"),
            Peer::Envoy => ("/stats/prometheus", "envoy_cluster_upstream_rq_total{"),
        };
        let answer = if self.peer == Peer::Keygate {
            let stream = std::os::unix::net::UnixStream::connect(self.dir.path().join("admin.sock"));
            crate::check::get(stream.expect("it listens"), "keygate", path)
        } else {
            crate::check::get(TcpStream::connect(self.admin).expect("it listens"), "127.0.0.1", path)
        };
        (answer.unwrap_or_else(|error| panic!("{}: {error}", self.peer.name())), expected)
    }
}

/// Its configuration for this job.
fn files(
    peer: Peer,
    [http, https, admin]: [SocketAddr; 3],
    [blue, green]: [u16; 2],
    dir: &Path,
    edge: &Edge,
) -> Vec<(&'static str, String)> {
    let path = |(number, path): (usize, &String)| Context::from([("path", path.into()), ("number", number.into())]);
    let paths = edge.paths.iter().enumerate().map(path).collect::<Vec<_>>();
    let host = |host: &String| Context::from([("host", host.into()), ("paths", Value::List(paths.clone()))]);
    let context = Context::from([
        ("http", http.port().into()),
        ("https", https.port().into()),
        ("admin", admin.port().into()),
        ("blue", blue.into()),
        ("green", green.into()),
        ("dir", dir.display().into()),
        ("files", crate::open_files().into()),
        ("frame_options", edge.frame_options.into()),
        ("by_address", Value::section(!edge.limits_by_key)),
        ("by_header", Value::section(edge.limits_by_key)),
        ("hosts", Value::List(edge.hosts.iter().map(host).collect())),
    ]);
    peer.templates().iter().map(|(name, template)| (*name, render(template, &context))).collect()
}

const FOLDER: &str = "versus-";

/// Removes the folders of runs that were ended before their end: their logs take memory.
pub fn tidy() {
    for entry in fs::read_dir(place()).expect("a folder").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Memory is the same disk for all; without enough of it, the disk that the build is on.
fn place() -> &'static Path {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    if free > 4 << 30 { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) }
}

/// Held all at once, so that they differ.
fn free_addresses() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound"))
}
