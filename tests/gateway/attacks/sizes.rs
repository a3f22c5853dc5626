//! More of everything than there may be. `<x*N>` is N times `x`; a head may have 4 KiB and 20 lines here, a body 1 KiB.

use super::{Row, Verdict::*, chunked, line, post, with};

/// What is sent, and what becomes of it.
pub const ROWS: &[Row] = &[
    (line!("GET /<x*4096> HTTP/1.1"), Refused(414, "target-size")),
    (line!("GET /?<x*70000> HTTP/1.1"), Refused(414, "target-size")),
    (line!("GET http://a/<x*4096> HTTP/1.1"), Refused(414, "target-size")),
    ("GET /<x*4096>", Refused(414, "target-size")),
    (line!("GET /<x*4075> HTTP/1.1"), Refused(431, "head-size")),
    ("<x*4097>", Refused(431, "head-size")),
    (with!("X: <x*4096>\r\n"), Refused(431, "head-size")),
    (with!("<x*4096>: 1\r\n"), Refused(431, "head-size")),
    (with!("X: <x*70000>"), Refused(431, "head-size")),
    (with!("Host: <x*5000>\r\n"), Refused(431, "head-size")),
    (with!("<x: 1\r\n*19><x: 1\r\n*1>"), Refused(431, "header-count")),
    (with!("<x:\r\n*600>"), Refused(431, "header-count")),
    (with!("<x: 1\r\n*19>"), Served(&["GET /"])),
    (post!("Content-Length: 1025\r\n", "hello"), Closed(413)),
    (post!("Content-Length: 999999999999999999\r\n", "hello"), Closed(413)),
    (chunked!("401\r\n<x*1025>\r\n0\r\n\r\n"), Closed(413)),
    (chunked!("<1\r\nx\r\n*1025>0\r\n\r\n"), Closed(413)),
    (chunked!("fffffffffffffff\r\n<x*1025>"), Closed(413)),
];
