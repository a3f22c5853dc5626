use std::time::Duration;

use super::connection::{Answer, Out};
use super::job::Ask;

/// One request at a time, and its answer, which says its length.
#[derive(Default)]
pub struct Http1 {
    /// When the request under way was due.
    asked: Option<Duration>,
    /// What has come of the answer's head.
    head: Vec<u8>,
    body: Option<Body>,
    /// The other side will end the connection after this answer.
    pub is_closing: bool,
}

struct Body {
    len: usize,
    left: usize,
    status: u16,
}

impl Http1 {
    pub fn ask(&mut self, ask: &Ask<'_>, scheduled: Duration, out: &mut Out) {
        self.asked = Some(scheduled);
        let bytes = &mut out.bytes;
        let method: &[u8] = if ask.body.is_empty() { b"GET " } else { b"POST " };
        for part in [method, ask.path.as_bytes(), b" HTTP/1.1\r\nHost: ", ask.host.as_bytes()] {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(b"\r\nUser-Agent: versus/1\r\nAccept: application/json\r\n");
        if let Some(key) = ask.key {
            bytes.extend_from_slice(format!("X-Api-Key: key-{key:012}\r\n").as_bytes());
        }
        if !ask.body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", ask.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        out.body = ask.body;
    }

    pub fn in_flight(&self) -> usize {
        usize::from(self.asked.is_some())
    }

    pub fn take(&mut self, mut bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => {
                let before = self.head.len();
                self.head.extend_from_slice(bytes);
                let Some(len) = self.read_head()? else { return Ok(()) };
                bytes = &bytes[len.0 - before..];
                self.head.clear();
                len.1
            }
        };
        body.left = body.left.checked_sub(bytes.len()).ok_or("more bytes than the answer's length")?;
        if body.left > 0 {
            self.body = Some(body);
            return Ok(());
        }
        let asked = self.asked.take().ok_or("an answer to nothing")?;
        answers.push((asked, if body.status == 200 { Ok(body.len) } else { Err(format!("status {}", body.status)) }));
        Ok(())
    }

    /// The length of the head, and the body that follows, once the head is whole.
    fn read_head(&mut self) -> Result<Option<(usize, Body)>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 48];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(&self.head) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut len = None;
        for header in &*response.headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                len = std::str::from_utf8(header.value).ok().and_then(|digits| digits.parse().ok());
            } else if header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close") {
                self.is_closing = true;
            }
        }
        let len = len.ok_or("an answer without its length")?;
        Ok(Some((head, Body { len, left: len, status: response.code.unwrap_or_default() })))
    }
}
