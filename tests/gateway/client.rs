//! A client that writes exactly the bytes it is given. curl and openssl are the real ones; this one is for what they
//! would never send, for what has to happen between two bytes, and for thousands of requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Ca, SOON};

/// An answer, as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON, {error}: {self:?}"))
    }
}

/// One connection. Everything that is waited for is waited for up to [`SOON`].
pub struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

/// A connection through TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// To a port of 127.0.0.1.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::new(tcp(port))
    }

    /// Ends the writing side, and leaves the reading side open.
    pub fn end_of_input(&self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).expect("a connection");
    }
}

impl Client<TlsStream> {
    /// To a port of 127.0.0.1, as this name.
    #[track_caller]
    pub fn connect_tls(port: u16, name: &str, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a host name");
        let mut session = ClientConnection::new(config.clone(), name).expect("a client");
        let mut stream = tcp(port);
        while session.is_handshaking() {
            session.complete_io(&mut stream).expect("a handshake");
        }
        Self::new(StreamOwned::new(session, stream))
    }

    /// How long a read waits from here on.
    #[track_caller]
    pub fn set_read_timeout(&self, wait: std::time::Duration) {
        self.stream.get_ref().sock.set_read_timeout(Some(wait)).expect("a timeout");
    }

    pub fn session(&self) -> &ClientConnection {
        &self.stream.get_ref().conn
    }
}

/// A connection to a port of 127.0.0.1, which waits for ever for nothing.
#[track_caller]
pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    stream.set_nodelay(true).expect("a TCP connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream.set_write_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// A client's TLS that trusts `ca`.
pub fn tls_config(ca: &Ca, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the gateway reads");
    }

    /// As [`Self::send`], where the gateway may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// A request without a body, and its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        self.reply()
    }

    /// A whole answer.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a whole answer")
    }

    /// A whole answer; an error when it ends early, or never begins.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.try_head()?;
        if matches!(reply.status, 101 | 204 | 304) {
            return Ok(reply);
        }
        let length = reply.header("content-length").map(|length| length.parse().expect("a number"));
        match (reply.header("transfer-encoding"), length) {
            (Some("chunked"), None) => {
                while let Some(chunk) = self.try_chunk()? {
                    reply.body.extend(chunk);
                }
            }
            (None, Some(length)) => {
                reply.body = vec![0; length];
                self.stream.read_exact(&mut reply.body)?;
            }
            (None, None) => {
                self.stream.read_to_end(&mut reply.body)?;
            }
            framing => panic!("framed twice, or not at all: {framing:?}"),
        }
        Ok(reply)
    }

    /// The head of an answer; its body is left to be read.
    #[track_caller]
    pub fn head(&mut self) -> Reply {
        self.try_head().expect("a head")
    }

    fn try_head(&mut self) -> io::Result<Reply> {
        loop {
            let line = self.line()?;
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
            let mut reply = Reply { status, headers: Vec::new(), body: Vec::new() };
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').expect("a header");
                reply.headers.push((name.to_owned(), value.trim().to_owned()));
            }
            // 100 Continue and its kin are no answers.
            if status == 101 || status >= 200 {
                return Ok(reply);
            }
        }
    }

    /// One chunk of a chunked body, as it was framed; none at the end.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().expect("a whole chunk")
    }

    fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        assert_eq!(self.line()?, "");
        Ok((size > 0).then_some(chunk))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Exactly so many bytes.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.try_bytes(count).expect("the bytes")
    }

    /// Exactly so many bytes; an error when the connection ends before.
    pub fn try_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything up to the end of the connection, however it ends.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the connection stays open, after {:?}", rest.escape_ascii().to_string())
            }
            _ => rest,
        }
    }
}

/// Sets it when dropped: threads that ask until something is done end, however a test does.
pub struct WhenDropped<'a>(pub &'a AtomicBool);

impl Drop for WhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
