// Input that no honest client sends: it costs its own connection at the most, and leaves nothing behind.
import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { describe, test } from "node:test";
import WebSocket from "ws";
import { eventually, secret, signed, startParley, tokenFor } from "./parley.mjs";
import { within } from "../protocol/server.js";

// stage starts a server on which ann and bob talk, and eve is in their group. unharmed asserts that they did not notice her.
async function stage(t, options) {
  const server = await startParley(t, options);
  const { id } = await server.group("ann", ["bob", "eve"]);
  const [ann, bob] = await Promise.all(["ann", "bob"].map((user) => server.connect(t, user)));
  const first = await ann.send(id, "hello");
  const { id: secretGroup } = await server.group("ann", ["bob"]);
  await ann.send(secretGroup, "between us");
  await bob.next("new-message", (m) => m.conversation_id === secretGroup);
  const state = async () => JSON.stringify([
    await server.history("ann", id), await server.history("ann", secretGroup), await server.ok("ann", "GET", "/v1/conversations"),
  ]);
  const told = () => bob.log.filter(([event]) => event !== "cursor" && !event.startsWith("ack")).length;
  const before = await state(), toldBefore = told();
  const unharmed = async () => {
    assert.equal(await state(), before, "nothing was stored");
    assert.equal(server.child.exitCode ?? server.child.signalCode, null, "the process lives");
    assert.equal(await server.metric("parley_engineio_panics_total"), 0);
    assert.equal(await server.metric("parley_rest_panics_total"), 0);
    assert.doesNotMatch(server.log, /level=ERROR|panic/, "nothing is the server's fault");
    await ann.send(id, "goodbye");
    await bob.next("new-message", (m) => m.content === "goodbye");
    await bob.ok("sync", {});
    assert.equal(told(), toldBefore + 1, "bob got goodbye, and nothing of eve's");
    assert.deepEqual([...ann.got(":disconnect"), ...bob.got(":disconnect")], []);
  };
  return { server, id, secretGroup, first, unharmed };
}

