// Many conversations, and many clients that come back at once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, startParley, tokenFor } from "./parley.mjs";

test("two devices in 20 conversations have each of them without a gap", async (t) => {
  const server = await startParley(t);
  const [phone, desk, bob] = await Promise.all(["ann", "ann", "bob"].map((user) => server.connect(t, user)));
  const ids = [];
  for (let i = 0; i < 20; i++) ids.push((await server.group(i % 2 ? "ann" : "bob", ["ann", "bob"])).id);
  const texts = Array.from({ length: 30 }, (_, i) => `${i}`);
  await Promise.all([phone, desk, bob].map(async (client, n) => {
    for (const text of texts) await Promise.all(ids.map((id) => client.send(id, `${n} ${text}`)));
  }));
  for (const client of [phone, desk, bob]) {
    await client.until("all messages", () => client.got("new-message").length >= 20 * 90);
    for (const id of ids) {
      const got = client.got("new-message").filter((m) => m.conversation_id === id);
      assert.deepEqual(got.map((m) => m.seq), Array.from({ length: 90 }, (_, i) => i + 1));
      for (const n of [0, 1, 2]) assert.deepEqual(got.filter((m) => m.content.startsWith(`${n} `)).map((m) => m.content), texts.map((text) => `${n} ${text}`));
    }
    assert.deepEqual(client.got("conversation-added").map((c) => c.id).sort(), ids.toSorted());
  }
});

test("200 clients that come back while 200 messages are sent miss none", async (t) => {
  const server = await startParley(t);
  const users = Array.from({ length: 200 }, (_, i) => `user-${i}`);
  const rooms = [];
  for (let i = 0; i < 4; i++) rooms.push((await server.group("ann", users.filter((_, n) => n % 4 === i || n % 5 === i))).id);
  const ann = await server.connect(t, "ann");
  await Promise.all(rooms.map((id) => ann.send(id, "seen by all")));
  // Each comes as the official client does that lost its connection: with the cursor that it was given last.
  const clients = users.map((user, i) => {
    const client = server.open(t, {
      transports: i % 4 === 3 ? ["polling"] : ["websocket"], autoConnect: false,
      auth: (give) => give({ token: tokenFor(user), cursor: client.cursor }),
    });
    return client;
  });
  clients.forEach((client) => client.socket.connect());
  await Promise.all(clients.map((client) => client.next("authenticated", undefined, 20_000)));

  const sent = (async () => {
    for (let i = 0; i < 200; i++) {
      await ann.send(rooms[i % 4], `${i}`);
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 10)); // so that it lasts while they come back
    }
  })();
  clients.forEach((client) => client.socket.io.engine.close());
  await Promise.all(clients.map((client) => client.until("back", () => client.got(":connect").length === 2, 20_000)));
  clients.filter((_, i) => i % 2).forEach((client) => client.socket.io.engine.close());
  await sent;
  const histories = new Map(await Promise.all(rooms.map(async (id) => [id, (await server.history("ann", id)).map((m) => m.seq)])));
  await Promise.all(clients.map(async (client, n) => {
    const mine = rooms.filter((_, i) => n % 4 === i || n % 5 === i);
    for (const id of mine) {
      const wanted = histories.get(id).slice(1); // the first one came before
      const seqs = () => client.got("new-message").filter((m) => m.conversation_id === id).map((m) => m.seq);
      await client.until(`the messages of user-${n}`, () => new Set(seqs()).size >= wanted.length, 20_000);
      const once = [...new Set(seqs())];
      assert.deepEqual(once.toSorted((a, b) => a - b), wanted, `user-${n}`);
      const lives = client.log.reduce((all, [event, p]) => {
        if (event === ":connect") all.push([]);
        else if (event === "new-message" && p.conversation_id === id) all.at(-1).push(p.seq);
        return all;
      }, []);
      for (const life of lives) {
        const first = life[0] ?? 0;
        assert.deepEqual(life, life.map((_, i) => first + i), `each connection of user-${n} has a run without hole or repetition`);
      }
    }
    assert.ok(client.got("new-message").every((m) => mine.includes(m.conversation_id)), "and nothing else");
    assert.equal(client.got("sync_required").length, 0);
  }));
  await eventually("no session is left over", async () => await server.metric("parley_gateway_sessions") === 201);
});
