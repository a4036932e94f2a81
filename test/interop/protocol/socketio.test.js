// The official socket.io-client, in its versions, against package socketio, over each transport and through an upgrade.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ask, clients, ended } from "./clients.js";
import { holdUpgrade, next, start, startServer, until, within } from "./server.js";

const transports = {
  websocket: { transports: ["websocket"] },
  polling: { transports: ["polling"] },
  upgrade: {},
};

let server;
before(async () => { server = await startServer(); });
after(() => server.stop());

// Much of a test is waiting, so some run beside each other.
const concurrency = 4;

for (const client of clients) describe(`socket.io-client ${client.version}`, { concurrency }, () => {
  const { io, Manager } = client;

  // connect resolves to a connected socket, which is closed at the end of the test t.
  async function connect(t, path = "/", options = {}) {
    const socket = io(server.url + path, { forceNew: true, ...options });
    t.after(() => socket.disconnect());
    await next(socket, "connect");
    return socket;
  }

  for (const [name, options] of Object.entries(transports)) {
    describe(`over ${name}`, { concurrency }, () => {
      test("connects with the transport", async (t) => {
        const socket = io(server.url, { forceNew: true, ...options });
        t.after(() => socket.disconnect());
        const first = await next(socket.io, "open").then(() => socket.io.engine.transport.name);
        assert.equal(first, name === "websocket" ? "websocket" : "polling");
        if (name === "upgrade") {
          await next(socket.io.engine, "upgrade");
          assert.equal(socket.io.engine.transport.name, "websocket");
        }
        if (!socket.connected) await next(socket, "connect");
        assert.equal(socket.id.length, 20);
      });

      test("passes auth", async (t) => {
        const socket = io(server.url, { forceNew: true, auth: { token: "123", "ü": ["✓"] }, ...options });
        t.after(() => socket.disconnect());
        assert.deepEqual(await next(socket, "auth"), { token: "123", "ü": ["✓"] });
      });

      test("echoes every kind of argument", async (t) => {
        const socket = await connect(t, "/", options);
        const args = [1, "2", { 3: [true, null] }, "grüße \u{1F600} <&>\u2028\"\\", -1.5e300, [], {}];
        socket.emit("message", ...args);
        assert.deepEqual(await next(socket, "message-back"), args);
      });

      test("echoes binary, inside of an ack too", async (t) => {
        const socket = await connect(t, "/", options);
        const data = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i % 251));
        socket.emit("message", "before", data, Buffer.alloc(0), "after");
        assert.deepEqual(await next(socket, "message-back"), ["before", data, Buffer.alloc(0), "after"]);
        assert.deepEqual(await ask(socket, "message-with-ack", data), data);
        const inside = { file: data, parts: [Buffer.from("a"), { deep: Buffer.alloc(0) }] };
        socket.emit("message", inside, data);
        assert.deepEqual(await next(socket, "message-back"), [inside, data]);
        assert.deepEqual(await ask(socket, "message-with-ack", inside), inside);
      });

      test("takes a number for the name of an event", async (t) => {
        const socket = await connect(t, "/", options);
        socket.emit(17, "x"); // nobody listens, and the connection stays
        assert.deepEqual(await ask(socket, "message-with-ack", 1), 1);
      });

      test("answers a WebSocket subprotocol", async (t) => {
        const socket = await connect(t, "/", { ...options, protocols: ["chat", "other"] });
        assert.deepEqual(await ask(socket, "message-with-ack", 1), 1);
      });

      test("acknowledges events of the client", async (t) => {
        const socket = await connect(t, "/", options);
        assert.deepEqual(await ask(socket, "message-with-ack", { a: 1 }), { a: 1 });
        const many = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(socket, "message-with-ack", i)));
        assert.deepEqual(many, Array.from({ length: 200 }, (_, i) => i));
      });

      test("asks the client for acknowledgements", async (t) => {
        const socket = await connect(t, "/", options);
        socket.once("question", (text, ack) => ack("fine", { asked: text }));
        socket.emit("ask");
        assert.deepEqual(await next(socket, "answer"), ["fine", { asked: "how are you?" }]);
        socket.once("question", (_, ack) => ack(Buffer.from([1, 2, 3])));
        socket.emit("ask");
        assert.equal(await next(socket, "answer"), "AQID", "a binary acknowledgement comes as base64");
        socket.emit("ask"); // Nobody answers.
        assert.equal(await next(socket, "answer"), "context deadline exceeded");
      });

      test("keeps a thousand messages in order both ways", async (t) => {
        const proxy = await holdUpgrade(server.url);
        t.after(() => proxy.stop());
        if (name === "websocket") proxy.release();
        const socket = io(proxy.url, { forceNew: true, ...options });
        t.after(() => socket.disconnect());
        const echoed = [], counted = [];
        let sent = 0;
        socket.on("message-back", (n, data) => echoed.push(data ? data.readUInt16LE() : n));
        socket.on("number", (n) => counted.push(n));
        const arrived = () => Math.min(echoed.length, counted.length);
        // flow has n more messages sent by both, of which about a hundred at a time are under way.
        const flow = async (n) => {
          for (const end = sent + n; sent < end; sent++) {
            await until(() => sent - arrived() <= 100, "messages under way");
            // One in three is binary: what belongs together must not be torn apart.
            sent % 3 ? socket.emit("message", sent) : socket.emit("message", "binary", Buffer.from(Uint16Array.of(sent).buffer));
            socket.emit("count", sent, sent + 1);
          }
        };

        await next(socket, "connect");
        await flow(500);
        const { engine } = socket.io;
        if (name === "upgrade") {
          assert.equal(engine.transport.name, "polling");
          const upgraded = next(engine, "upgrade", 20_000);
          proxy.release();
          while (engine.transport.name !== "websocket") await flow(10);
          await upgraded;
        }
        await flow(500);
        await until(() => arrived() >= sent, "the rest");
        const wanted = Array.from({ length: sent }, (_, i) => i);
        assert.deepEqual(echoed, wanted);
        assert.deepEqual(counted, wanted);
      });

      test("takes messages close to the limit, and cuts at it", async (t) => {
        const socket = await connect(t, "/", options);
        const text = "x".repeat(990_000);
        assert.equal(await ask(socket, "message-with-ack", text), text);
        if (name === "upgrade" && socket.io.engine.transport.name === "polling") await next(socket.io.engine, "upgrade");
        socket.io.reconnection(false);
        socket.emit("message", "x".repeat(1_000_001));
        assert.ok(["transport error", "transport close"].includes(await ended(socket, 10_000)));
      });

      test("has rooms", async (t) => {
        const [ann, bob, eve] = await Promise.all([1, 2, 3].map(() => connect(t, "/", options)));
        await ask(ann, "join", "tea");
        await ask(bob, "join", "tea");
        eve.on("said", () => assert.fail("eve is in no room"));
        ann.on("said", () => assert.fail("the sender is left out"));
        const said = next(bob, "said");
        await ask(ann, "room", "tea", "milk?", Buffer.from("sugar"));
        assert.deepEqual(await said, ["milk?", Buffer.from("sugar")]);
        await ask(bob, "leave", "tea");
        bob.on("said", () => assert.fail("bob has left"));
        await ask(ann, "room", "tea", "nobody");
        await Promise.all([ann, bob, eve].map((s) => ask(s, "message-with-ack", 1)));
      });

      test("asks a room for acknowledgements, and is told how many did not come", async (t) => {
        const room = `asked over ${name} by ${client.version}`;
        const [ann, bob, eve] = await Promise.all([1, 2, 3].map(() => connect(t, "/", options)));
        await Promise.all([ann, bob, eve].map((s) => ask(s, "join", room)));
        ann.on("question", (_, ack) => ack("ann"));
        bob.on("question", (_, ack) => ack("bob", Buffer.from([1, 2, 3])));
        const asked = async () => {
          const answers = next(ann, "answers");
          ann.emit("ask-room", room);
          const [held, missing] = await answers;
          return JSON.stringify([held.sort(), missing]);
        };
        // The server does not wait long, and who is late is missed; so it is asked until nobody was.
        await until(async () => await asked() === '[[["ann"],["bob","AQID"]],1]', "two answers of three");
        eve.on("question", (_, ack) => ack("eve"));
        await until(async () => await asked() === '[[["ann"],["bob","AQID"],["eve"]],0]', "all three answers");
      });

      test("may miss what is volatile, and nothing else", async (t) => {
        const socket = await connect(t, "/", options);
        if (name === "upgrade" && socket.io.engine.transport.name === "polling") await next(socket.io.engine, "upgrade");
        const ticks = [];
        socket.on("tick", (n) => ticks.push(n));
        const ticked = next(socket, "ticked");
        socket.emit("volatile", 1000);
        await ticked;
        assert.deepEqual(ticks, [...new Set(ticks)].sort((a, b) => a - b), "what comes is in order");
        await until(async () => {
          ticks.length = 0;
          await ask(socket, "volatile", 1);
          return ticks.length === 1;
        }, "a tick when nothing else is to be sent");
      });

      test("has the official reasons for the end", async (t) => {
        const kicked = await connect(t, "/", options);
        kicked.emit("kick");
        assert.equal(await ended(kicked), "io server disconnect");
        assert.equal(kicked.active, false, "the client does not come back");

        const cut = await connect(t, "/", { ...options, reconnectionDelay: 10, reconnectionDelayMax: 20 });
        cut.emit("cut");
        assert.equal(await ended(cut), "transport close");
        assert.equal(cut.active, true, "the client comes back");
        await next(cut, "connect");

        const panicked = await connect(t, "/", { ...options, reconnectionDelay: 10, reconnectionDelayMax: 20 });
        panicked.emit("panic");
        assert.equal(await ended(panicked), "transport close");
        await next(panicked, "connect");
      });

      test("comes back after the server was restarted", async (t) => {
        const first = await startServer();
        const socket = io(first.url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100, ...options });
        t.after(() => socket.disconnect());
        await next(socket, "connect");
        const id = socket.id;
        await first.stop();
        if (socket.connected) await next(socket, "disconnect");
        const second = await startServer("-listen", new URL(first.url).host);
        t.after(() => second.stop());
        await next(socket, "connect", 10_000);
        assert.notEqual(socket.id, id);
        assert.equal(await ask(socket, "message-with-ack", "again"), "again");
      });
    });
  }

  describe("namespaces", { concurrency }, () => {
    test("share a connection and end apart", async (t) => {
      const manager = new Manager(server.url, { transports: ["websocket"] });
      const main = manager.socket("/"), custom = manager.socket("/custom", { auth: { who: "me" } });
      t.after(() => (main.disconnect(), custom.disconnect()));
      assert.deepEqual(await next(custom, "auth"), { who: "me" });
      assert.notEqual(main.id, custom.id);
      custom.emit("message", "custom");
      assert.equal(await next(custom, "message-back"), "custom");
      custom.emit("kick");
      assert.equal(await ended(custom), "io server disconnect");
      assert.equal(await ask(main, "message-with-ack", "still here"), "still here");
      custom.connect();
      await next(custom, "connect");
      custom.disconnect();
      custom.connect();
      await next(custom, "connect");
      assert.equal(await ask(custom, "message-with-ack", "and back"), "and back");
    });

    test("may exist by function, each for itself", async (t) => {
      const [one, other] = await Promise.all(["/tenant-1", "/tenant-2"].map((path) => connect(t, path)));
      const same = await connect(t, "/tenant-1");
      await Promise.all([one, same, other].map((s) => ask(s, "join", "tea")));
      other.on("said", (text) => text === "to all tenants" || assert.fail(`${text} was said in another namespace`));
      const heard = next(same, "said");
      await ask(one, "room", "tea", "in here");
      assert.equal(await heard, "in here");
      const all = Promise.all([one, same, other].map((s) => next(s, "said")));
      one.emit("tenants", "to all tenants");
      assert.deepEqual(await all, ["to all tenants", "to all tenants", "to all tenants"]);
    });

    test("that do not exist are refused", async (t) => {
      const socket = io(`${server.url}/nowhere`, { forceNew: true });
      t.after(() => socket.disconnect());
      const err = await next(socket, "connect_error");
      assert.equal(err.message, "Invalid namespace");
      assert.equal(err.data, undefined);
    });

    test("may refuse with data, and accept later on the same connection", async (t) => {
      const socket = io(`${server.url}/private`, { forceNew: true, auth: { token: "wrong" } });
      t.after(() => socket.disconnect());
      const err = await next(socket, "connect_error");
      assert.equal(err.message, "not authorized");
      assert.deepEqual(err.data, { code: "wrong_token" });
      socket.auth = { token: "open sesame" };
      socket.connect();
      await next(socket, "connect");
    });
  });

  describe("heartbeat", { concurrency }, () => {
    for (const transport of ["websocket", "polling"]) {
      test(`keeps ${transport} alive over many pings`, async (t) => {
        const quick = await startServer("-ping-interval", "100ms", "-ping-timeout", "1s");
        t.after(() => quick.stop());
        const socket = io(quick.url, { forceNew: true, transports: [transport] });
        t.after(() => socket.disconnect());
        await next(socket, "connect");
        socket.on("disconnect", (reason) => assert.fail(reason));
        for (let i = 0; i < 5; i++) await next(socket.io, "ping");
        assert.equal(await ask(socket, "message-with-ack", 1), 1);
        socket.off("disconnect");
      });
    }
  });
});

