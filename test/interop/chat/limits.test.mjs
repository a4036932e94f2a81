// What one connection, one user and one address may do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, startParley, tokenFor } from "./parley.mjs";

const on = { PARLEY_RATE_LIMITS: "on" };

test("a connection that sends too many events is refused some, slowed down, and stays", async (t) => {
  const server = await startParley(t, { env: on, args: ["--gateway-events-per-second", "20", "--gateway-events-burst", "10"] });
  const { id } = await server.group("ann", ["bob"]);
  const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user, { transports: ["websocket"] })));
  const began = performance.now();
  const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => ann.call("send-message", { conversation_id: id, content: `${i}` }, 15_000)));
  const refused = answers.filter((a) => !a.ok);
  const seconds = (performance.now() - began) / 1000;
  // One was spent on signing in. A refused one costs the time that it was too early.
  assert.ok(refused.length > 20 && refused.length < 52, `${refused.length} of 60 were refused`);
  for (const { error } of refused) {
    assert.deepEqual([error.code, error.message], ["rate_limited", "Rate limit exceeded. Please slow down."]);
    assert.ok(error.retry_after_ms > 0 && error.retry_after_ms <= 50, `${error.retry_after_ms} ms`);
  }
  const accepted = answers.length - refused.length;
  assert.ok(accepted <= 10 + seconds * 20 + 1, `${accepted} accepted in ${seconds} s`);
  await bob.until("what was accepted", () => bob.messages(id).length === accepted);
  assert.equal(ann.got("error").length, refused.length, "each refusal is an error event too");
  assert.ok(ann.socket.connected);
  await eventually("it may send again", async () => (await ann.call("send-message", { conversation_id: id, content: "again" })).ok);
  // Another connection is not concerned.
  await bob.send(id, "mine");
});

test("a user has so many connections and no more", async (t) => {
  const server = await startParley(t, { env: on, args: ["--gateway-user-connections", "3"] });
  const open = await Promise.all([1, 2, 3].map(() => server.connect(t, "ann", { transports: ["websocket"] })));
  const more = server.open(t, { transports: ["websocket"] });
  await more.refused("rate_limited", "authenticate", { user_id: "ann", token: tokenFor("ann") });
  await server.connect(t, "bob");
  open[0].close();
  await eventually("one more may come when one has gone", async () =>
    (await more.call("authenticate", { user_id: "ann", token: tokenFor("ann") })).ok);
});

test("an address has so many connections and no more, and proxies of ours say whose they are", async (t) => {
  const server = await startParley(t, { env: on, args: ["--gateway-address-connections", "2", "--trusted-proxies", "127.0.0.0/8"] });
  const from = (address, transports = ["websocket"]) => server.open(t, { transports, reconnection: false, extraHeaders: { "X-Forwarded-For": address } });
  const [first] = [from("198.51.100.1"), from("198.51.100.1", ["polling"])];
  await eventually("both are connected", async () => await server.metric("parley_gateway_sessions") === 2);
  for (const transports of [["websocket"], ["polling"]]) {
    const error = await from("198.51.100.1", transports).next(":connect_error");
    assert.match(`${error.message}`, /websocket error|xhr poll error/);
  }
  const answer = await fetch(`${server.url}/socket.io/?EIO=4&transport=polling`, { headers: { "X-Forwarded-For": "198.51.100.1" } });
  assert.equal(answer.status, 429);
  assert.ok(Number(answer.headers.get("retry-after")) > 0);
  await from("198.51.100.2").next(":connect");
  first.close();
  await eventually("one more may come when one has gone", async () => {
    const client = from("198.51.100.1");
    const [event] = await client.until("an answer", () => client.log.find(([name]) => name === ":connect" || name === ":connect_error"));
    return event === ":connect";
  });
});
