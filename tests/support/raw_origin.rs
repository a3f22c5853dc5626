use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::read_request;

/// What a [`RawOrigin`] does on a connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads until these bytes have come.
    ReadUntil(&'static [u8]),
    /// Writes these bytes, whatever they mean.
    Send(Vec<u8>),
    /// Writes these bytes one by one, with a pause between: a slow server.
    Drip(Vec<u8>, Duration),
    /// Does nothing for so long. Tests of time-outs need it; nothing else does.
    Pause(Duration),
    /// Reads until the other side has closed.
    ReadToEnd,
    /// Answers 200 with an empty body to each request, as [`read_request`] reads them; ends at one that is malformed.
    Serve,
    /// Ends the connection at once, with a reset if anything is unread.
    Close,
}

/// A server that plays a script on every connection, and records the bytes it was sent.
pub struct RawOrigin {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RawOrigin {
    /// Plays `script` on every connection.
    pub fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port())).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let received = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let own = Arc::clone(&received);
        // It ends with the tests: a listener costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let index = {
                    let mut connections = own.lock().unwrap_or_else(PoisonError::into_inner);
                    connections.push(Vec::new());
                    connections.len() - 1
                };
                let (own, script) = (Arc::clone(&own), script.clone());
                std::thread::spawn(move || {
                    play(&stream, &script, |bytes| {
                        own.lock().unwrap_or_else(PoisonError::into_inner)[index].extend_from_slice(bytes);
                    });
                });
            }
        });
        Self { addr, received }
    }

    /// Reads a head, then answers with these bytes, and ends the connection.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        Self::start(vec![Step::ReadUntil(b"\r\n\r\n"), Step::Send(bytes.into()), Step::Close])
    }

    pub fn server(&self) -> String {
        self.addr.to_string()
    }

    /// What came, a connection each.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut connections = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter_mut().map(std::mem::take).filter(|bytes| !bytes.is_empty()).collect()
    }

    /// Waits until a connection has brought these bytes.
    #[track_caller]
    pub fn wait_for(&self, bytes: &[u8]) {
        super::wait_until(super::SOON, &format!("an origin receives {:?}", String::from_utf8_lossy(bytes)), || {
            self.received().iter().any(|connection| contains(connection, bytes)).then_some(())
        });
    }
}

/// Reads, and records what it read.
struct Tee<'a, F> {
    stream: &'a TcpStream,
    record: F,
}

impl<F: FnMut(&[u8])> Read for Tee<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.stream.read(buffer)?;
        (self.record)(&buffer[..n]);
        Ok(n)
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn play(mut stream: &TcpStream, script: &[Step], mut record: impl FnMut(&[u8])) {
    let mut unread = Vec::new();
    for step in script {
        match step {
            Step::ReadUntil(end) => {
                while !contains(&unread, end) {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer) {
                        Ok(n @ 1..) => {
                            record(&buffer[..n]);
                            unread.extend_from_slice(&buffer[..n]);
                        }
                        _ => return,
                    }
                }
                let at = unread.windows(end.len()).position(|window| window == *end).expect("just seen");
                unread.drain(..at + end.len());
            }
            Step::Send(bytes) => {
                if stream.write_all(bytes).is_err() {
                    return;
                }
            }
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    if stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(*pause);
                }
            }
            Step::Pause(duration) => std::thread::sleep(*duration),
            Step::ReadToEnd => {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    record(&buffer[..n]);
                }
            }
            Step::Serve => {
                let mut requests = BufReader::new(Tee { stream, record: &mut record });
                while let Ok(Some(_)) = read_request(&mut requests) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            }
            Step::Close => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
