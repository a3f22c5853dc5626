// A port on loopback that leads to a Unix socket: forward.mjs SOCKET. Prints its URL.
import net from "node:net";

const [path] = process.argv.slice(2);
const server = net.createServer((client) => {
  const socket = net.connect(path);
  client.pipe(socket).pipe(client);
  // Who goes away takes the other along.
  for (const [one, other] of [[client, socket], [socket, client]]) one.on("error", () => other.destroy());
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