describe("what later clients have", { concurrency }, () => {
  let options;
  before(async () => { options = await start("optionserver"); });
  after(() => options.stop());

  for (const { version, io } of clients.filter(({ io }) => io.Socket.prototype.timeout)) {
    test(`${version}: an acknowledgement that does not come in time is an error`, async (t) => {
      const socket = io(options.url, { forceNew: true, transports: ["websocket"] });
      t.after(() => socket.disconnect());
      const answer = (event, millis) => within(new Promise((resolve) => socket.timeout(millis).emit(event, 1, (...args) => resolve(args))), event);
      const [late] = await answer("silent", 50);
      assert.equal(late?.message, "operation has timed out");
      assert.deepEqual(await answer("message", 10_000), [null, 1]);
    });
  }

  const { io } = clients[0];

  test("the newest: emitWithAck", async (t) => {
    const socket = io(options.url, { forceNew: true });
    t.after(() => socket.disconnect());
    await assert.rejects(socket.timeout(50).emitWithAck("silent"), /operation has timed out/);
    assert.deepEqual(await socket.timeout(10_000).emitWithAck("message", Buffer.from("b")), Buffer.from("b"));
  });

  test("the newest: events are sent again until they are acknowledged", async (t) => {
    const first = await start("optionserver");
    const socket = io(first.url, { forceNew: true, retries: 20, ackTimeout: 200, reconnectionDelay: 50, reconnectionDelayMax: 100 });
    t.after(() => socket.disconnect());
    await next(socket, "connect");
    await first.stop();
    const acked = Promise.all([1, 2, 3].map((n) => new Promise((resolve, reject) => {
      socket.emit("message", n, (err, answer) => (err ? reject(err) : resolve(answer)));
    })));
    const second = await start("optionserver", "-listen", new URL(first.url).host);
    t.after(() => second.stop());
    assert.deepEqual(await within(acked, "acknowledgements", 15_000), [1, 2, 3]);
  });

  test("the newest: the next transport is tried when one fails", async (t) => {
    // A proxy that knows no WebSocket, as some do.
    const proxy = await holdUpgrade(options.url, { refuse: true });
    t.after(() => proxy.stop());
    const socket = io(proxy.url, { forceNew: true, transports: ["websocket", "polling"], tryAllTransports: true });
    t.after(() => socket.disconnect());
    await next(socket, "connect");
    assert.equal(socket.io.engine.transport.name, "polling");
    assert.equal(await ask(socket, "message", "by the other way"), "by the other way");
  });

  test("the newest: volatile events are dropped while there is no connection", async (t) => {
    const socket = io(options.url, { forceNew: true, autoConnect: false });
    t.after(() => socket.disconnect());
    socket.volatile.emit("broadcast", [], [], "volatile");
    socket.emit("broadcast", [], [], "kept");
    const said = next(socket, "said");
    socket.connect();
    assert.equal(await said, "kept");
  });
});
