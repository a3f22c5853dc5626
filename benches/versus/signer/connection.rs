//! A kept connection on which requests are made one after another. What it costs is in every figure: it costs little.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// To one of those who sign.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn unix(socket: &Path) -> io::Result<Self> {
        Ok(Self::of(Box::new(UnixStream::connect(socket)?)))
    }

    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::of(Box::new(stream)))
    }

    fn of(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: vec![0; 16 << 10] }
    }

    /// Sends a request: the status of its answer, and the body, which has its length before it.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request)?;
        let mut len = 0;
        loop {
            match self.stream.read(&mut self.buffer[len..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => len += read,
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.buffer[..len]).map_err(io::Error::other)?;
            let httparse::Status::Complete(head) = parsed else { continue };
            let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
            let whole = head + length.expect("every answer says its length");
            let status = response.code.expect("it has one");
            if len >= whole {
                return Ok((status, self.buffer[head..whole].to_vec()));
            }
        }
    }
}
