// HTTP long-polling of package engineio, request by request, where the official server is the measure of the answers.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { endOf, next, start, startServer, within } from "./server.js";

const maxPayload = 10_000;
let server;
before(async () => {
  server = await start("optionserver", "-max-payload", `${maxPayload}`, "-payload-packets-max", "50", "-upgrade-timeout", "300ms");
});
after(() => server.stop());

const base = (path, on = server) => `${on.url}${path}?EIO=4&transport=polling`;

// open resolves to a session of the Engine.IO echo, or of the Socket.IO server if that is the path.
async function open(path = "/engine.io/", on = server) {
  const response = await fetch(base(path, on));
  const packet = await response.text();
  assert.equal(packet[0], "0");
  const handshake = JSON.parse(packet.slice(1));
  const url = `${base(path, on)}&sid=${handshake.sid}`;
  const body = async (promise) => {
    const response = await promise;
    return [response.status, await response.text()];
  };
  return {
    ...handshake, response, url,
    poll: () => body(fetch(url, { signal: AbortSignal.timeout(10_000) })),
    post: (data, headers = { "Content-Type": "text/plain;charset=UTF-8" }) =>
      body(fetch(url, { method: "POST", body: data, headers, signal: AbortSignal.timeout(10_000) })),
  };
}

const refused = {
  transport: [400, '{"code":0,"message":"Transport unknown"}'],
  sid: [400, '{"code":1,"message":"Session ID unknown"}'],
  method: [400, '{"code":2,"message":"Bad handshake method"}'],
  request: [400, '{"code":3,"message":"Bad request"}'],
  version: [400, '{"code":5,"message":"Unsupported protocol version"}'],
};

test("a handshake has what the protocol names, and no more", async () => {
  const { sid, upgrades, pingInterval, pingTimeout, maxPayload: max, response, url, poll, post, ...more } = await open();
  assert.deepEqual({ upgrades, pingInterval, pingTimeout, max, more }, { upgrades: ["websocket"], pingInterval: 25_000, pingTimeout: 20_000, max: maxPayload, more: {} });
  assert.match(sid, /^[-\w]{20,}$/);
  assert.equal(response.headers.get("content-type"), "text/plain; charset=UTF-8");
  assert.equal(response.headers.get("cache-control"), "no-store");
});

test("a payload holds packets between separators, and binary as base64", async () => {
  const s = await open();
  const body = ["4one", "bAAH/", "4grüße \u{1F600}", "4", "b", "bAA==", '4"\\u001e"'].join("\x1e");
  assert.deepEqual(await s.post(body), [200, "ok"]);
  assert.deepEqual(await s.poll(), [200, body]);
});

test("a poll waits for something to say", async () => {
  const s = await open();
  let answered = false;
  const poll = s.poll().finally(() => { answered = true; });
  // Other requests overtake it, as many as it takes to be sure that it has been there.
  for (let i = 0; i < 20; i++) await open();
  assert.equal(answered, false);
  await s.post("4now");
  assert.deepEqual(await within(poll, "answer to the poll"), [200, "4now"]);
});

test("what is volatile does not wait for a poll, and all else does", async (t) => {
  const echoes = await startServer();
  t.after(() => echoes.stop());
  const s = await open("/socket.io/", echoes);
  await s.post("40");
  // The packet that connects, and then auth.
  for (let came = ""; !came.includes("auth");) came += (await s.poll())[1];
  assert.deepEqual(await s.post('42["volatile",10]'), [200, "ok"]);
  assert.deepEqual(await s.poll(), [200, '42["ticked"]']);
});

test("two polls at once end the session", async () => {
  const s = await open();
  const answers = await within(Promise.all([s.poll(), s.poll()]), "answers to both");
  // Either may have been the first; it is told of the end.
  assert.deepEqual(answers.sort(), [[200, "1"], refused.request]);
  assert.equal(await endOf(server, s.sid), "transport error");
  assert.deepEqual(await s.poll(), refused.sid);
});

