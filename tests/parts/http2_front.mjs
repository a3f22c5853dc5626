// Speaks HTTP/2 in front of a server of HTTP/1: node http2_front.mjs PORT. It prints its own port.
import http from "node:http";
import http2 from "node:http2";

const [port] = process.argv.slice(2);
const between = ["connection", "keep-alive", "transfer-encoding", "te"];
const passed = headers =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(":") && !between.includes(name)));
const server = http2.createServer();
server.on("stream", (stream, headers) => {
  const { ":method": method, ":path": path, ":authority": host } = headers;
  const request = http.request({ host: "127.0.0.1", port, method, path, headers: { ...passed(headers), host } });
  // The server tells what it was sent, and the length of that.
  const ours = stream.endAfterHeaders ? ["connection", "content-length", "transfer-encoding"] : ["connection"];
  for (const name of ours) request.removeHeader(name);
  request.on("error", () => stream.destroy());
  request.on("response", response => {
    stream.respond({ ":status": response.statusCode, ...passed(response.headers) });
    if (stream.writable) response.pipe(stream);
    else response.resume();
  });
  stream.on("error", () => request.destroy());
  stream.pipe(request);
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`port ${server.address().port}\n`));
