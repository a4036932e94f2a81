// Clients of the official library that keep no cursor lose their connection while 100 messages a second are sent, and get what they missed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { io } from "socket.io-client";
import { freePort, startParley, tokenFor } from "./parley.mjs";
import { freshDatabase } from "./postgres.mjs";
import { startProxy } from "./proxy.mjs";

// Reader is written as by someone who has read the tutorial, and the page of Socket.IO on recovery, and nothing of ours.
class Reader {
  got = [];
  connects = []; // socket.recovered and socket.id at each
  reasons = [];
  #look = () => {};

  constructor(t, port, user, { handshake = false, ...options } = {}) {
    const token = tokenFor(user);
    const socket = this.socket = io(`http://127.0.0.1:${port}`, {
      forceNew: true, transports: ["websocket"], reconnectionDelay: 20, reconnectionDelayMax: 100, ...(handshake && { auth: { token } }), ...options,
    });
    t.after(() => socket.disconnect());
    socket.on("connect", () => {
      this.connects.push({ recovered: socket.recovered, id: socket.id });
      if (!handshake && !socket.recovered) socket.emit("authenticate", { user_id: user, token });
      this.#look();
    });
    socket.on("disconnect", (reason) => this.reasons.push(reason));
    socket.on("new-message", (message) => (this.got.push(message), this.#look()));
    for (const event of ["authenticated", "sync_required", "error"]) {
      socket.on(event, (payload) => ((this[event] ??= []).push(payload), this.#look()));
    }
  }

  until(what, check, millis = 15_000) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${what}: not in ${millis} ms; ${this.got.length} messages, ` +
        `${JSON.stringify(this.connects)}, ${this.reasons}, ${JSON.stringify(this.error)}`)), millis);
      this.#look = () => check() && (clearTimeout(timer), resolve());
      this.#look();
    });
  }

  has(n) { return this.until(`${n} messages`, () => new Set(this.got.map((m) => m.id)).size >= n); }

  // dealt asserts that the messages of each conversation came, n in all, each for the first time in its place, and returns how many came again.
  dealt(n) {
    const seen = {};
    for (const message of this.got) {
      const inOrder = seen[message.conversation_id] ??= [];
      if (message.seq <= inOrder.length) {
        assert.equal(message.id, inOrder[message.seq - 1].id, "what comes again has the same id");
      } else {
        assert.equal(message.seq, inOrder.length + 1, "what comes for the first time is the next one");
        inOrder.push(message);
      }
    }
    assert.equal(Object.values(seen).reduce((sum, inOrder) => sum + inOrder.length, 0), n);
    return this.got.length - n;
  }
}

// Sender sends 100 messages a second to some conversations through servers that may go away meanwhile, each until it is acknowledged.
class Sender {
  acked = 0;
  #stop = false;

  constructor(t, client, conversations) {
    t.after(() => { this.#stop = true; });
    this.done = (async () => {
      const began = performance.now();
      for (let i = 0; !this.#stop; i++) {
        const wait = began + i * 10 - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        for (;;) {
          if (this.#stop) return;
          try {
            const answer = await client.socket.timeout(2000).emitWithAck("send-message", { conversation_id: conversations[i % conversations.length], content: `${i}`, client_message_id: `${i}` });
            if (answer.ok) break;
          } catch { /* no answer: again */ }
        }
        this.acked++;
      }
    })();
  }

  async reaches(n) {
    while (this.acked < n && !this.#stop) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  // stop resolves to how many messages there are.
  async stop() {
    this.#stop = true;
    await this.done;
    return this.acked;
  }
}

// sending makes three groups of ann and others, and has her send to them.
async function sending(t, server, others) {
  const groups = await Promise.all([1, 2, 3].map(() => server.group("ann", others)));
  return new Sender(t, server.open(t, { transports: ["websocket"], auth: { token: tokenFor("ann") } }), groups.map((group) => group.id));
}

for (const [name, options] of [
  ["that signed in by the event", {}],
  ["that signed in by the handshake", { handshake: true }],
  ["over long polling", { transports: ["polling"] }],
  ["with an upgrade", { transports: ["polling", "websocket"] }],
]) {
  test(`on the same node a client ${name} gets each message exactly once`, async (t) => {
    const server = await startParley(t);
    const proxy = await startProxy(t, server.port);
    const bob = new Reader(t, proxy.port, "bob", options);
    await bob.until("signed in", () => bob.authenticated);
    const sender = await sending(t, server, ["bob"]);
    await bob.has(20);
    for (let round = 1; round <= 4; round++) {
      // What is under way when the connection breaks is lost with it, in every second round a good deal.
      if (round % 2 === 0) {
        proxy.hold();
        await sender.reaches(sender.acked + 30);
      }
      // Between two polls there may be no connection to drop.
      if (round === 3 || options.transports?.length === 1) {
        proxy.cut();
        await sender.reaches(sender.acked + 100);
        await proxy.heal();
      } else {
        proxy.drop();
      }
      await bob.until(`connected again, round ${round}`, () => bob.connects.length > round && bob.authenticated.length > round);
      await sender.reaches(sender.acked + 20);
    }
    const last = await sender.stop();
    await bob.has(last);
    await new Promise((resolve) => bob.socket.emit("sync", {}, resolve)); // what might yet come again came before this
    assert.equal(bob.dealt(last), 0, "nothing came twice");
    assert.deepEqual(new Set(bob.connects.slice(1).map((c) => c.recovered)), new Set([true]));
    assert.equal(new Set(bob.connects.map((c) => c.id)).size, 1, "it stayed the same socket");
    assert.equal(bob.error, undefined);
  });
}

test("a client comes back before the server knows that the connection broke", async (t) => {
  const server = await startParley(t);
  const proxy = await startProxy(t, server.port);
  const bob = new Reader(t, proxy.port, "bob");
  await bob.until("signed in", () => bob.authenticated);
  const sender = await sending(t, server, ["bob"]);
  await bob.has(20);
  proxy.hold(); // the server goes on writing into the old connection
  await sender.reaches(sender.acked + 50);
  bob.socket.io.engine.close(); // as when a phone has changed its network
  await bob.until("connected again", () => bob.connects.length > 1);
  await sender.reaches(sender.acked + 50);
  const last = await sender.stop();
  await bob.has(last);
  assert.equal(bob.dealt(last), 0, "nothing came twice");
  assert.equal(bob.connects[1].recovered, true);
  assert.equal(await server.metric("parley_gateway_sessions"), 2, "the old socket is gone");
});

for (const database of [undefined, "postgres"]) {
  test(`after kill -9 and a restart a client gets what it missed, on ${database ?? "sqlite"}`, async (t) => {
    const server = await startParley(t, { database: database && await freshDatabase(t) });
    const [bob, cem] = [new Reader(t, server.port, "bob"), new Reader(t, server.port, "cem", { handshake: true })];
    for (const reader of [bob, cem]) await reader.until("signed in", () => reader.authenticated);
    const sender = await sending(t, server, ["bob", "cem"]);
    for (let round = 1; round <= 2; round++) {
      await sender.reaches(sender.acked + 150);
      await server.kill();
      await server.start();
      for (const reader of [bob, cem]) await reader.until("signed in again", () => reader.authenticated.length > round);
    }
    await sender.reaches(sender.acked + 50);
    const last = await sender.stop();
    for (const reader of [bob, cem]) {
      await reader.has(last);
      const again = reader.dealt(last);
      t.diagnostic(`${last} messages, ${again} came again`);
      assert.equal(reader.sync_required, undefined);
      assert.equal(reader.error, undefined);
    }
  });
}

test("on another node a client gets what it missed on the one that was killed", async (t) => {
  const database = await freshDatabase(t);
  const [portA, portB] = [await freePort(), await freePort()];
  const a = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:${portA}`] });
  const b = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:${portB}`, "--cluster-routes", `nats://127.0.0.1:${portA}`] });
  const proxy = await startProxy(t, a.port);
  const bob = new Reader(t, proxy.port, "bob");
  await bob.until("signed in", () => bob.authenticated);
  const sender = await sending(t, b, ["bob"]);
  await bob.has(200);

  proxy.lead(b.port);
  proxy.drop(); // the first goes on living
  await bob.until("signed in elsewhere", () => bob.authenticated.length > 1);
  await sender.reaches(sender.acked + 100);
  proxy.lead(a.port);
  proxy.drop();
  await bob.until("signed in at the first again", () => bob.authenticated.length > 2);
  await sender.reaches(sender.acked + 100);
  proxy.lead(b.port);
  await a.kill();
  await bob.until("signed in after the kill", () => bob.authenticated.length > 3);
  await sender.reaches(sender.acked + 100);
  const last = await sender.stop();
  await bob.has(last);
  t.diagnostic(`${last} messages, ${bob.dealt(last)} came again`);
  assert.equal(bob.sync_required, undefined);
  assert.equal(bob.error, undefined);
});

