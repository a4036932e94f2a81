// What two people see of each other's messages, over each transport.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { startParley, tokenFor } from "./parley.mjs";
import { next } from "../protocol/server.js";

const transports = {
  websocket: { transports: ["websocket"] },
  polling: { transports: ["polling"] },
  upgrade: {},
};

// The columns of the tutorial's messages, and what the contract adds for everybody.
const rowFields = [
  "id", "conversation_id", "sender_id", "content", "type", "encrypted_content", "file_url", "file_name", "file_size", "metadata", "reactions",
  "reply_to_id", "is_edited", "is_deleted", "is_flagged", "edited_at", "deleted_at", "created_at", "seq", "pos", "reaction_counts",
].sort();

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

for (const [name, options] of Object.entries(transports)) {
  describe(`over ${name}`, { concurrency: true }, () => {
    // pair starts a server on which ann signs in by the event and bob by the handshake, and makes a group of both.
    async function pair(t) {
      const server = await startParley(t);
      const ann = await server.connect(t, "ann", options);
      const bob = server.open(t, { ...options, auth: { token: tokenFor("bob") } });
      assert.equal((await bob.next("authenticated")).user_id, "bob");
      const group = await server.group("ann", ["bob"]);
      const id = group.id;
      for (const client of [ann, bob]) await client.next("conversation-added", (c) => c.id === id);
      return { server, ann, bob, group, id };
    }

    test("a message comes to both, once", async (t) => {
      const { server, ann, bob, group, id } = await pair(t);
      assert.equal(ann.got("authenticated")[0].user_id, "ann");
      assert.deepEqual([group.type, group.created_by, group.member_count, group.role], ["group", "ann", 2, "owner"]);
      assert.deepEqual(group.participant_ids.toSorted(), ["ann", "bob"]);

      const draft = { conversation_id: id, content: "grüße 😀 <&>\u2028\"\\", client_message_id: "first", metadata: { a: [1, null] } };
      const { message } = await ann.ok("send-message", draft);
      const atAnn = await ann.next("new-message"), atBob = await bob.next("new-message");
      assert.deepEqual(Object.keys(atBob).sort(), rowFields);
      assert.deepEqual(atAnn, { ...atBob, client_message_id: "first" });
      assert.deepEqual(message, atAnn, "the acknowledgement has the sender's row");
      assert.match(atBob.created_at, time);
      assert.deepEqual({ ...atBob, id: 0, created_at: 0, pos: 0 }, {
        id: 0, conversation_id: id, sender_id: "ann", content: draft.content, type: "text", encrypted_content: null, file_url: null,
        file_name: null, file_size: null, metadata: { a: [1, null] }, reactions: {}, reply_to_id: null, is_edited: false, is_deleted: false,
        is_flagged: false, edited_at: null, deleted_at: null, created_at: 0, seq: 1, pos: 0, reaction_counts: {},
      });
      const names = ann.log.map(([event]) => event);
      assert.ok(names.indexOf("ack:send-message") < names.indexOf("new-message"), `the acknowledgement comes first: ${names}`);
      for (const client of [ann, bob]) {
        const first = client.log.find(([, p]) => p?.id === id || p?.conversation_id === id)[0];
        assert.equal(first, "conversation-added", "it comes before any other event of the conversation");
      }

      assert.deepEqual((await ann.ok("send-message", draft)).message, message, "a repetition has the first message");
      const error = await ann.refused("conflict", "send-message", { ...draft, content: "other" });
      assert.deepEqual(await ann.next("error"), { ...error, event: "send-message", client_message_id: "first" });
      assert.equal((await bob.ok("send-message", draft)).message.seq, 2, "another sender's client_message_id is his own");
      await ann.ok("send-message", { conversation_id: id, content: "a reply", reply_to_id: message.id });
      await bob.next("new-message", (m) => m.content === "a reply" && m.reply_to_id === message.id);
      await ann.next("new-message", (m) => m.seq === 3);
      for (const client of [ann, bob]) {
        assert.deepEqual(client.got("new-message").map((m) => m.seq), [1, 2, 3]);
        assert.equal(client.got("conversation-added").length, 1);
      }
      assert.equal(bob.got("error").length, 0);
      assert.deepEqual((await server.history("bob", id)).map((m) => m.seq), [1, 2, 3]);
      if (name === "upgrade" && ann.socket.io.engine.transport.name === "polling") await next(ann.socket.io.engine, "upgrade");
      assert.equal(ann.socket.io.engine.transport.name, name === "upgrade" ? "websocket" : name);
    });

    test("edits and deletions come to both, and stick", async (t) => {
      const { server, ann, bob, id } = await pair(t);
      const [one, two] = [await ann.send(id, "one"), await ann.send(id, "two")];
      await bob.refused("forbidden", "edit-message", { message_id: one.id, content: "mine" });
      await bob.refused("forbidden", "delete-message", { message_id: one.id });
      const edited = (await ann.ok("edit-message", { message_id: one.id, content: "ONE" })).message;
      assert.deepEqual([edited.content, edited.is_edited, edited.seq], ["ONE", true, 1]);
      await ann.ok("delete-message", { message_id: two.id });
      await ann.refused("conflict", "edit-message", { message_id: two.id, content: "back" });
      await ann.send(id, "three");
      for (const client of [ann, bob]) {
        await client.next("new-message", (m) => m.content === "three");
        const updated = client.got("message-updated");
        assert.deepEqual(updated.map((m) => [m.id, m.content, m.is_edited]), [[one.id, "ONE", true]]);
        assert.match(updated[0].edited_at, time);
        const [deleted, ...more] = client.got("message-deleted");
        assert.deepEqual(more, []);
        assert.deepEqual({ ...deleted, deleted_at: 0, pos: 0 }, { message_id: two.id, conversation_id: id, seq: 2, deleted_at: 0, pos: 0 });
      }
      assert.deepEqual((await server.history("bob", id)).map((m) => m.content), ["ONE", "three"]);
    });

    test("leave- and join-conversation switch delivery, not membership", async (t) => {
      const { server, ann, bob, id } = await pair(t);
      const phone = await server.connect(t, "bob", options);
      await bob.ok("leave-conversation", { conversation_id: id });
      await ann.send(id, "off");
      await phone.next("new-message", (m) => m.content === "off");
      await bob.ok("send-message", { conversation_id: id, content: "still a member" });
      await bob.ok("join-conversation", { conversation_id: id });
      await ann.send(id, "on");
      await bob.next("new-message", (m) => m.content === "on");
      assert.deepEqual(bob.messages(id), ["on"]);
      await phone.next("new-message", (m) => m.content === "on");
      assert.deepEqual(phone.messages(id), ["off", "still a member", "on"], "the other device is not concerned");
      await bob.refused("not_found", "join-conversation", { conversation_id: (await server.group("eve", [])).id });
    });

    test("members who are added get everything at once, those who are removed nothing", async (t) => {
      const { server, ann, bob, id } = await pair(t);
      const eve = await server.connect(t, "eve", options);
      await ann.send(id, "before eve");
      await eve.refused("not_found", "send-message", { conversation_id: id, content: "hello?" });

      await server.ok("ann", "POST", `/v1/conversations/${id}/members`, { member_ids: ["eve"] });
      await ann.send(id, "with eve");
      await eve.next("new-message", (m) => m.content === "with eve");
      const first = eve.log.findIndex(([, p]) => p?.id === id || p?.conversation_id === id);
      assert.equal(eve.log[first][0], "conversation-added");
      await eve.send(id, "I am here");
      await bob.next("new-message", (m) => m.content === "I am here");
      assert.deepEqual(bob.got("member-added").map((m) => [m.user_id, m.role, m.by]), [["eve", "member", "ann"]]);

      assert.equal((await server.rest("ann", "DELETE", `/v1/conversations/${id}/members/eve`)).status, 204);
      const after = await Promise.all([ann.send(id, "without eve"), bob.send(id, "indeed")]);
      await ann.ok("edit-message", { message_id: after[0].id, content: "without eve!" });
      await bob.next("message-updated");
      await eve.next("conversation-removed", (c) => c.conversation_id === id);
      await eve.ok("sync", {});
      const removed = eve.log.findIndex(([event]) => event === "conversation-removed");
      assert.deepEqual(eve.log.slice(removed + 1).filter(([, p]) => p?.conversation_id === id), []);
      assert.deepEqual(eve.messages(id).filter(Boolean), ["with eve", "I am here"]);
      assert.deepEqual(bob.got("member-removed").map((m) => [m.user_id, m.by]), [["eve", "ann"]]);
      await eve.refused("not_found", "send-message", { conversation_id: id, content: "hello?" });
      await eve.refused("not_found", "edit-message", { message_id: after[0].id, content: "hello?" });
      assert.equal((await server.rest("eve", "GET", `/v1/conversations/${id}/messages`)).status, 404);
    });
  });
}
