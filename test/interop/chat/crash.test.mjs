// A server that is killed in the middle of a thousand sends loses none that it acknowledged, and doubles none.
import assert from "node:assert/strict";
import { test } from "node:test";
import { startParley, tokenFor } from "./parley.mjs";
import { freshDatabase } from "./postgres.mjs";

const total = 1000;
const inFlight = 100;
const killAfter = 400; // acknowledgements

const engines = {
  sqlite: async () => undefined,
  postgres: freshDatabase,
};

for (const [engine, database] of Object.entries(engines)) {
  test(`kill -9 in the middle of ${total} sends, on ${engine}`, async (t) => {
    const server = await startParley(t, { database: await database(t) });
    const { id } = await server.group("ann", ["bob", "eve"]);

    // Both come back by themselves, as the official client does: bob with the last cursor that he was given, ann by the event.
    const bob = server.open(t, { auth: (give) => give({ token: tokenFor("bob"), cursor: bob.cursor }) });
    await bob.next("authenticated");
    const ann = await server.connect(t, "ann");
    const eve = await server.connect(t, "eve"); // is away during the crash
    const eveCursor = eve.cursor;
    eve.close();

    const acked = new Map(); // client_message_id -> row
    const draft = (i) => ({ conversation_id: id, content: `${i}`, client_message_id: `c${i}` });
    const crashed = new Promise((resolve) => {
      let next = 0;
      const send = () => {
        if (next === total || !ann.socket.connected) return;
        ann.socket.emit("send-message", draft(next++), (answer) => {
          assert.equal(answer.ok, true, JSON.stringify(answer));
          acked.set(answer.message.client_message_id, answer.message);
          if (acked.size === killAfter) resolve(server.kill());
          send();
        });
      };
      for (let i = 0; i < inFlight; i++) send();
    });
    assert.equal(await crashed, "SIGKILL");
    await ann.next(":disconnect");
    await bob.next(":disconnect");
    const before = new Map(acked);
    assert.ok(before.size >= killAfter && before.size < total, `${before.size} of ${total} were acknowledged before the kill`);

    await server.start();
    await ann.until("ann is back", () => ann.got(":connect").length === 2, 10_000);
    await ann.signIn("ann");
    const committed = await server.history("ann", id);
    const known = new Map(committed.map((m) => [m.id, m]));
    for (const [key, row] of before) {
      const { pos, ...stored } = known.get(row.id) ?? assert.fail(`${key} was acknowledged and is lost`);
      assert.deepEqual({ ...stored, pos }, row, "what was acknowledged is what is stored");
    }

    const retried = [];
    for (let i = 0; i < total; i++) if (!before.has(`c${i}`)) retried.push(ann.ok("send-message", draft(i), 20_000));
    for (const { message } of await Promise.all(retried)) acked.set(message.client_message_id, message);
    assert.equal(acked.size, total);

    const history = await server.history("ann", id);
    assert.deepEqual(history.map((m) => m.content), Array.from({ length: total }, (_, i) => `${i}`), "each once, in the order they were sent");
    assert.deepEqual(history.map((m) => m.seq), Array.from({ length: total }, (_, i) => i + 1));
    for (const m of history) assert.equal(acked.get(m.client_message_id).id, m.id);

    await bob.until("the last message", () => bob.messages().includes(`${total - 1}`), 10_000);
    assert.equal(bob.got("authenticated").length, 2);
    assert.equal(bob.got("sync_required").length, 0);
    const bySeq = new Map();
    for (const m of bob.got("new-message")) {
      assert.equal(bySeq.get(m.seq)?.id ?? m.id, m.id, `seq ${m.seq} came with two ids`);
      bySeq.set(m.seq, m);
    }
    assert.deepEqual([...bySeq.values()].map((m) => m.id).sort(), history.map((m) => m.id).sort(), "bob has every one");
    const [first, second] = [0, 1].map((life) => {
      const back = bob.log.findLastIndex(([event]) => event === "authenticated");
      return (life ? bob.log.slice(back) : bob.log.slice(0, back)).filter(([event]) => event === "new-message").map(([, m]) => m.seq);
    });
    for (const seqs of [first, second]) assert.deepEqual(seqs, seqs.toSorted((a, b) => a - b).filter((seq, i, all) => seq !== all[i - 1]));

    await eve.socket.connect();
    await eve.until("eve is back", () => eve.got(":connect").length === 2);
    await eve.signIn("eve", { cursor: eveCursor });
    await eve.until("all that eve missed", () => eve.messages().length >= total || eve.got("sync_required").length > 0);
    assert.deepEqual(eve.messages(), history.map((m) => m.content));

    assert.equal(await server.stop(), 0);
    assert.match(await server.run("doctor"), /keeps its promises/);
  });
}