// raw opens a WebSocket of our own, and resolves to it after the open packet, as eve if she is to be signed in.
async function raw(t, server, user) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/socket.io/?EIO=4&transport=websocket`);
  t.after(() => socket.terminate());
  socket.on("error", () => {}); // "close" follows
  socket.texts = [];
  socket.on("message", (data) => socket.texts.push(String(data)));
  const has = (start) => eventually(`a packet ${start}`, () => socket.texts.some((text) => text.startsWith(start)));
  await has("0{");
  if (user) {
    socket.send(`40${JSON.stringify({ token: tokenFor(user) })}`);
    await has('42["authenticated"');
  }
  socket.has = has;
  socket.closed = once(socket, "close");
  return socket;
}

const placeholder = '{"_placeholder":true,"num":0}';

// Packets that break the protocols. Each ends its connection.
const broken = [
  "", "x", "7", "9", "2", "4", "4x", "47", "49", "42", "42x", "42{}", "42[", "42[]", '42["a"', '42["a",]', '42["a"] x', "42[null]", "42[{}]", "42[[]]", "42[true]",
  '42["connect"]', '42["disconnect"]', '42["connect_error"]', '42["disconnecting"]', '42["newListener"]', '42["removeListener"]', "40", "40{}", '44{"message":"no"}',
  '42/nowhere,["a"]x', `451["a",${placeholder}]`, `45-["a",${placeholder}]`, `450-["a"]`, `4511-["a",${placeholder}]`, `4599999999999999999999-["a",${placeholder}]`,
  '4299999999999999999999999["a"]', "43", "43[]", "43x[]", "431{}", `42["a","${"\\u12"}"]`, '42["a",01]', '42["a",+1]', "42['a']", '42["a",NaN]', "46", "40/,x", "40[", '40"x"',
  "421[true,{}]", `42["${"x".repeat(129)}"]`, '42["a",' + "[".repeat(100_000),
];

describe("hostile input", { concurrency: true }, () => {
  test("broken packets end their own connection", async (t) => {
    const { server, unharmed } = await stage(t);
    for (const signedIn of [true, false]) {
      for (const packet of broken) {
        if (!signedIn && packet.startsWith("40")) continue; // there it is the first
        const eve = await raw(t, server, signedIn ? "eve" : undefined);
        eve.send(packet);
        await within(eve.closed, `the end after ${packet.slice(0, 60)}, ${signedIn ? "" : "not "}signed in`);
      }
    }
    const cases = {
      "a binary message that nobody waits for": (eve) => eve.send(Buffer.from("4")),
      "a text where an attachment is to come": (eve) => (eve.send(`451-["send-message",${placeholder}]`), eve.send('42["sync",{}]')),
      "text that is not UTF-8": (eve) => eve.send(Buffer.from([0x34, 0x32, 0xff, 0xfe]), { binary: false }),
      "a message over the limit": (eve) => eve.send(`42["send-message",{"content":"${"x".repeat(1_000_001)}"}]`),
      "a frame with a reserved bit": (eve) => eve._socket.write(Buffer.from([0xf1, 0x80, 0, 0, 0, 0])),
      "a frame without a mask": (eve) => eve._socket.write(Buffer.from([0x81, 0x01, 0x32])),
      "a frame that claims 2^62 bytes": (eve) => eve._socket.write(Buffer.from([0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])),
      "half a frame, and the end": (eve) => (eve._socket.write(Buffer.from([0x81, 0xfe, 0x10])), eve._socket.destroy()),
    };
    for (const [name, attack] of Object.entries(cases)) {
      const eve = await raw(t, server, "eve");
      attack(eve);
      await within(eve.closed, `the end after ${name}`);
    }
    await unharmed();
  });

  test("broken polling requests are answered, and end at most their session", async (t) => {
    const { server, unharmed } = await stage(t, { args: ["--gateway-auth-timeout", "1s"] }); // which ends polls that would wait
    const base = `${server.url}/socket.io/?EIO=4&transport=polling`;
    const open = async () => JSON.parse((await (await fetch(base)).text()).slice(1)).sid;
    const post = (sid, body) => fetch(`${base}&sid=${sid}`, { method: "POST", body }).then((r) => r.status, () => "cut");
    const bodies = ["", "x", "\x1e", "4\x1e", "40\x1e40", "bAAAA", "b!!", "b", "40\x1e42[", "0", "2", "40\x1e" + "42[1]\x1e".repeat(10_000), "x".repeat(1_000_001), "4".repeat(999_999)];
    for (const body of bodies) {
      const sid = await open();
      const status = await post(sid, body);
      assert.ok(status === "cut" || status === 200 || status >= 400 && status < 500, `POST of ${body.slice(0, 20)}: ${status}`);
      assert.ok([200, 400].includes((await fetch(`${base}&sid=${sid}`)).status));
    }
    const own = await open();
    for (const [query, init, status] of [
      ["EIO=4&transport=polling&sid=nobody", {}, 400], [`EIO=4&transport=polling&sid=${own}`, { method: "PUT", body: "x" }, 400],
      [`EIO=4&transport=polling&sid=${own}`, { method: "DELETE" }, 400], ["EIO=3&transport=polling", {}, 400], ["", {}, 400],
      [`EIO=4&transport=polling&sid=${"x".repeat(10_000)}`, {}, 400], ["EIO=4&transport=%00", {}, 400], ["EIO=4&transport=websocket", {}, 400],
    ]) {
      assert.equal((await fetch(`${server.url}/socket.io/?${query}`, init)).status, status, `${init.method ?? "GET"} ${query.slice(0, 60)}`);
    }
    await unharmed();
  });

  test("wrong types and missing fields are refused in every event", async (t) => {
    const { server, id, secretGroup, first, unharmed } = await stage(t);
    const eve = await server.connect(t, "eve");
    const good = {
      "send-message": { conversation_id: id, content: "x" }, "edit-message": { message_id: first.id, content: "x" }, "delete-message": { message_id: first.id },
      "join-conversation": { conversation_id: id }, "leave-conversation": { conversation_id: id }, "sync": { cursor: "AA", limit: 1 },
    };
    const fields = {
      ...Object.fromEntries(Object.entries(good).map(([event, payload]) => [event, Object.keys(payload)])),
      "send-message": ["conversation_id", "content", "type", "reply_to_id", "client_message_id", "encrypted_content", "file_id", "attachments", "thread_id"],
    };
    const refused = async (event, ...args) => {
      const { error, ok } = await within(new Promise((resolve) => eve.socket.emit(event, ...args, resolve)), event);
      const what = `${event} ${JSON.stringify(args)?.slice(0, 200)}`;
      assert.equal(ok, false, what);
      assert.ok(["bad_request", "not_found", "forbidden"].includes(error.code), `${what}: ${error.code}`);
      assert.doesNotMatch(error.message, /json|unmarshal|struct|sql|Go |0x/i, "no inner workings");
      assert.doesNotMatch(error.message, /zqzq/, "nothing is given back");
      assert.equal(error.request_id, undefined);
      const told = eve.got("error").at(-1);
      assert.deepEqual([told.code, told.message, told.event], [error.code, error.message, event]);
      return error.code;
    };
    for (const event of Object.keys(good)) {
      for (const payload of [null, 1, "zqzq", true, [], [{}], "\u0000"]) assert.equal(await refused(event, payload), "bad_request");
      assert.equal(await refused(event), "bad_request");
      if (event !== "sync") await refused(event, {});
      for (const field of fields[event]) {
        for (const value of [1, -1.5e300, true, [], {}, ["zqzq"], "zq\u0000zq", "zq\ud800zq", "\udc00zq", { a: "\u0000" }]) {
          if (field === "limit" && value === 1) continue;
          assert.equal(await refused(event, { ...good[event], [field]: value }), "bad_request", `${field} ${JSON.stringify(value)}`);
        }
      }
    }
    const deep = JSON.parse("[".repeat(40) + "]".repeat(40));
    for (const [code, event, payload] of [
      ["bad_request", "send-message", { ...good["send-message"], type: "system" }], ["bad_request", "send-message", { ...good["send-message"], type: "zqzq" }],
      ["bad_request", "send-message", { conversation_id: id, content: "" }], ["bad_request", "send-message", { conversation_id: id }],
      ["bad_request", "send-message", { conversation_id: id, content: "zq".repeat(50_000) }], ["bad_request", "send-message", { ...good["send-message"], client_message_id: "z".repeat(65) }],
      ["bad_request", "send-message", { ...good["send-message"], reply_to_id: "zqzq" }], ["bad_request", "send-message", { ...good["send-message"], reply_to_id: id }],
      ["bad_request", "send-message", { ...good["send-message"], metadata: [1] }], ["bad_request", "send-message", { ...good["send-message"], metadata: "zqzq" }],
      ["bad_request", "send-message", { ...good["send-message"], metadata: { a: deep } }], ["bad_request", "send-message", { ...good["send-message"], metadata: { a: "z".repeat(9000) } }],
      ["bad_request", "edit-message", { message_id: first.id, content: "" }], ["bad_request", "delete-message", { message_id: first.id, for: "nobody" }],
      ["not_found", "send-message", { conversation_id: "zqzq", content: "x" }], ["not_found", "send-message", { conversation_id: secretGroup, content: "x" }],
      ["not_found", "send-message", { conversation_id: first.id, content: "x" }], ["not_found", "edit-message", { message_id: "zqzq", content: "x" }],
      ["not_found", "delete-message", { message_id: id }], ["not_found", "join-conversation", { conversation_id: secretGroup }],
      ["forbidden", "edit-message", { message_id: first.id, content: "x" }], ["forbidden", "delete-message", { message_id: first.id }],
    ]) {
      assert.equal(await refused(event, payload), code, `${event} ${JSON.stringify(payload).slice(0, 120)}`);
    }
    const [real, made] = [secretGroup, secretGroup.slice(0, -1) + (secretGroup.endsWith("0") ? "1" : "0")];
    const answers = await Promise.all([real, made].map((c) => eve.call("send-message", { conversation_id: c, content: "x" })));
    assert.deepEqual(answers[0], answers[1], "a conversation of others answers as one that never was");
    assert.equal(answers[0].error.message, "Conversation not found");
    assert.deepEqual(eve.got(":disconnect"), []);
    assert.ok((await eve.send((await server.group("eve", [])).id, "eve is well")).id);
    await unharmed();
  });

  test("unknown events are answered, whatever they are called", async (t) => {
    const { server, id, unharmed } = await stage(t);
    const eve = await server.connect(t, "eve");
    for (const event of ["typing", "mark-read", "no-such-event", "", "__proto__", "constructor", "Send-Message", "authenticated", "new-message", "x".repeat(128)]) {
      const error = await eve.refused("bad_request", event, { conversation_id: id, is_typing: true, message_id: id });
      assert.deepEqual(eve.got("error").at(-1), { ...error, event: "unknown" }, "the client's own words are not given back");
    }
    eve.socket.emit("typing"); // without an acknowledgement, as the tutorial's client
    await eve.until("its error", () => eve.got("error").length === 11);
    const binary = await raw(t, server, "eve");
    binary.send(`452-2["typing",${placeholder},{"_placeholder":true,"num":1}]`);
    binary.send(Buffer.from("one"));
    binary.send(Buffer.from("two"));
    await binary.has("432[{\"ok\":false");
    binary.send(`451-3["send-message",{"conversation_id":"${id}","content":${placeholder}}]`);
    binary.send(Buffer.from("binary"));
    await binary.has("433[{\"ok\":false");
    await unharmed();
  });

  test("tokens that are not good are refused everywhere in the same words", async (t) => {
    const { server, unharmed } = await stage(t);
    const now = Math.floor(Date.now() / 1000), good = { sub: "ann", exp: now + 3600 };
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const rsa = (() => {
      const [head, body] = [{ alg: "RS256", typ: "JWT" }, good].map((v) => Buffer.from(JSON.stringify(v)).toString("base64url"));
      return `${head}.${body}.${sign("sha256", Buffer.from(`${head}.${body}`), privateKey).toString("base64url")}`;
    })();
    const [head, , signature] = tokenFor("bob").split(".");
    const swapped = `${head}.${Buffer.from(JSON.stringify(good)).toString("base64url")}.${signature}`;
    const tokens = {
      "expired": signed({ ...good, exp: now - 3600 }), "unsigned": signed(good, { alg: "none", key: null }), "unsigned, in capitals": signed(good, { alg: "NONE", key: null }),
      "unsigned, as if signed": signed(good, { alg: "none" }), "signed with another key": signed(good, { key: `${secret}x` }), "signed with an empty key": signed(good, { key: "" }),
      "HS512 with the same key": signed(good, { alg: "HS512", hash: "sha512" }), "HS384 with the same key": signed(good, { alg: "HS384", hash: "sha384" }),
      "RS256 by a stranger": rsa, "RS256 by name, HMAC by nature": signed(good, { alg: "RS256" }), "with another body": swapped, "without an end": signed({ sub: "ann" }),
      "with a text as its end": signed({ ...good, exp: "never" }), "of the future": signed({ ...good, nbf: now + 3600 }), "of nobody": signed({ exp: now + 3600 }),
      "of an empty name": signed({ ...good, sub: "" }), "of a number": signed({ ...good, sub: 1 }), "of a long name": signed({ ...good, sub: "a".repeat(129) }),
      "without a signature": tokenFor("ann").split(".").slice(0, 2).join("."), "of four parts": `${tokenFor("ann")}.x`, "of one part": "x", "huge": "x".repeat(50_000), "empty parts": "..",
    };
    const eve = server.open(t);
    for (const [name, token] of Object.entries(tokens)) {
      const code = name === "expired" ? "token_expired" : "not_authenticated";
      const error = (await eve.call("authenticate", { user_id: "ann", token })).error;
      assert.equal(error?.message, "Authentication failed", `a token ${name}: ${JSON.stringify(error)}`);
      assert.ok([code, "not_authenticated"].includes(error.code), `a token ${name}: ${error.code}`);
      const handshake = server.open(t, { auth: { token } });
      const refusal = await handshake.next(":connect_error");
      assert.deepEqual([refusal.message, refusal.data], ["Authentication failed", { code }], `a token ${name}`);
      handshake.close();
      if (name !== "huge") {
        const response = await fetch(`${server.url}/v1/me`, { headers: { authorization: `Bearer ${token}` } });
        const { code: shown, error: words } = await response.json();
        assert.deepEqual([response.status, shown, words], [401, code, "Authentication failed"], `a token ${name}`);
      }
    }
    assert.equal(eve.got("authenticated").length, 0);
    await eve.refused("not_authenticated", "authenticate", { user_id: "ann", token: tokenFor("eve") });
    await unharmed();
  });

  test("bad requests of REST are problems, and change nothing", async (t) => {
    const { server, id, secretGroup, first, unharmed } = await stage(t);
    const ask = async (method, path, body, headers = {}) => {
      const response = await fetch(server.url + path, { method, body, headers: { authorization: `Bearer ${tokenFor("eve")}`, ...headers } });
      const text = await response.text();
      assert.doesNotMatch(text, /zqzq/, "nothing is given back");
      return { status: response.status, mime: response.headers.get("content-type"), ...JSON.parse(text) };
    };
    const json = JSON.stringify;
    for (const [status, code, method, path, body] of [
      [400, "bad_request", "POST", "/v1/conversations", "zqzq"], [400, "bad_request", "POST", "/v1/conversations", "[]"], [400, "bad_request", "POST", "/v1/conversations", undefined],
      [400, "bad_request", "POST", "/v1/conversations", json({ type: "zqzq" })], [400, "bad_request", "POST", "/v1/conversations", json({ type: "direct", member_ids: "bob" })],
      [400, "bad_request", "POST", "/v1/conversations", json({ type: "direct", member_ids: [] })], [400, "bad_request", "POST", "/v1/conversations", json({ type: "group", member_ids: [1] })],
      [400, "bad_request", "POST", "/v1/conversations", json({ type: "group", name: "zq\u0000zq" })], [400, "bad_request", "POST", "/v1/conversations", json({ type: "group", member_ids: ["zq".repeat(100)] })],
      [400, "bad_request", "POST", `/v1/conversations/${id}/messages`, json({ content: 1 })], [400, "bad_request", "POST", `/v1/conversations/${id}/messages`, json({ content: "\ud800" })],
      [413, "too_large", "POST", `/v1/conversations/${id}/messages`, json({ content: "x".repeat(2_000_000) })],
      [404, "not_found", "POST", `/v1/conversations/${secretGroup}/messages`, json({ content: "x" })], [404, "not_found", "GET", `/v1/conversations/${secretGroup}`],
      [404, "not_found", "GET", "/v1/conversations/zqzq"], [404, "not_found", "GET", `/v1/conversations/${secretGroup}/members`],
      [404, "not_found", "POST", `/v1/conversations/${secretGroup}/members`, json({ member_ids: ["eve"] })],
      [403, "forbidden", "POST", `/v1/conversations/${id}/members`, json({ member_ids: ["mallory"] })], [403, "forbidden", "DELETE", `/v1/conversations/${id}/members/ann`],
      [403, "forbidden", "PATCH", `/v1/messages/${first.id}`, json({ content: "x" })], [403, "forbidden", "DELETE", `/v1/messages/${first.id}`],
      [400, "bad_request", "GET", `/v1/conversations/${id}/messages?limit=zqzq`], [400, "bad_request", "GET", `/v1/conversations/${id}/messages?before=zqzq`],
      [400, "bad_request", "GET", "/v1/conversations?cursor=zqzq"], [404, "not_found", "GET", "/v1/zqzq"], [404, "not_found", "GET", "/../zqzq"], [405, "method_not_allowed", "PUT", "/v1/conversations", "{}"],
    ]) {
      const answer = await ask(method, path, body, body && { "content-type": "application/json" });
      assert.deepEqual([answer.status, answer.code, answer.mime], [status, code, "application/problem+json"], `${method} ${path} ${body?.slice(0, 80)}`);
      assert.equal(typeof answer.error, "string");
      assert.equal(answer.error, answer.detail);
    }
    assert.equal((await fetch(`${server.url}/v1/me`)).status, 401);
    await unharmed();
  });
});
