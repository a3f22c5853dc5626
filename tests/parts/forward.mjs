// A port on loopback that leads to a Unix socket or another port: forward.mjs TARGET [PORT]. Prints its URL.
import net from "node:net";

const [target, port = "0"] = process.argv.slice(2);
const to = /^[0-9]+$/.test(target) ? { host: "127.0.0.1", port: Number(target) } : { path: target };
const server = net.createServer((client) => {
  const socket = net.connect(to);
  client.pipe(socket).pipe(client);
  // Who goes away takes the other along.
  for (const [one, other] of [[client, socket], [socket, client]]) one.on("error", () => other.destroy());
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
