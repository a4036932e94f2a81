// Packets of Socket.IO on a bare WebSocket (npm's ws) against package socketio: what is refused, and what only looks as if it should be.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { endOf, next, start, within } from "./server.js";

let server;
before(async () => { server = await start("optionserver"); });
after(() => server.stop());

// open resolves to a connection that has joined the namespace / unless join is false. Its next() resolves to what comes next, a string or a
// Buffer, and to "closed" at the end.
async function open(t, { join = true, url = server.url } = {}) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  t.after(() => socket.terminate());
  const came = [];
  let wake;
  const push = (what) => (came.push(what), wake?.());
  socket.on("message", (data, binary) => push(binary ? data : data.toString()));
  socket.on("close", () => push("closed"));
  const connection = {
    send: (...packets) => packets.forEach((p) => socket.send(p)),
    next: async () => {
      while (came.length === 0) await within(new Promise((resolve) => { wake = resolve; }), "packet");
      return came.shift();
    },
  };
  assert.match(await connection.next(), /^0\{/);
  if (join) {
    connection.send("40");
    connection.id = /^40\{"sid":"([^"]+)"/.exec(await connection.next())[1];
  }
  return connection;
}

const byte = (n) => Buffer.from([n]);
const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;

describe("ends the connection for", { concurrency: 4 }, () => {
  const cases = {
    "an unknown type": ["47"],
    "no type": ["4"],
    "a type that is no digit": ["4x"],
    "an event that is no array": ['42{"a":1}'],
    "an event without a name": ["42[]"],
    "an event whose name is an object": ["42[{}]"],
    "JSON that is cut off": ['42["a"'],
    "JSON with more behind it": ['42["a"]x'],
    "CONNECT twice": ["40"],
    "CONNECT with what is no object": ["40[1]"],
    "CONNECT_ERROR, which only servers send": ['44{"message":"x"}'],
    "DISCONNECT with data": ['41{"a":1}'],
    "an acknowledgement that is no array": ["431{}"],
    "zero attachments": ['450-["a"]'],
    "11 attachments": [`4511-["a",${placeholder(0)}]`],
    "a number of attachments that is none": ['45x-["a"]'],
    "a negative number of attachments": ['45-1-["a"]'],
    "a number of attachments without its end": ["451"],
    "a packet among attachments": [`452-["a",${placeholder(0)},${placeholder(1)}]`, byte(1), '42["b"]'],
    "CONNECT among attachments": [`451-["a",${placeholder(0)}]`, "40/other,"],
    "an attachment of nothing": [byte(1)],
    "an attachment too many": [`451-["a",${placeholder(0)}]`, byte(1), byte(2)],
    "a placeholder for no attachment": [`451-["a",${placeholder(1)}]`, byte(1)],
    "a placeholder with a negative number": [`451-["a",${placeholder(-1)}]`, byte(1)],
    "a placeholder within, for no attachment": [`451-["a",{"b":[${placeholder(9)}]}]`, byte(1)],
    "a binary acknowledgement that nobody asked for, of zero attachments": ["460-1[]"],
  };
  for (const name of ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]) {
    cases[`the reserved event ${name}`] = [`42["${name}"]`];
    cases[`the reserved event ${name}, spelt otherwise`] = [`42["\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}"]`];
  }
  for (const [name, packets] of Object.entries(cases)) {
    test(name, async (t) => {
      const [connection, other] = await Promise.all([open(t), open(t)]);
      connection.send(...packets);
      let last;
      do last = await connection.next(); while (last === '43[]' || /^4[23]/.test(last));
      assert.equal(last, "closed");
      assert.equal(await endOf(server, connection.id), "parse error");
      other.send('421["still here"]');
      assert.equal(await other.next(), "431[]", "another connection is not touched");
    });
  }

  test("packets before CONNECT", async (t) => {
    for (const packet of ['42["a"]', "41", "431[]", byte(1)]) {
      const connection = await open(t, { join: false });
      connection.send(packet);
      assert.equal(await connection.next(), "closed");
    }
  });

  test("silence instead of CONNECT", async (t) => {
    const quick = await start("optionserver", "-connect-timeout", "100ms");
    t.after(() => quick.stop());
    const connection = await open(t, { join: false, url: quick.url });
    assert.equal(await connection.next(), "closed");
  });

  test("attachments that never come", async (t) => {
    const quick = await start("optionserver", "-attachment-timeout", "100ms");
    t.after(() => quick.stop());
    const connection = await open(t, { url: quick.url });
    connection.send(`452-["a",${placeholder(0)},${placeholder(1)}]`, byte(1));
    assert.equal(await connection.next(), "closed");
    assert.equal(await endOf(quick, connection.id), "timeout");
  });
});