test("a poll that its client gives up ends the session", async () => {
  const s = await open();
  const gone = connect(new URL(server.url).port, "127.0.0.1");
  gone.write(`GET ${s.url.slice(server.url.length)} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await once(gone, "ready");
  gone.end();
  assert.equal(await endOf(server, s.sid), "transport error");
  gone.destroy();
});

test("two POSTs at once end the session", async () => {
  const [held, other] = await Promise.all([open("/socket.io/"), open("/socket.io/")]);
  for (const s of [held, other]) {
    await s.post("40");
    await s.poll();
  }
  const first = held.post('42["hold"]');
  assert.deepEqual(await other.poll(), [200, '42["holding"]']);
  assert.deepEqual(await held.post('42["join","nothing"]'), refused.request);
  await other.post('42["release"]');
  await within(first, "answer to the first");
  assert.deepEqual(await held.poll(), refused.sid);
});

test("a body beyond maxPayload is refused, and the session goes on", async () => {
  const s = await open();
  const fits = `4${"x".repeat(maxPayload - 1)}`;
  assert.deepEqual(await s.post(fits), [200, "ok"]);
  assert.deepEqual(await s.poll(), [200, fits]);
  assert.equal((await s.post(`${fits}x`))[0], 413);
  // Without a length, it shows only as it comes.
  const stream = new ReadableStream({ start: (c) => (c.enqueue(new TextEncoder().encode(fits)), c.enqueue(new TextEncoder().encode("x")), c.close()) });
  const chunked = await fetch(s.url, { method: "POST", body: stream, duplex: "half" });
  assert.equal(chunked.status, 413);
  assert.deepEqual(await s.post("4still here"), [200, "ok"]);
  assert.deepEqual(await s.poll(), [200, "4still here"]);
});

test("an endless body is cut off after its answer", async () => {
  const s = await open();
  const socket = connect(new URL(server.url).port, "127.0.0.1");
  socket.on("error", () => {}); // The server closes what it will not read.
  let answer = "";
  socket.on("data", (chunk) => { answer += chunk; });
  socket.write(`POST ${s.url.slice(server.url.length)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n`);
  const more = Buffer.alloc(65_536, "x");
  let written = 0;
  const push = () => { while (!socket.destroyed && socket.write(more)) written += more.length; };
  socket.on("drain", push);
  push();
  await within(new Promise((resolve) => socket.once("close", resolve)), "end of the connection");
  assert.match(answer, /^HTTP\/1\.1 413 /);
  assert.ok(written < 50_000_000, `${written} bytes were taken`);
  assert.deepEqual(await s.post("4still here"), [200, "ok"]);
});

describe("what is no payload ends the session", () => {
  const cases = {
    "an empty body": "",
    "an unknown packet": "9",
    "text without a type": "abc",
    "an empty packet at the end": "4a\x1e",
    "an empty packet in front": "\x1e4a",
    "no base64": "b!!!!",
    "no UTF-8": Buffer.from([0x34, 0xff]),
    "too many packets": Array(51).fill("4").join("\x1e"),
  };
  for (const [name, body] of Object.entries(cases)) {
    test(name, async () => {
      const s = await open();
      assert.deepEqual(await s.post(body), refused.request);
      assert.equal(await endOf(server, s.sid), "parse error");
      assert.deepEqual(await s.poll(), refused.sid);
    });
  }

  test("a body of bytes, as protocol 3 had them", async () => {
    const s = await open();
    assert.deepEqual(await s.post("4a", { "Content-Type": "application/octet-stream" }), refused.request);
    assert.equal(await endOf(server, s.sid), "transport error");
  });

  test("a ping, which only servers send", async () => {
    const s = await open();
    await s.post("2");
    assert.equal(await endOf(server, s.sid), "transport error");
  });
});

test("a client may say that it goes", async () => {
  const s = await open();
  const poll = s.poll();
  assert.deepEqual(await s.post("1"), [200, "ok"]);
  assert.deepEqual(await within(poll, "answer to the poll"), [200, "6"]);
  assert.equal(await endOf(server, s.sid), "transport close");
});

test("refusals have the official codes", async () => {
  const s = await open();
  const ask = async (query, init) => {
    const response = await fetch(`${server.url}/engine.io/?${query}`, init);
    assert.equal(response.headers.get("content-type"), "application/json");
    return [response.status, await response.text()];
  };
  for (const [query, init, wanted] of [
    ["EIO=4", {}, refused.transport],
    ["EIO=4&transport=webtransport", {}, refused.transport],
    ["EIO=4&transport=constructor", {}, refused.transport],
    ["EIO=4&transport=polling&sid=forged", {}, refused.sid],
    ["EIO=4&transport=polling&sid=forged", { method: "POST", body: "4" }, refused.sid],
    ["EIO=4&transport=polling", { method: "POST", body: "4" }, refused.method],
    ["EIO=4&transport=polling", { method: "PUT", body: "4" }, refused.method],
    ["EIO=4&transport=websocket", {}, refused.request],
    [`EIO=4&transport=websocket&sid=${s.sid}`, {}, refused.request],
    [`EIO=4&transport=polling&sid=${s.sid}`, { method: "DELETE" }, refused.request],
    ["EIO=3&transport=polling", {}, refused.version],
    ["EIO=5&transport=polling", {}, refused.version],
    ["transport=polling", {}, refused.version],
  ]) assert.deepEqual(await ask(query, init), wanted, `${init.method ?? "GET"} ${query}`);
  assert.deepEqual(await s.post("4unharmed"), [200, "ok"]);
});

test("a preflight of any origin is answered", async () => {
  const response = await fetch(base("/engine.io/"), {
    method: "OPTIONS",
    headers: { Origin: "https://chat.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-one, x-two" },
  });
  assert.equal(response.status, 204);
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
  assert.equal(response.headers.get("access-control-allow-headers"), "x-one, x-two");
  assert.ok(response.headers.get("access-control-allow-methods").includes("POST"));
  assert.equal(response.headers.get("access-control-allow-credentials"), null, "never with every origin");
});

describe("with a list of origins", () => {
  const home = "https://chat.example";
  const ask = async (server, init) => {
    const { status, headers } = await fetch(`${server.url}/engine.io/?EIO=4&transport=polling`, init);
    return [status, headers.get("access-control-allow-origin"), headers.get("access-control-allow-credentials"), headers.get("set-cookie")?.replace(/=[^;]+/, "=id") ?? null];
  };

  test("others are refused, and credentials are only for those who are on it", async (t) => {
    const listed = await start("optionserver", "-origins", home, "-credentials", "-cookie", "owner");
    t.after(() => listed.stop());
    const cookie = "owner=id; Path=/; HttpOnly; SameSite=Lax";
    assert.deepEqual(await ask(listed, { headers: { Origin: home } }), [200, home, "true", cookie]);
    assert.deepEqual(await ask(listed, { headers: { Origin: home }, method: "OPTIONS" }), [204, home, "true", null]);
    assert.deepEqual(await ask(listed, {}), [200, null, null, cookie]);
    for (const origin of ["https://evil.example", `${home}.evil.example`, home.replace("https", "http"), `${home}:8443`, "null"]) {
      assert.deepEqual(await ask(listed, { headers: { Origin: origin } }), [403, null, null, null], origin);
      assert.deepEqual(await ask(listed, { headers: { Origin: origin }, method: "OPTIONS" }), [403, null, null, null], origin);
      const socket = new WebSocket(`${listed.url.replace("http", "ws")}/engine.io/?EIO=4&transport=websocket`, { origin });
      socket.on("error", () => {}); // It is what is to come; its answer tells more.
      assert.equal((await next(socket, "unexpected-response"))[1].statusCode, 403, origin);
      socket.terminate();
    }
  });
});

describe("connections are bounded", () => {
  for (const [flag, status] of [["-conns-max", 503], ["-address-conns-max", 429]]) {
    test(`by ${flag}, and one that ends makes room`, async (t) => {
      const bounded = await start("optionserver", flag, "2");
      t.after(() => bounded.stop());
      const handshake = () => fetch(`${bounded.url}/engine.io/?EIO=4&transport=polling`);
      const sid = JSON.parse((await (await handshake()).text()).slice(1)).sid;
      assert.equal((await handshake()).status, 200);
      assert.equal((await handshake()).status, status);
      const url = `${bounded.url}/engine.io/?EIO=4&transport=polling&sid=${sid}`;
      await fetch(url, { method: "POST", body: "1" });
      assert.equal(await (await fetch(url)).text(), "6", "the session stays until a poll has been told of its end");
      assert.equal((await handshake()).status, 200);
      assert.equal((await handshake()).status, status);
    });
  }

  test("by the time to the first poll", async (t) => {
    const quick = await start("optionserver", "-first-poll-timeout", "100ms");
    t.after(() => quick.stop());
    const { sid } = JSON.parse((await (await fetch(`${quick.url}/engine.io/?EIO=4&transport=polling`)).text()).slice(1));
    assert.equal(await endOf(quick, sid), "timeout");
  });
});

describe("an upgrade", { concurrency: 4 }, () => {
  // upgrade resolves to a WebSocket for the session, and to what came over it, in order.
  async function upgrade(t, s) {
    const socket = new WebSocket(`${s.url.replace("http", "ws").replace("polling", "websocket")}`);
    t.after(() => socket.terminate());
    const came = [];
    socket.on("message", (data, binary) => came.push(binary ? data : data.toString()));
    await next(socket, "open");
    return { socket, came, closed: once(socket, "close").then(([code]) => code) };
  }

  test("takes what was queued along, in order", async (t) => {
    const s = await open();
    const { socket, came } = await upgrade(t, s);
    socket.send("2probe");
    await next(socket, "message");
    // The client's last poll ends at once, so that it can go on.
    assert.deepEqual(await within(s.poll(), "last poll"), [200, "6"]);
    assert.deepEqual(await s.post("4posted after the probe\x1ebAAH/"), [200, "ok"]);
    socket.send("5");
    while (came.length < 3) await next(socket, "message");
    socket.send("4over the new one");
    while (came.length < 4) await next(socket, "message");
    assert.deepEqual(came, ["3probe", "4posted after the probe", Buffer.from([0, 1, 255]), "4over the new one"]);
    assert.deepEqual(await s.poll(), refused.request);
    assert.deepEqual(await s.post("4x"), refused.request);
  });

  for (const [name, sent] of Object.entries({
    "that begins with a message": ["4x"],
    "whose probe is another": ["2other"],
    "that is a breach of RFC 6455": [],
    "that goes on without a probe": ["2probe", "4x"],
    "that never comes to its end": ["2probe", null],
  })) {
    test(`${name} leaves the session to polling`, async (t) => {
      const s = await open();
      const { socket, closed } = await upgrade(t, s);
      for (const message of sent) if (message !== null) socket.send(message);
      if (sent.length === 0) socket._socket.write(Buffer.from([0x81, 0x01, 0x34])); // No mask.
      await within(closed, "end of the WebSocket");
      assert.deepEqual(await s.post("4goes on"), [200, "ok"]);
      assert.deepEqual(await s.poll(), [200, "4goes on"]);
      // And another may succeed.
      const again = await upgrade(t, s);
      again.socket.send("2probe");
      await next(again.socket, "message");
      again.socket.send("5");
      again.socket.send("4upgraded");
      while (again.came.length < 2) await next(again.socket, "message");
      assert.deepEqual(again.came, ["3probe", "4upgraded"]);
    });
  }

  test("beside another is closed", async (t) => {
    const s = await open();
    const first = await upgrade(t, s);
    first.socket.send("2probe");
    await next(first.socket, "message");
    const second = await upgrade(t, s);
    assert.equal(await within(second.closed, "end of the second"), 1005);
    first.socket.send("5");
    first.socket.send("4the first");
    while (first.came.length < 2) await next(first.socket, "message");
    assert.deepEqual(first.came, ["3probe", "4the first"]);
    const third = await upgrade(t, s);
    assert.equal(await within(third.closed, "end of the third"), 1005);
  });

  test("of an unknown session is refused", async () => {
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/engine.io/?EIO=4&transport=websocket&sid=forged`);
    socket.on("error", () => {}); // It is what is to come; its answer tells more.
    const [, response] = await next(socket, "unexpected-response");
    assert.equal(response.statusCode, 400);
    socket.terminate();
  });
});
