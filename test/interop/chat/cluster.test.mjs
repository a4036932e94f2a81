// Two nodes on one PostgreSQL, with the bus between them whole, cut and healed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, freePort, startParley } from "./parley.mjs";
import { freshDatabase } from "./postgres.mjs";
import { startProxy } from "./proxy.mjs";

// cluster starts two nodes. The only way between their buses leads through the proxy: b has it as its route, a has none, and nodes that
// learn of each other make no second connection between the two of them.
async function cluster(t) {
  const database = await freshDatabase(t);
  const [portA, portB] = [await freePort(), await freePort()];
  const proxy = await startProxy(t, portA);
  const a = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:${portA}`] });
  const b = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:${portB}`, "--cluster-routes", `nats://127.0.0.1:${proxy.port}`] });
  const routes = (n) => eventually(`${n} routes on both nodes`, async () =>
    await a.metric("parley_bus_routes") === n && await b.metric("parley_bus_routes") === n, 15_000);
  await routes(1);
  return { a, b, proxy, routes };
}

// timed sends a message through one client, and resolves to the milliseconds until another one has it.
async function timed(from, to, conversation, content, millis) {
  const began = performance.now();
  from.send(conversation, content);
  await to.next("new-message", (m) => m.content === content, millis);
  return Math.round(performance.now() - began);
}

test("two nodes are one chat, whether the bus between them is whole, cut or healed", async (t) => {
  const { a, b, proxy, routes } = await cluster(t);
  const [ann, bob, eve, dan] = await Promise.all([a.connect(t, "ann"), b.connect(t, "bob"), b.connect(t, "eve"), b.connect(t, "dan")]);
  const { id } = await a.group("ann", ["bob", "eve", "dan"]);
  for (const client of [ann, bob, eve, dan]) await client.next("conversation-added", (c) => c.id === id);
  const burst = (round) => Promise.all([ann, bob].flatMap((client) =>
    Array.from({ length: 50 }, (_, i) => client.send(id, `${round} ${client.user} ${i}`, { client_message_id: `${round} ${i}` }))));
  const bothHave = (n, millis) => Promise.all([ann, bob].map((client) =>
    client.until(`${n} messages`, () => client.got("new-message").length >= n, millis)));

  for (const [from, to] of [[ann, bob], [bob, ann]]) {
    const millis = await timed(from, to, id, `whole, by ${from.user}`);
    t.diagnostic(`over the bus: ${millis} ms`);
    assert.ok(millis < 1000, `${millis} ms over the bus`);
  }
  await burst("whole");
  await bothHave(102);

  proxy.cut();
  await routes(0);
  for (const [from, to] of [[ann, bob], [bob, ann]]) {
    const millis = await timed(from, to, id, `cut, by ${from.user}`, 10_000);
    t.diagnostic(`by the log: ${millis} ms`);
  }
  await burst("cut");
  assert.equal((await a.rest("ann", "DELETE", `/v1/conversations/${id}/members/eve`)).status, 204);
  await ann.send(id, "eve was removed, and b was not told");
  await bob.next("new-message", (m) => m.content === "eve was removed, and b was not told", 10_000);
  await eve.next("conversation-removed", (c) => c.conversation_id === id);
  assert.equal((await a.rest("ann", "POST", `/v1/conversations/${id}/members`, { member_ids: ["zoe"] })).status, 201);
  const zoe = await b.connect(t, "zoe");
  await ann.send(id, "zoe was added");
  await zoe.next("new-message", (m) => m.content === "zoe was added", 10_000);
  await bothHave(208, 10_000); // with two system messages
  await routes(0);

  const healing = burst("healing");
  await proxy.heal();
  await routes(1);
  await healing;
  const millis = await timed(ann, bob, id, "healed", 10_000);
  t.diagnostic(`over the healed bus: ${millis} ms`);
  assert.ok(millis < 1000, `${millis} ms over the healed bus`);
  assert.equal((await a.rest("ann", "DELETE", `/v1/conversations/${id}/members/dan`)).status, 204);
  await ann.send(id, "dan was removed");
  await bob.next("new-message", (m) => m.content === "dan was removed");
  await dan.next("conversation-removed", (c) => c.conversation_id === id);

  const history = await b.history("bob", id);
  const seqs = history.map((m) => m.seq);
  assert.deepEqual(seqs, Array.from({ length: seqs.length }, (_, i) => i + 1));
  for (const client of [ann, bob]) {
    await client.until("the last message", () => client.got("new-message").at(-1)?.seq >= seqs.length);
    assert.deepEqual(client.got("new-message").map((m) => m.seq), seqs, `${client.user} has every message once and in order`);
  }
  for (const [client, until] of [[eve, "eve was removed, and b was not told"], [dan, "dan was removed"]]) {
    await client.ok("sync", {});
    const last = history.findIndex((m) => m.content === until);
    const seen = client.got("new-message").map((m) => m.seq);
    assert.deepEqual(seen, seqs.slice(0, last - 1), `${client.user} has all before the removal, and neither it nor what follows`);
    assert.equal(client.log.findLast(([, p]) => p?.conversation_id === id)[0], "conversation-removed");
  }
  for (const node of [a, b]) assert.equal(await node.stop(), 0);
  assert.match(await a.run("doctor"), /keeps its promises/);
});