test("a pid signs in whom it was given to, once its time has not passed, and nobody else", async (t) => {
  const server = await startParley(t, { args: ["--gateway-recovery-time", "2s"] });
  const open = (auth) => {
    const socket = io(server.url, { forceNew: true, transports: ["websocket"], reconnection: false, auth });
    t.after(() => socket.disconnect());
    const events = [];
    socket.onAny((event, payload) => events.push([event, payload]));
    return new Promise((resolve, reject) => {
      socket.once("connect", () => resolve({ socket, events, pid: socket._pid, id: socket.id }));
      socket.once("connect_error", reject);
    });
  };
  // who answers as whom a socket is signed in; an event before that would be held.
  const who = async ({ socket, events }) => {
    const answer = await new Promise((resolve) => socket.emit("authenticate", {}, resolve));
    assert.equal(answer.ok, false);
    return events.find(([event]) => event === "authenticated")?.[1].user_id;
  };
  const signedIn = async (user) => {
    const client = await open({ token: tokenFor(user) });
    assert.equal(await who(client), user);
    return client;
  };
  const broken = async (client) => {
    client.socket.io.engine.close();
    return client;
  };
  const bob = await broken(await signedIn("bob"));
  const other = await signedIn("eve");

  // Forged: the id of a socket is no secret.
  for (const pid of [bob.id, `${bob.id}.`, `${bob.id}.${"A".repeat(24)}`, `${bob.id}.${other.pid.split(".")[1]}`, "", ".", "x".repeat(9000), 7, null, {}, ["a"]]) {
    assert.equal(await who(await open({ pid, offset: "e1.1" })), undefined, JSON.stringify(pid).slice(0, 60));
  }
  // Of a socket that lives: its user moves.
  const again = await open({ pid: other.pid });
  assert.equal(await who(again), "eve");
  assert.equal(again.id, other.id);
  // With another user's token it is that user who signs in.
  const cem = await open({ pid: again.pid, token: tokenFor("cem") });
  assert.equal(await who(cem), "cem");
  assert.notEqual(cem.id, again.id);
  // Offsets may be anything.
  for (const offset of ["", "e", "c", "e.", "e-1.5", `e${"z".repeat(40)}.1`, "e1.zzzzzzzzzzzzzzzz", "c1.1.!", "c1.1", `c${"1".repeat(3000)}`, "e1.1.x", "\u0000", 5, {}]) {
    const client = await broken(await signedIn("dan"));
    const back = await open({ pid: client.pid, offset });
    assert.equal(await who(back), "dan", JSON.stringify(offset).slice(0, 60));
    const elsewhere = await open({ pid: "gone.gone", offset, token: tokenFor("dan") });
    assert.equal(await who(elsewhere), "dan", JSON.stringify(offset).slice(0, 60));
  }
  // Once.
  const fay = await broken(await signedIn("fay"));
  const first = await open({ pid: fay.pid });
  assert.equal(await who(first), "fay");
  // Who left by himself is not there any more.
  const gus = await signedIn("gus");
  gus.socket.disconnect();
  assert.equal(await who(await open({ pid: gus.pid })), undefined);
  // Nor who was put out: here because the token ended.
  const hal = await open({ token: tokenFor("hal", 1 - 30) }); // with the leeway it lives for a second
  await new Promise((resolve) => hal.socket.once("disconnect", resolve));
  assert.equal(await who(await open({ pid: hal.pid })), undefined);
  // Nor anyone after the time of recovery.
  const ian = await broken(await signedIn("ian"));
  const began = Date.now();
  while (Date.now() - began < 2500) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(await who(await open({ pid: ian.pid })), undefined);
});
