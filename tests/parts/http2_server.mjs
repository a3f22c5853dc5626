// A service that speaks HTTP/2 only, plain or with a certificate: node http2_server.mjs [CERT KEY]
// What it does is in the path. It prints its port, and a line for what happens to it.
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [cert, key] = process.argv.slice(2);
const say = (...words) => process.stdout.write(words.join(" ") + "\n");
const options = cert ? { cert: readFileSync(cert), key: readFileSync(key) } : {};
const server = cert ? http2.createSecureServer(options) : http2.createServer();
const refused = new Set();

server.on("session", session => {
  say("session");
  session.on("error", () => {});
});
server.on("stream", (stream, headers) => {
  const url = new URL(headers[":path"], "http://server");
  const [, what] = url.pathname.split("/");
  stream.on("error", () => {});
  stream.on("aborted", () => say("aborted", url.pathname));
  if (what === "refuse" && !refused.has(url.search)) {
    refused.add(url.search);
    return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
  }
  if (what === "goodbye") stream.session.goaway();
  if (what === "silent") return say("asked", url.pathname);
  if (what === "unavailable") return stream.respond({ ":status": 200, "grpc-status": "14" }, { endStream: true });
  if (what === "empty") return stream.respond({ ":status": Number(url.searchParams.get("status")) }, { endStream: true });
  if (what === "cut") {
    stream.respond({ ":status": 200 });
    // Not close(), which ends the answer first.
    return stream.write("some", () => setTimeout(() => stream.destroy(new Error("cut")), 50));
  }
  const parts = [];
  let trailers = {};
  stream.on("data", part => parts.push(part));
  stream.on("trailers", received => { trailers = { ...received }; });
  stream.on("end", () => {
    if (stream.destroyed) return;
    const body = Buffer.concat(parts);
    const bytes = Number(url.searchParams.get("bytes") ?? -1);
    const answer = bytes >= 0 ? Buffer.alloc(bytes, "abcdefghij") : body;
    const length = url.searchParams.has("length") ? { "content-length": answer.length } : {};
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-received": body.length }));
    const seen = JSON.stringify({ headers: { ...headers }, trailers });
    stream.respond({ ":status": 200, "x-seen": seen, ...length }, { waitForTrailers: what === "call" });
    stream.end(headers[":method"] === "HEAD" ? undefined : answer);
  });
});
server.listen(0, "127.0.0.1", () => say("port", server.address().port));
