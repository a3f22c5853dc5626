use std::io::{self, BufRead, Read};

/// A request as it arrived at an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In the order they came, names as they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// "HTTP/1.0" or "HTTP/1.1".
    pub version: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// A parameter of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

/// Reads one request; none when the connection ends before it begins. What is malformed is an error: what keygate
/// sends upstream has to be well-formed.
pub fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(malformed("the head ends early")) };
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head).map_err(|error| malformed(&error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut seen = Seen {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: request.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
        body: Vec::new(),
        version: format!("HTTP/1.{}", request.version.unwrap_or_default()),
    };
    let lengths = seen.headers_named("content-length");
    let chunked = seen.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    seen.body = match (lengths.as_slice(), chunked) {
        ([], true) => read_chunks(stream)?,
        ([], false) => Vec::new(),
        ([length], false) => {
            let length = length.parse().map_err(|_| malformed("Content-Length is no number"))?;
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            body
        }
        _ => return Err(malformed("framed twice")),
    };
    Ok(Some(seen))
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size.trim(), 16).map_err(|_| malformed("a chunk's size is no number"))?;
        if size == 0 {
            // Trailers, to an empty line.
            while !read_line(stream)?.is_empty() {}
            return Ok(body);
        }
        let had = body.len();
        stream.take(size).read_to_end(&mut body)?;
        if ((body.len() - had) as u64) < size || !read_line(stream)?.is_empty() {
            return Err(malformed("a chunk of another size than it says"));
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
