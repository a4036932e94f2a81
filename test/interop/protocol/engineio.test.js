// The official engine.io-client, in its versions, against package engineio.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { engines } from "./clients.js";
import { next, startServer, within } from "./server.js";

let server;
before(async () => { server = await startServer(); });
after(() => server.stop());

const ways = [["websocket"], ["polling"], ["polling", "websocket"]];

for (const { version, Socket } of engines) for (const transports of ways) {
  test(`engine.io-client ${version} has text and binary echoed over ${transports.join(", then ")}`, async (t) => {
    const socket = new Socket(server.url, { transports });
    t.after(() => socket.close());
    await next(socket, "open");
    if (transports.length === 2) {
      await next(socket, "upgrade");
      assert.equal(socket.transport.name, "websocket");
    }
    const sent = ["a", "grüße \u{1F600}", Buffer.from([0, 1, 255]), "x".repeat(70_000), Buffer.alloc(70_000, 7), "last"];
    const received = [];
    const all = new Promise((resolve) => socket.on("message", (m) => received.push(m) === sent.length && resolve()));
    for (const m of sent) socket.send(m);
    await within(all, "echoes");
    assert.deepEqual(received, sent);
  });
}

test("refuses as the official server does", async () => {
  const answer = async (query, init) => {
    const response = await fetch(`${server.url}/engine.io/?${query}`, init);
    return [response.status, await response.json()];
  };
  const cases = [
    ["EIO=4&transport=tcp", {}, 400, 0, "Transport unknown"],
    ["EIO=4&transport=polling&sid=unknown", {}, 400, 1, "Session ID unknown"],
    ["EIO=4&transport=polling", { method: "POST", body: "1" }, 400, 2, "Bad handshake method"],
    ["EIO=4&transport=websocket", {}, 400, 3, "Bad request"],
    ["EIO=3&transport=polling", {}, 400, 5, "Unsupported protocol version"],
  ];
  for (const [query, init, status, code, message] of cases) {
    assert.deepEqual(await answer(query, init), [status, { code, message }], query);
  }
});
