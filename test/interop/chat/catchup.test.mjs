// What a client that was away gets when it comes back, and that between replay and live nothing is lost.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { startParley, tokenFor } from "./parley.mjs";

// pages syncs by the event until there is no more, and resolves to all changes and the last cursor.
async function pages(client, cursor, limit) {
  const changes = [];
  for (;;) {
    const page = await client.ok("sync", { cursor, limit });
    assert.equal(page.reset, undefined);
    changes.push(...page.changes);
    cursor = page.cursor;
    if (!page.has_more) return { changes, cursor };
    assert.ok(page.changes.length > 0, "a page with more behind it has something");
  }
}

const names = (client) => client.log.map(([event]) => event).filter((event) => !event.startsWith(":"));

describe("catching up", { concurrency: true }, () => {
  test("sync begins with a cursor for now, and tells what changed since", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user)));
    const old = await ann.send(id, "old");
    const now = await bob.ok("sync", {});
    assert.deepEqual([now.changes, now.has_more], [[], false]);
    assert.deepEqual((await bob.ok("sync", { cursor: now.cursor })).changes, []);

    const fresh = await ann.send(id, "new");
    await ann.ok("edit-message", { message_id: old.id, content: "old, edited" });
    const joined = await server.group("ann", ["bob"]);
    const { changes, cursor } = await pages(bob, now.cursor, 1);
    const messages = changes.filter((c) => c.kind === "message").map((c) => [c.message.id, c.message.content]);
    assert.deepEqual(messages, [[fresh.id, "new"], [old.id, "old, edited"]]);
    assert.deepEqual(changes.filter((c) => c.kind === "conversation").map((c) => c.conversation.id), [joined.id]);
    const [membership] = changes.filter((c) => c.kind === "membership").map((c) => c.membership);
    assert.deepEqual([membership.conversation_id, membership.user_id, membership.active], [joined.id, "bob", true]);
    assert.deepEqual((await bob.ok("sync", { cursor })).changes, []);

    const byGet = await server.ok("bob", "GET", `/v1/sync?limit=1000&cursor=${now.cursor}`);
    const byPost = await server.ok("bob", "POST", "/v1/sync", { cursor: now.cursor, limit: 1000 });
    assert.deepEqual(byGet, byPost);
    assert.deepEqual(byGet.changes, (await bob.ok("sync", { cursor: now.cursor, limit: 1000 })).changes);
  });

  test("a cursor replays what changed, before anything live", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const left = await server.group("ann", ["bob"]);
    const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user)));
    const [edited, deleted] = [await ann.send(id, "to be edited"), await ann.send(id, "to be deleted")];
    await bob.next("new-message", (m) => m.id === deleted.id);
    const { cursor } = await bob.ok("sync", {});
    bob.close();

    const fresh = await ann.send(id, "new", { client_message_id: "mine" });
    await ann.ok("edit-message", { message_id: fresh.id, content: "new, edited" });
    const gone = await ann.send(id, "new, then deleted");
    await ann.ok("edit-message", { message_id: edited.id, content: "edited" });
    for (const message of [deleted, gone]) await ann.ok("delete-message", { message_id: message.id });
    const joined = await server.group("ann", ["bob"]);
    await ann.send(joined.id, "welcome");
    await server.rest("ann", "DELETE", `/v1/conversations/${left.id}/members/bob`);
    await ann.send(left.id, "bob must not see this");

    for (const how of ["event", "handshake"]) {
      const back = server.open(t, how === "handshake" ? { auth: { token: tokenFor("bob"), cursor } } : {});
      if (how === "event") await back.signIn("bob", { cursor });
      await back.next("cursor");
      await ann.send(id, `live by ${how}`);
      await back.next("new-message", (m) => m.content === `live by ${how}`);
      const order = names(back).filter((event) => !event.startsWith("ack"));
      assert.equal(order[0], "authenticated");
      assert.equal(back.got("authenticated")[0].cursor, cursor, "what comes after it has not been got yet");
      assert.equal(order.indexOf("cursor"), order.length - 2, `replay, cursor, live: ${order}`);

      const here = (event) => back.got(event).filter((p) => p.conversation_id === id);
      const replayed = here("new-message").map((m) => [m.seq, m.content, m.is_edited, m.is_deleted]);
      assert.deepEqual(replayed.slice(0, 2), [[3, "new, edited", true, false], [4, "[Message deleted]", false, true]]);
      assert.equal(here("new-message")[0].client_message_id, undefined, "it is the sender's");
      assert.deepEqual(here("message-updated").map((m) => [m.id, m.content]), [[edited.id, "edited"]]);
      assert.deepEqual(here("message-deleted").map((m) => [m.message_id, m.seq]), [[deleted.id, 2]]);
      assert.deepEqual(back.got("conversation-added").map((c) => c.id), [joined.id]);
      assert.deepEqual(back.messages(joined.id), ["welcome"]);
      assert.ok(order.indexOf("conversation-added") < back.log.findIndex(([, p]) => p?.conversation_id === joined.id));
      assert.deepEqual(back.got("conversation-removed").map((c) => c.conversation_id), [left.id]);
      assert.deepEqual(back.messages(left.id), []);

      const again = await server.connect(t, "bob", {}, { cursor: back.got("cursor")[0].cursor });
      await again.next("cursor");
      assert.deepEqual(again.messages(), [`live by ${how}`], "from the new cursor on there is only what came after it");
      back.close();
      again.close();
    }
  });

  test("a live socket gets cursors, and each covers what came before it", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user)));
    await Promise.all(Array.from({ length: 120 }, (_, i) => ann.send(id, `${i}`)));
    await bob.next("cursor");
    const before = bob.log.slice(0, bob.log.findIndex(([event]) => event === "cursor")).filter(([event]) => event === "new-message").length;
    bob.close();
    const back = await server.connect(t, "bob", {}, { cursor: bob.cursor });
    await back.next("cursor");
    assert.equal(back.messages()[0], before === 120 ? undefined : `${before}`, `the cursor came behind ${before} messages`);
    assert.equal(before + back.messages().length, 120);
  });

  test("between replay and live there is neither hole nor repetition, however much is sent", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const ann = await server.connect(t, "ann");
    const desk = await server.connect(t, "bob"); // so that bob is in the rooms already when his phone comes
    let sending = true, sent = 0, end = 0, { cursor } = desk;
    const senders = Promise.all(Array.from({ length: 8 }, async () => {
      while (sending) await ann.send(id, `${++sent}`);
    }));
    try {
      for (let i = 0; i < 40; i++) {
        const phone = await server.connect(t, "bob", { transports: [i % 4 ? "websocket" : "polling"] }, { cursor });
        await phone.next("cursor");
        const replayed = phone.got("new-message").length;
        await phone.until("some live messages", () => phone.got("new-message").length > replayed + 10);
        phone.close();
        const seqs = phone.got("new-message").map((m) => m.seq);
        assert.deepEqual(seqs, seqs.map((_, n) => seqs[0] + n), "each once and in order");
        assert.ok(seqs[0] <= end + 1, `the phone had up to ${end}, and is given what follows from ${seqs[0]}`);
        ({ cursor } = phone);
        end = seqs.at(-1);
      }
    } finally {
      sending = false;
    }
    await senders;
    await desk.until("all", () => desk.messages().length >= sent);
    assert.deepEqual(desk.got("new-message").map((m) => m.seq), Array.from({ length: sent }, (_, i) => i + 1), "who stays gets each once");
    t.diagnostic(`${sent} messages`);
  });

  test("an unreadable cursor, or one of another database, is told to begin anew", async (t) => {
    const [server, other] = await Promise.all([startParley(t), startParley(t)]);
    const { id } = await server.group("ann", []);
    await other.group("ann", []);
    const foreign = (await other.ok("ann", "GET", "/v1/sync")).cursor;
    for (const cursor of ["garbage!", "AA", "", foreign, "x".repeat(5000)].filter(Boolean)) {
      const ann = await server.connect(t, "ann", {}, { cursor });
      const required = await ann.next("sync_required");
      assert.equal(required.reset, true);
      const message = await ann.send(id, `after ${cursor.length}`);
      await ann.next("new-message", (m) => m.id === message.id);
      const changes = (await pages(ann, required.cursor)).changes;
      assert.deepEqual(changes.map((c) => c.message?.id), [message.id], "its cursor stands for the moment of the reset");
      ann.close();
    }
    const ann = await server.connect(t, "ann");
    const page = await ann.ok("sync", { cursor: foreign });
    assert.deepEqual([page.reset, page.changes, page.has_more], [true, [], false]);
    await ann.refused("bad_request", "sync", { cursor: "garbage!" });
    assert.equal((await server.rest("ann", "GET", "/v1/sync?cursor=garbage!")).body.code, "bad_request");
  });

  test("who missed more than a replay holds pages with sync, and gets all", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const other = await server.group("ann", ["bob"]);
    const ann = await server.connect(t, "ann");
    const { cursor } = await server.ok("bob", "GET", "/v1/sync");
    const sent = await Promise.all(Array.from({ length: 1200 }, (_, i) => ann.send(i % 3 ? id : other.id, `${i}`)));
    const bob = await server.connect(t, "bob", {}, { cursor });
    const required = await bob.next("sync_required");
    assert.deepEqual(required, { cursor });
    assert.deepEqual(bob.messages(), []);
    const live = await ann.send(id, "live");
    await bob.next("new-message", (m) => m.id === live.id);
    const { changes, cursor: end } = await pages(bob, required.cursor, 333);
    const got = changes.map((c) => c.message);
    for (const conversation of [id, other.id]) {
      const of = (messages) => messages.filter((m) => m.conversation_id === conversation).map((m) => [m.seq, m.id, m.content]);
      assert.deepEqual(of(got), of([...sent, live]).sort((a, b) => a[0] - b[0]));
    }
    const back = await server.connect(t, "bob", {}, { cursor: end });
    await back.next("cursor");
    assert.deepEqual(back.messages(), []);
  });

  test("a large replay is paged by its bytes", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const ann = await server.connect(t, "ann");
    const { cursor } = await server.ok("bob", "GET", "/v1/sync");
    // A few at a time: what comes back of all at once, acknowledged and told, is more than may wait for a client.
    for (let round = 0; round < 6; round++) {
      await Promise.all(Array.from({ length: 10 }, () => ann.send(id, "x".repeat(10_000))));
    }
    const bob = await server.connect(t, "bob", {}, { cursor });
    await bob.next("sync_required");
    assert.equal((await pages(bob, cursor)).changes.length, 60);
  });
});
