"""A small HTTP/1.1 service with keep-alive that tests can kill: `origin.py NAME PORT`.

It answers {"origin": NAME} with `x-origin: NAME`. The query steers it: status=503, delay_ms=100, bytes=1000.
"""

import http.server
import json
import sys
import time
import urllib.parse

name, port = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A head and a body in two packets would wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(int(query.get("delay_ms", 0)) / 1000)
        body = b"x" * int(query["bytes"]) if "bytes" in query else json.dumps({"origin": name}).encode()
        self.send_response(int(query.get("status", 200)))
        self.send_header("x-origin", name)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


server = Server(("127.0.0.1", port), Handler)
print("listening", flush=True)
server.serve_forever()
