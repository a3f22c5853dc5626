//! Requests behind and inside others.

use super::{Row, Verdict::*};

/// What is sent, and what becomes of it.
pub const ROWS: &[Row] = &[
    // Well-framed: each is what it says, and a body is never a request.
    ("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n", Served(&["GET /one", "GET /two"])),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["POST /one hello", "GET /two"]),
    ),
    // CL.0 and 0.CL: what a server might not expect a body with.
    (
        "GET /one HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Served(&["GET /one GET /smuggled HTTP/1.1\r\n\r\n"]),
    ),
    (
        "HEAD /one HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Served(&["HEAD /one GET /smuggled HTTP/1.1\r\n\r\n"]),
    ),
    (
        "GET /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nGET /smuggled HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
        Served(&["GET /one GET /smuggled HTTP/1.1\r\n\r\n"]),
    ),
    (
        "DELETE /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["DELETE /one hi", "GET /two"]),
    ),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["POST /one hello", "GET /two"]),
    ),
    (
        "GET /one HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["GET /one hello", "GET /two"]),
    ),
    // What is answered without its body having been read is the last of its connection.
    ("POST /.. HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", ClosedBadPath),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", Closed(204)),
    ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", Closed(405)),
    // A tunnel that is not dug: what was meant for it is no request.
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Closed(405)),
    // No upgrade to another HTTP, whose requests would go past the policy.
    (
        "GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        Served(&["GET /h2c"]),
    ),
    ("GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", Served(&["GET /h2c"])),
    // A good request is served; the bad one behind it is not, nor what follows.
    (
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Then(&["GET /one"], 400, "framing"),
    ),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhello\r\n\r\n",
        Then(&["POST /one hel"], 400, "request-line"),
    ),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloX: 1\r\n\r\n",
        Then(&["POST /one hello"], 400, "request-line"),
    ),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nXGET / HTTP/1.1\r\n\r\n",
        Then(&["POST /one"], 400, "host"),
    ),
    (
        "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n",
        Then(&["POST /one"], 400, "request-line"),
    ),
    (
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        Then(&["GET /one"], 400, "request-line"),
    ),
    ("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two\r\n\r\n", Then(&["GET /one"], 400, "request-line")),
    ("GET /one HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Then(&["GET /one"], 505, "version")),
    // After the last request of a connection, nothing.
    (
        "GET /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["GET /one"]),
    ),
    (
        "GET /one HTTP/1.1\r\nHost: a\r\nConnection: x,\tCLOSE ,y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Served(&["GET /one"]),
    ),
    ("GET /one HTTP/1.0\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Served(&["GET /one"])),
];
