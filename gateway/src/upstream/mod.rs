//! Servers that answer: their addresses, whose turn it is, and which are left out for a while.

pub(crate) mod http2;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use keygate_config::{Server, UpstreamProtocol, UpstreamTimeouts};
use tls::ServerTls;

/// A server that refused a connection is left out for so long, as nginx's `fail_timeout`.
const LEFT_OUT: Duration = Duration::from_secs(10);

/// A group of servers, as one snapshot sees it. What servers and counters know outlives snapshots.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// How long a server may take.
    pub timeouts: UpstreamTimeouts,
    /// Requests in flight at a time, if bounded.
    pub max_in_flight: Option<u32>,
    /// Its servers.
    pub servers: Vec<Arc<ServerState>>,
    /// TLS to each of them, in the same order; none at all where plain HTTP is spoken.
    pub tls: Vec<Arc<ServerTls>>,
    /// What is spoken with them.
    pub protocol: UpstreamProtocol,
    /// What is counted for it across snapshots.
    pub state: Arc<UpstreamState>,
}

/// What is counted for an upstream across snapshots.
#[derive(Debug, Default)]
pub struct UpstreamState {
    turn: AtomicUsize,
    in_flight: AtomicI64,
}

/// What is known of a server across snapshots.
#[derive(Debug)]
pub struct ServerState {
    /// As the file writes it.
    pub server: Server,
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// Milliseconds since `epoch` until which it is left out.
    left_out_until: AtomicU64,
    epoch: Instant,
}

impl ServerState {
    /// A server that nothing is known of yet, but for an address it is named by.
    #[must_use]
    pub fn new(server: Server) -> Self {
        let addresses = server.address().into_iter().collect();
        Self {
            server,
            addresses: ArcSwap::from_pointee(addresses),
            turn: AtomicUsize::new(0),
            left_out_until: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// Asks the resolver for the server's addresses. What was known stays when it has no answer.
    ///
    /// # Errors
    /// Those of the resolver.
    pub async fn resolve(&self) -> std::io::Result<()> {
        if self.server.address().is_some() {
            return Ok(());
        }
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host(self.server.as_str()).await?.collect();
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() && **self.addresses.load() != found {
            tracing::info!(server = self.server.as_str(), addresses = ?found, "server resolved");
            self.addresses.store(Arc::new(found));
        }
        Ok(())
    }

    /// Whether an address of it is known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    /// How many addresses are known of it.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.addresses.load().len()
    }

    /// One of its addresses, in turn.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        (!addresses.is_empty()).then(|| addresses[self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len()])
    }

    /// Leaves it out for a while. Answers whether it was in until now.
    pub fn failed(&self) -> bool {
        let was_up = self.is_up();
        let until = self.epoch.elapsed() + LEFT_OUT;
        self.left_out_until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        was_up
    }

    /// Takes it in again.
    pub fn succeeded(&self) {
        if self.left_out_until.load(Ordering::Relaxed) != 0 {
            self.left_out_until.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let until = self.left_out_until.load(Ordering::Relaxed);
        until == 0 || u128::from(until) <= self.epoch.elapsed().as_millis()
    }
}

/// A request in flight; it is counted until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<UpstreamState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    /// Counts a request in; `None` when there are as many as there may be.
    #[must_use]
    pub fn enter(&self) -> Option<InFlight> {
        let before = self.state.in_flight.fetch_add(1, Ordering::Relaxed);
        let guard = InFlight(self.state.clone());
        self.max_in_flight.is_none_or(|max| before < i64::from(max)).then_some(guard)
    }

    /// What tells connections to one of its servers from those of other TLS; 0 without TLS.
    #[must_use]
    pub fn tls_id(&self, server: usize) -> u64 {
        self.tls.get(server).map_or(0, |tls| tls.id)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// The server whose turn it is, of those not tried yet: those up first, and when none is, those left out.
    #[must_use]
    pub fn pick(&self, tried: &[usize]) -> Option<usize> {
        let start = self.state.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.servers.len()).map(|n| start.wrapping_add(n) % self.servers.len());
        let mut untried = in_turn.filter(|n| !tried.contains(n) && self.servers[*n].is_resolved());
        let mut fallback = None;
        untried
            .find(|n| {
                fallback = fallback.or(Some(*n));
                self.servers[*n].is_up()
            })
            .or(fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(max_in_flight: Option<u32>) -> Upstream {
        let text = "[upstreams.a]\nservers = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]".to_owned();
        let loaded = keygate_config::parse(keygate_config::Source { path: "keygate.toml".into(), text }).unwrap();
        let config = &loaded.config.upstreams["a"];
        Upstream {
            name: "a".into(),
            timeouts: config.timeouts,
            protocol: config.protocol,
            max_in_flight,
            servers: config.servers.iter().map(|s| Arc::new(ServerState::new(s.value.clone()))).collect(),
            tls: Vec::new(),
            state: Arc::default(),
        }
    }

    #[test]
    fn servers_take_turns() {
        let upstream = upstream(None);
        let turns: Vec<_> = (0..6).map(|_| upstream.pick(&[]).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_failed_server_is_left_out_unless_there_is_no_other() {
        let upstream = upstream(None);
        upstream.servers[1].failed();
        assert!((0..9).all(|_| upstream.pick(&[]) != Some(1)));
        assert_eq!(upstream.pick(&[0, 2]), Some(1));
        assert_eq!(upstream.pick(&[0, 1, 2]), None);
        upstream.servers[1].succeeded();
        assert!((0..3).any(|_| upstream.pick(&[]) == Some(1)));
    }

    #[test]
    fn requests_in_flight_are_bounded() {
        let upstream = upstream(Some(2));
        let (one, two) = (upstream.enter(), upstream.enter());
        assert!(one.is_some() && two.is_some());
        assert!(upstream.enter().is_none());
        drop(one);
        assert!(upstream.enter().is_some());
        drop(two);
        assert_eq!(upstream.in_flight(), 0);
    }
}
