// A TCP proxy on loopback that can be cut and healed.
import { once } from "node:events";
import { connect, createServer } from "node:net";

// startProxy resolves to a proxy to a port of this machine; it ends with the test t.
export async function startProxy(t, to) {
  const sockets = new Set();
  const proxy = createServer((client) => {
    const upstream = connect(to, "127.0.0.1");
    for (const [from, into] of [[client, upstream], [upstream, client]]) {
      sockets.add(from);
      from.on("error", () => {}); // "close" follows
      from.on("close", () => (sockets.delete(from), into.destroy()));
      from.pipe(into);
    }
  });
  const heal = async (port) => {
    proxy.listen(port, "127.0.0.1");
    await once(proxy, "listening");
    return proxy.address().port;
  };
  const cut = () => {
    proxy.close();
    sockets.forEach((socket) => socket.destroy());
  };
  const port = await heal(0);
  t.after(cut);
  return { port, cut, heal: () => heal(port) };
}
