// A TCP proxy on loopback that can be cut, healed, held and led elsewhere.
import { once } from "node:events";
import { connect, createServer } from "node:net";

// startProxy resolves to a proxy to a port of this machine; it ends with the test t.
export async function startProxy(t, to) {
  const sockets = new Set();
  let target = to;
  const proxy = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
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
  const drop = () => sockets.forEach((socket) => socket.destroy());
  const cut = () => {
    proxy.close();
    drop();
  };
  const port = await heal(0);
  t.after(cut);
  return {
    port, cut, heal: () => heal(port),
    // drop ends the connections that there are; new ones are taken.
    drop,
    // hold takes what is sent over the connections that there are, and passes nothing on: who sent it never learns.
    hold: () => sockets.forEach((socket) => (socket.unpipe(), socket.resume())),
    // lead has new connections go to another port.
    lead: (port) => { target = port; },
  };
}
