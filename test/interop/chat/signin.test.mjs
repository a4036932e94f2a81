// How sockets sign in, and what happens to those that do not.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { eventually, startParley, tokenFor } from "./parley.mjs";

const failed = { code: "not_authenticated", message: "Authentication failed" };

describe("signing in", { concurrency: true }, () => {
  test("a token of the command is taken, with the secret that the server made", async (t) => {
    const server = await startParley(t, { env: { PARLEY_JWT_SECRET: "" } });
    const token = await server.run("token", "--user", "ann", "--name", "Ann");
    const ann = await server.connect(t, "ann", {}, { token });
    assert.equal((await ann.next("authenticated")).user_id, "ann");
    const me = await fetch(`${server.url}/v1/me`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal((await me.json()).display_name, "Ann");
    assert.equal((await server.rest("ann", "GET", "/v1/me")).status, 401, "a token with another secret is refused");
  });

  test("what comes before authenticate is held, and runs after it in order", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", []);
    const ann = server.open(t);
    const sent = ["one", "two", "three"].map((content) => ann.call("send-message", { conversation_id: id, content }));
    await ann.next(":connect");
    assert.deepEqual(await server.history("ann", id), [], "nothing is done before signing in");
    const before = ann.call("send-message", { conversation_id: id, content: "four" });
    ann.signIn("ann");
    const behind = ann.call("send-message", { conversation_id: id, content: "five" });
    for (const answer of await Promise.all([...sent, before, behind])) assert.equal(answer.ok, true);
    assert.equal(ann.log.find(([event]) => event !== ":connect")[0], "ack:authenticate");
    assert.deepEqual((await server.history("ann", id)).map((m) => m.content), ["one", "two", "three", "four", "five"]);
    await ann.next("new-message", (m) => m.content === "five");
    assert.deepEqual(ann.messages(), ["one", "two", "three", "four", "five"]);
  });

  test("a failed authenticate refuses what was held, and may be tried again", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", []);
    const ann = server.open(t);
    const held = ann.call("send-message", { conversation_id: id, content: "held", client_message_id: "h" });
    const bad = [
      { user_id: "ann", token: tokenFor("bob") }, { user_id: "ann", token: "no token" }, { user_id: "ann" }, { token: tokenFor("ann") },
      { user_id: 1, token: tokenFor("ann") }, "ann", null, [],
    ];
    for (const payload of bad) assert.deepEqual(await ann.refused("not_authenticated", "authenticate", payload), failed);
    assert.equal((await ann.call("authenticate", { user_id: "ann", token: tokenFor("ann", -3600) })).error.message, failed.message);
    assert.deepEqual(await held, { ok: false, error: failed });
    const [first, second] = ann.got("error");
    assert.deepEqual(first, { ...failed, event: "authenticate" });
    assert.equal(second.event, "send-message");
    await ann.signIn("ann");
    await ann.send(id, "accepted");
    assert.deepEqual((await server.history("ann", id)).map((m) => m.content), ["accepted"]);
  });

  test("held events are bounded", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", []);
    const ann = server.open(t);
    const answers = Array.from({ length: 40 }, (_, i) => ann.call("send-message", { conversation_id: id, content: `${i}` }));
    await ann.until("8 refusals", () => ann.got("error").length === 8);
    const large = ann.call("send-message", { conversation_id: id, content: "x".repeat(70_000) });
    assert.deepEqual(await large, { ok: false, error: failed });
    await ann.signIn("ann");
    assert.equal((await Promise.all(answers)).filter((a) => a.ok).length, 32);
    assert.equal((await server.history("ann", id)).length, 32);
  });

  test("another user's token is refused and changes nothing; one's own extends the session", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", []);
    await server.group("bob", []);
    const ann = await server.connect(t, "ann", {}, { token: tokenFor("ann", 4) });
    assert.deepEqual(await ann.refused("not_authenticated", "authenticate", { user_id: "bob", token: tokenFor("bob") }), failed);
    assert.equal((await ann.send(id, "still ann")).sender_id, "ann");
    await ann.ok("authenticate", { user_id: "ann", token: tokenFor("ann") });
    assert.equal(ann.got("authenticated").length, 2);
    await new Promise((resolve) => setTimeout(resolve, 5500)); // past the end of the first token
    assert.equal((await ann.send(id, "and still")).sender_id, "ann");
    await ann.settled(); // the acknowledgement comes before the event
    assert.equal(ann.got("new-message").length, 2, "once each, however often one authenticates");
    assert.deepEqual(ann.got(":disconnect"), []);
  });

  for (const [name, token, code] of [
    ["an expired token", tokenFor("ann", -3600), "token_expired"],
    ["a broken token", "broken", "not_authenticated"],
    ["a token of the wrong type", { a: 1 }, "not_authenticated"],
  ]) {
    test(`${name} in the handshake is a connect_error with its code`, async (t) => {
      const server = await startParley(t);
      const ann = server.open(t, { auth: { token } });
      const error = await ann.next(":connect_error");
      assert.deepEqual([error.message, error.data], ["Authentication failed", { code }]);
      ann.socket.auth = { token: tokenFor("ann") };
      ann.socket.connect();
      await ann.next("authenticated");
    });
  }

  test("a token that ends while connected is announced, told and final", async (t) => {
    const server = await startParley(t);
    const began = Date.now();
    const byEvent = await server.connect(t, "ann", {}, { token: tokenFor("ann", 3) });
    const byHandshake = server.open(t, { auth: { token: tokenFor("ann", 3) } });
    for (const ann of [byEvent, byHandshake]) {
      const { expires_in_ms } = await ann.next("token-expiring");
      assert.ok(expires_in_ms > 0 && expires_in_ms <= 3000, `expires_in_ms is ${expires_in_ms}`);
      const error = await ann.next("error");
      assert.equal(error.code, "token_expired");
      assert.equal(await ann.next(":disconnect"), "io server disconnect");
      assert.ok(Date.now() - began > 1900, "not before the token's end");
      assert.equal(ann.socket.active, false, "the client does not come back");
      assert.equal(ann.got("token-expiring").length, 1);
    }
    assert.equal(await server.metric("parley_gateway_sessions"), 0);
  });

  test("a socket that does not sign in is closed after the deadline, and comes back", async (t) => {
    const server = await startParley(t, { args: ["--gateway-auth-timeout", "1s"] });
    for (const transports of [["websocket"], ["polling"]]) {
      const silent = server.open(t, { transports });
      const wrong = server.open(t, { transports });
      wrong.call("authenticate", { user_id: "ann", token: "?" }).catch(() => {}); // its answer is not what is waited for
      for (const client of [silent, wrong]) {
        assert.equal(await client.next(":disconnect"), "transport close");
        assert.equal(client.socket.active, true);
        await client.until("connected again", () => client.got(":connect").length === 2);
        await client.signIn("ann");
        client.close();
      }
    }
  });

  test("two devices of one user get the same, and one's end is not the other's", async (t) => {
    const server = await startParley(t);
    const { id } = await server.group("ann", ["bob"]);
    const [phone, desk, bob] = await Promise.all(["ann", "ann", "bob"].map((user) => server.connect(t, user)));
    await phone.send(id, "from the phone", { client_message_id: "p" });
    for (const device of [phone, desk]) {
      assert.equal((await device.next("new-message")).client_message_id, "p", "a sender's other device knows its id too");
    }
    phone.close();
    await eventually("the phone is gone", async () => await server.metric("parley_gateway_sessions") === 2);
    await bob.send(id, "are you there?");
    await desk.next("new-message", (m) => m.content === "are you there?");
    assert.deepEqual(phone.messages(), ["from the phone"]);
    await desk.ok("sync", {});
    assert.deepEqual(desk.messages(), ["from the phone", "are you there?"], "nothing comes twice");
  });
});
