// What clients see of a database that is away for a while, and of a server that is stopped in order.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, startParley, tokenFor } from "./parley.mjs";
import { freshDatabase } from "./postgres.mjs";
import { startProxy } from "./proxy.mjs";

test("while PostgreSQL is away sends fail and connections stay; then all goes on", async (t) => {
  const url = new URL(await freshDatabase(t));
  const proxy = await startProxy(t, Number(url.port));
  url.port = proxy.port;
  const server = await startParley(t, { database: url.href });
  const { id } = await server.group("ann", ["bob"]);
  const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user)));
  await ann.send(id, "before");

  proxy.cut();
  const began = performance.now();
  const { error } = await ann.call("send-message", { conversation_id: id, content: "away", client_message_id: "away" }, 15_000);
  assert.equal(error.code, "unavailable");
  assert.ok(error.retry_after_ms > 0, "it says when to try again");
  t.diagnostic(`refused after ${Math.round(performance.now() - began)} ms`);
  const eve = server.open(t, { auth: { token: tokenFor("eve") }, reconnectionDelay: 1000, reconnectionDelayMax: 1000 });
  const refusal = await eve.next("error", undefined, 15_000);
  assert.equal(refusal.event, "authenticate");
  assert.doesNotMatch(refusal.message, /connect|dial|sql/i, "the cause is the operator's");
  assert.notEqual(await eve.next(":disconnect"), "io server disconnect", "the client is to come back");
  const list = await server.rest("ann", "GET", "/v1/conversations");
  assert.deepEqual([list.status, list.body.code], [503, "unavailable"]);
  for (const [name, payload] of [["sync", {}], ["join-conversation", { conversation_id: id }]]) {
    assert.equal((await ann.call(name, payload, 15_000)).error.code, "unavailable", name);
  }
  assert.equal((await server.rest("ann", "GET", "/readyz")).status, 503);
  assert.equal((await server.rest("ann", "GET", "/healthz")).status, 200);

  await proxy.heal();
  await eve.next("authenticated", undefined, 10_000);
  await eventually("ready again", async () => (await server.rest("ann", "GET", "/readyz")).status === 200);
  await ann.send(id, "away", { client_message_id: "away" });
  await bob.next("new-message", (m) => m.content === "away");
  assert.deepEqual(bob.messages(), ["before", "away"]);
  assert.deepEqual([...ann.got(":disconnect"), ...bob.got(":disconnect")], []);
  assert.equal(await server.metric("parley_engineio_panics_total"), 0);
  assert.equal(await server.stop(), 0);
});

test("a server that is stopped in order ends with 0, and keeps what it acknowledged", async (t) => {
  const server = await startParley(t);
  const { id } = await server.group("ann", ["bob"]);
  const ann = await server.connect(t, "ann", { transports: ["websocket"] });
  const bob = await server.connect(t, "bob", { transports: ["polling"] });
  const acked = [];
  const sending = (async () => {
    while (ann.socket.connected) {
      ann.socket.emit("send-message", { conversation_id: id, content: "x" }, (answer) => answer.ok && acked.push(answer.message.id));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  await ann.until("some", () => acked.length > 20 || ann.got("new-message").length > 20);
  assert.equal(await server.stop("SIGTERM"), 0);
  await sending;
  for (const client of [ann, bob]) {
    assert.notEqual(await client.next(":disconnect"), "io server disconnect", "the client is to come back");
    assert.equal(client.socket.active, true);
  }
  await server.start();
  const stored = new Set((await server.history("ann", id)).map((m) => m.id));
  for (const message of acked) assert.ok(stored.has(message), `${message} was acknowledged and is lost`);
  await bob.until("bob is back", () => bob.got(":connect").length === 2, 10_000);
});