describe("takes", { concurrency: 4 }, () => {
  const cases = {
    "the event error, which is one as any other": [['421["error",{"message":"x"}]'], ['431[{"message":"x"}]']],
    "an empty name": [['421["",2]'], ["431[2]"]],
    "a name in any script": [['421["grüße \u{1F600}",2]'], ["431[2]"]],
    "acknowledgement 0": [['420["a",2]'], ["430[2]"]],
    "the largest acknowledgement that a number of JavaScript holds": [['429007199254740991["a",2]'], ["439007199254740991[2]"]],
    "acknowledgements in any order and twice": [['425["a",1]', '423["a",2]', '425["a",3]'], ["435[1]", "433[2]", "435[3]"]],
    "an acknowledgement that nobody asked for": [['4399["x"]', '421["a",2]'], ["431[2]"]],
    "a binary one that nobody asked for": [[`461-99[${placeholder(0)}]`, byte(1), '421["a",2]'], ["431[2]"]],
    "ten attachments": [
      [`4510-1["a",${Array.from({ length: 10 }, (_, i) => placeholder(i))}]`, ...Array.from({ length: 10 }, (_, i) => byte(i))],
      [`4610-1[${Array.from({ length: 10 }, (_, i) => placeholder(i))}]`, ...Array.from({ length: 10 }, (_, i) => byte(i))],
    ],
    "attachments in another order than their places": [
      [`452-1["a",${placeholder(1)},${placeholder(0)}]`, byte(10), byte(20)],
      [`462-1[${placeholder(0)},${placeholder(1)}]`, byte(20), byte(10)],
    ],
    "an empty attachment": [[`451-1["a",${placeholder(0)}]`, Buffer.alloc(0)], [`461-1[${placeholder(0)}]`, Buffer.alloc(0)]],
    "a pong, a noop and an upgrade out of place": [["3", "6", "5", '421["a",2]'], ["431[2]"]],
    "CONNECT after DISCONNECT": [["41", "40"], [/^40\{"sid":"[^"]+"\}$/]],
    "a packet for a socket that has gone": [["41", '421["a"]', "40", '422["a",2]'], [/^40\{/, "432[2]"]],
    "a namespace that there is not, and goes on": [["40/nowhere,{}", '421["a",2]'], ['44/nowhere,{"message":"Invalid namespace"}', "431[2]"]],
    "that the main namespace is written out": [['42/,1["a",2]'], ["431[2]"]],
    "whitespace in JSON": [['421[ "a" , { "b" : 1 } ]'], [/^431\[\{ ?"b" ?: ?1 ?\}\]$/]],
    "what says prototype": [['421["__proto__",{"__proto__":1,"constructor":2}]'], ['431[{"__proto__":1,"constructor":2}]']],
    "an event without an acknowledgement": [['42["a"]', '421["a",2]'], ["431[2]"]],
  };
  for (const [name, [packets, wanted]] of Object.entries(cases)) {
    test(name, async (t) => {
      const connection = await open(t);
      connection.send(...packets);
      for (const packet of wanted) {
        const came = await connection.next();
        packet instanceof RegExp ? assert.match(came, packet) : assert.deepEqual(came, packet);
      }
      connection.send('427["end"]');
      assert.equal(await connection.next(), "437[]", "there was nothing else");
    });
  }
});

test("broadcasts go to each socket of the rooms once, and to none of the excepted", async (t) => {
  const [ann, bob, cyd, dan] = await Promise.all([1, 2, 3, 4].map(() => open(t)));
  const ask = async (socket, ...args) => (socket.send(`421${JSON.stringify(args)}`), assert.match(await socket.next(), /^431\[/));
  await ask(ann, "join", "tea", "milk");
  await ask(bob, "join", "tea");
  await ask(cyd, "join", "tea", "coffee");
  // With everyone a mark follows, so that what did not come would stand before it.
  const heard = async (to, except, text) => {
    dan.send(`42${JSON.stringify(["broadcast", to, except, text])}`, '42["broadcast",[],[],"mark"]');
    const all = await Promise.all([ann, bob, cyd, dan].map(async (socket) => {
      const came = [];
      for (let packet; (packet = await socket.next()) !== '42["said","mark"]';) came.push(packet);
      return came;
    }));
    for (const came of all.flat()) assert.equal(came, `42["said",${JSON.stringify(text)}]`);
    return all.map((came) => came.length);
  };
  assert.deepEqual(await heard(["tea"], [], "1"), [1, 1, 1, 0]);
  assert.deepEqual(await heard(["tea", "milk", "coffee"], [], "2"), [1, 1, 1, 0]);
  assert.deepEqual(await heard(["tea"], ["coffee"], "3"), [1, 1, 0, 0]);
  assert.deepEqual(await heard(["tea"], ["coffee", "milk"], "4"), [0, 1, 0, 0]);
  assert.deepEqual(await heard([], ["tea"], "5"), [0, 0, 0, 1]);
  assert.deepEqual(await heard([bob.id], [], "6"), [0, 1, 0, 0]);
  assert.deepEqual(await heard(["tea"], [bob.id], "7"), [1, 0, 1, 0]);
  assert.deepEqual(await heard(["nobody"], [], "8"), [0, 0, 0, 0]);
  ann.send("41");
  assert.equal(await endOf(server, ann.id), "client namespace disconnect");
  dan.send('42["broadcast",["tea"],[],"9"]');
  assert.deepEqual(await Promise.all([bob.next(), cyd.next()]), ['42["said","9"]', '42["said","9"]']);
});

describe("npm's ws as a peer", { concurrency: 4 }, () => {
  // dial resolves to a WebSocket to the echo of Engine.IO.
  async function dial(t, options) {
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/engine.io/?EIO=4&transport=websocket`, options);
    t.after(() => socket.terminate());
    await next(socket, "message");
    return socket;
  }

  for (const perMessageDeflate of [false, true]) {
    test(`sends whole messages and fragments, ${perMessageDeflate ? "offering" : "without"} compression`, async (t) => {
      const socket = await dial(t, { perMessageDeflate });
      assert.equal(socket.extensions, "");
      for (const size of [1, 125, 126, 65_535, 65_536, 999_999]) {
        for (const fragments of [1, 2, 100, 1024]) {
          const data = Buffer.alloc(size, "4grüße ");
          for (let i = 0; i < fragments; i++) {
            const part = data.subarray(Math.floor(size * i / fragments), Math.floor(size * (i + 1) / fragments));
            socket.send(part, { binary: true, fin: i === fragments - 1, compress: true });
            if (i % 100 === 1) socket.ping(`${i}`);
          }
          const [echo, binary] = await next(socket, "message");
          assert.ok(binary && data.equals(echo), `${size} bytes in ${fragments} fragments came as ${echo.length}`);
        }
      }
    });
  }

  test("has its pings answered with what they held", async (t) => {
    const socket = await dial(t);
    for (const beat of ["", "x", "\0\u00ff", "b".repeat(125)]) {
      socket.ping(beat);
      assert.equal((await next(socket, "pong")).toString(), beat);
    }
  });

  test("has its close answered with its code", async (t) => {
    for (const code of [1000, 1001, 1011, 3000, 4999]) {
      const socket = await dial(t);
      socket.close(code, "grüße");
      assert.equal((await within(once(socket, "close"), "close"))[0], code);
    }
  });

  test("is told why it was closed", async (t) => {
    for (const [code, breach] of [
      [1009, (socket) => socket.send(Buffer.alloc(1_000_001))],
      [1007, (socket) => socket.send(Buffer.from([0x34, 0xc3]), { binary: false })],
      [1002, (socket) => socket._socket.write(Buffer.from([0x83, 0x80, 0, 0, 0, 0]))],
    ]) {
      const socket = await dial(t);
      const closed = once(socket, "close");
      breach(socket);
      assert.equal((await within(closed, "close"))[0], code);
    }
  });
});