test("a node hears only what somebody there wants", async (t) => {
  const { a, b } = await cluster(t);
  const ann = await a.connect(t, "ann");
  const groups = await Promise.all([0, 1, 2, 3].map(() => a.group("ann", ["eve"])));
  for (let i = 0; i < 40; i++) await ann.send(groups[i % 4].id, `${i}`);
  assert.equal(await b.metric("parley_chat_hints_heard_total"), 0);
  assert.equal(await b.metric("parley_chat_lanes_awake"), 0);

  const bob = await b.connect(t, "bob");
  for (const { id } of groups) {
    const began = performance.now();
    assert.equal((await a.rest("ann", "POST", `/v1/conversations/${id}/members`, { member_ids: ["bob"] })).status, 201);
    await ann.send(id, "welcome");
    await bob.next("conversation-added", (c) => c.id === id);
    await bob.next("new-message", (m) => m.conversation_id === id && m.content === "welcome");
    const millis = Math.round(performance.now() - began);
    t.diagnostic(`added, and told so: ${millis} ms`);
    assert.ok(millis < 1000, `${millis} ms until a sleeping node told of it`);
  }
  const buckets = new Set(groups.map(({ id }) => id.slice(15, 17))); // it stands inside the id
  assert.equal(await b.metric("parley_chat_lanes_awake"), buckets.size);
});

test("a client goes from node to node with its cursor", async (t) => {
  const { a, b } = await cluster(t);
  const ann = await a.connect(t, "ann");
  const { id } = await a.group("ann", ["bob"]);
  let cursor = (await a.ok("bob", "GET", "/v1/sync")).cursor;
  const seen = [];
  for (let round = 0; round < 6; round++) {
    const sent = await Promise.all([0, 1, 2].map((i) => ann.send(id, `${round} ${i}`)));
    const bob = await [b, a][round % 2].connect(t, "bob", {}, { cursor });
    await bob.next("new-message", (m) => m.id === sent[2].id);
    await bob.until("a cursor", () => bob.got("cursor").length > 0);
    seen.push(...bob.messages());
    cursor = bob.cursor;
    bob.close();
  }
  assert.deepEqual([...new Set(seen)], (await a.history("ann", id)).map((m) => m.content));
});

test("a node that is killed is missed by nobody for long", async (t) => {
  const { a, b } = await cluster(t);
  const ann = await a.connect(t, "ann");
  const { id } = await a.group("ann", ["bob"]);
  const bob = await b.connect(t, "bob");
  await ann.send(id, "before");
  await bob.next("new-message", (m) => m.content === "before");
  await b.kill();
  await bob.next(":disconnect");
  for (let i = 0; i < 20; i++) await ann.send(id, `${i}`);
  const moved = await a.connect(t, "bob", {}, { cursor: bob.cursor });
  await moved.next("new-message", (m) => m.content === "19");
  assert.deepEqual(moved.messages().filter((content) => content !== "before"), Array.from({ length: 20 }, (_, i) => `${i}`));
  await b.start();
  await bob.until("bob is back", () => bob.got(":connect").length === 2);
  await bob.signIn("bob", { cursor: bob.cursor });
  await ann.send(id, "after");
  await bob.next("new-message", (m) => m.content === "after", 10_000);
  await moved.next("new-message", (m) => m.content === "after");
});
