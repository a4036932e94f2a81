// Clients that poll through a balancer without sticky sessions: each request goes to another node than the one before.
import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, createServer, request } from "node:http";
import { connect } from "node:net";
import { test } from "node:test";
import { Client } from "./client.mjs";
import { eventually, freePort, startParley } from "./parley.mjs";
import { freshDatabase } from "./postgres.mjs";

// startBalancer resolves to { url, counts, upgrades } of an HTTP proxy that takes two nodes in turn, for handshakes and for the requests of each
// session; it ends with the test t. Every second WebSocket meets the node that has its session. A node that refuses connections is passed over, as
// by any balancer; what breaks later is the client's to see.
async function startBalancer(t, nodes) {
  const agent = new Agent({ keepAlive: true });
  const sockets = new Set();
  const counts = [0, 0];
  const upgrades = { owner: 0, other: 0 };
  const turns = new Map();
  const owners = new Map(); // the number of its node, by session id
  const sidOf = (url) => new URL(url, "http://balancer").searchParams.get("sid");
  const next = (sid) => {
    const turn = turns.get(sid) ?? 0;
    turns.set(sid, 1 - turn);
    counts[turn]++;
    return turn;
  };
  const balancer = createServer(async (from, to) => {
    const body = [];
    try {
      for await (const chunk of from) body.push(chunk);
    } catch {
      return; // the client has gone
    }
    const sid = sidOf(from.url);
    const forward = (node, again) => {
      const upstream = request({ agent, port: nodes[node].port, host: "127.0.0.1", method: from.method, path: from.url, headers: from.headers });
      upstream.on("response", (answer) => {
        to.writeHead(answer.statusCode, answer.headers);
        answer.on("error", () => to.destroy());
        answer.on("data", (chunk) => { if (!sid) owners.set(/"sid":"([^"]+)/.exec(chunk)?.[1], node); });
        answer.pipe(to);
      });
      upstream.on("error", (err) => {
        if (err.code === "ECONNREFUSED" && again) return forward(1 - node, false);
        if (!to.headersSent) to.writeHead(502);
        to.end();
      });
      to.on("close", () => upstream.destroy());
      upstream.end(Buffer.concat(body));
    };
    forward(next(sid), true);
  });
  balancer.on("upgrade", (from, client, head) => {
    const owner = owners.get(sidOf(from.url));
    const right = upgrades.owner === upgrades.other;
    upgrades[right ? "owner" : "other"]++;
    const upstream = connect(nodes[right ? owner : 1 - owner].port, "127.0.0.1", () => {
      const lines = Object.entries(from.headers).map(([name, value]) => `${name}: ${value}\r\n`).join("");
      upstream.write(`${from.method} ${from.url} HTTP/1.1\r\n${lines}\r\n`);
      upstream.write(head);
      client.pipe(upstream).pipe(client);
    });
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(socket);
      socket.on("error", () => {}); // "close" follows
      socket.on("close", () => (sockets.delete(socket), other.destroy()));
    }
  });
  balancer.listen(0, "127.0.0.1");
  await once(balancer, "listening");
  t.after(() => {
    balancer.close();
    balancer.closeAllConnections();
    agent.destroy();
    sockets.forEach((socket) => socket.destroy());
  });
  return { url: `http://127.0.0.1:${balancer.address().port}`, counts, upgrades };
}

// cluster starts two nodes with a balancer before them.
async function cluster(t) {
  const database = await freshDatabase(t);
  const port = await freePort();
  const a = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:${port}`] });
  const b = await startParley(t, { database, args: ["--cluster-listen", `127.0.0.1:0`, "--cluster-routes", `nats://127.0.0.1:${port}`] });
  await eventually("the nodes know each other", async () => await a.metric("parley_bus_routes") === 1 && await b.metric("parley_bus_routes") === 1, 15_000);
  return { a, b, balancer: await startBalancer(t, [a, b]) };
}

const forwards = async (...nodes) => (await Promise.all(nodes.map((node) => node.metric("parley_gateway_forwards_total")))).reduce((sum, n) => sum + n);

async function signedIn(t, url, user, options) {
  const client = new Client(t, url, options);
  await client.signIn(user);
  return client;
}

// talk has two clients send n messages each, at the same time, and holds both to having got all of them once, in one order.
async function talk(clients, conversation, n, history) {
  const contents = ({ user }) => Array.from({ length: n }, (_, i) => `${user} ${i}`);
  await Promise.all(clients.map(async (client) => {
    const waiting = contents(client);
    while (waiting.length > 0) await Promise.all(waiting.splice(0, 10).map((content) => client.send(conversation, content)));
  }));
  for (const client of clients) {
    await client.until(`${2 * n} messages`, () => client.messages(conversation).length >= 2 * n, 20_000);
    await client.settled();
    assert.deepEqual(client.got("new-message").map((m) => m.seq), Array.from({ length: 2 * n }, (_, i) => i + 1), `what ${client.user} got`);
    for (const sender of clients) {
      assert.deepEqual(client.messages(conversation).filter((content) => content.startsWith(`${sender.user} `)), contents(sender));
    }
  }
  assert.deepEqual((await history()).map((m) => m.content), clients[0].messages(conversation));
}

test("clients poll through whichever node comes next", async (t) => {
  const { a, b, balancer } = await cluster(t);
  const { id } = await a.group("ann", ["bob"]);
  const clients = await Promise.all(["ann", "bob"].map((user) => signedIn(t, balancer.url, user, { transports: ["polling"] })));
  await talk(clients, id, 300, () => b.history("ann", id));
  for (const client of clients) {
    assert.equal(client.socket.io.engine.transport.name, "polling");
    assert.deepEqual([client.got(":disconnect"), client.got(":connect_error"), client.got(":connect").length], [[], [], 1]);
  }
  assert.ok(Math.min(...balancer.counts) > 50 && Math.abs(balancer.counts[0] - balancer.counts[1]) <= 3, `both nodes were asked: ${balancer.counts}`);
  const forwarded = await forwards(a, b);
  assert.ok(Math.abs(forwarded - balancer.counts[0]) < 5, `${forwarded} forwarded, of ${balancer.counts}`);

  // What a forward costs, with nobody else at work.
  const alone = await startBalancer(t, [a, a]);
  const [direct, turns] = await Promise.all([alone, balancer].map(({ url }) => signedIn(t, url, "ann", { transports: ["polling"] })));
  for (const [what, client] of [["on one node", direct], ["in turns", turns]]) {
    const took = [];
    for (let i = 0; i < 100; i++) {
      const began = performance.now();
      await client.ok("sync", {});
      took.push(performance.now() - began);
    }
    t.diagnostic(`an event and its acknowledgement ${what}: ${took.sort((x, y) => x - y)[50].toFixed(2)} ms (p50), ${took[95].toFixed(2)} ms (p95)`);
  }
});

test("clients that would upgrade go on, whichever node their WebSocket meets", async (t) => {
  const { a, balancer } = await cluster(t);
  const clients = [];
  for (let i = 0; i < 8; i++) clients.push(await signedIn(t, balancer.url, `user-${i}`, {}));
  await eventually("all have tried to upgrade", () => balancer.upgrades.owner === 4 && balancer.upgrades.other === 4);
  const over = (name) => clients.filter((client) => client.socket.io.engine.transport.name === name).length;
  await eventually("those upgrade whose WebSocket meets their node", () => over("websocket") === 4);
  assert.equal(over("polling"), 4);
  for (let i = 0; i < clients.length; i += 2) {
    const pair = clients.slice(i, i + 2);
    const { id } = await a.group(pair[0].user, [pair[1].user]);
    await talk(pair, id, 20, () => a.history(pair[0].user, id));
  }
  for (const client of clients) assert.equal(client.got(":disconnect").length, 0);
  assert.deepEqual([over("websocket"), over("polling")], [4, 4]);
});

// raw sends one request as it is written, which a URL of the standard library would tidy up.
function raw(node, method, query, body = "") {
  return new Promise((resolve, reject) => {
    const outgoing = request({ port: node.port, host: "127.0.0.1", method, path: `/socket.io/?EIO=4&transport=polling&${query}`, headers: { "content-length": body.length } });
    outgoing.on("error", reject);
    outgoing.on("response", async (answer) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      resolve({ status: answer.statusCode, body: Buffer.concat(chunks).toString(), cors: answer.headers["access-control-allow-origin"] });
    });
    outgoing.end(body);
  });
}

test("a forged session id reaches nobody's session", async (t) => {
  const { a, b } = await cluster(t);
  const ann = await signedIn(t, a.url, "ann", { transports: ["polling"] });
  const sid = ann.socket.io.engine.id;
  const [node, random] = sid.split(".");
  assert.match(sid, /^[a-z0-9]{10}\.[\w-]{22}$/);
  const unknown = { status: 400, body: `{"code":1,"message":"Session ID unknown"}`, cors: "*" };
  const before = await forwards(b);
  const forged = {
    reach: [`${node}.${"A".repeat(22)}`, `${node}.`, `${sid}A`, `${node}..${random}`, `${node}.*`],
    nobody: [`zzzzzzzzzz.${random}`, `0000000000.${"A".repeat(22)}`],
    refused: ["garbage", "%00", node, random, `.${random}`, `*.${random}`, `%3E.${random}`, "%3E", "*.*", `**********.${random}`,
      `..%2F..%2F${sid}`, `../${sid}`, `%20${sid}`, `${node}%20.${random}`, `${node}%0d%0aPUB%20x%200%0d%0a.${random}`,
      `${node.toUpperCase()}.${random}`, `parley.node.${sid}`, "log.1", "x".repeat(5000), `${sid}${"A".repeat(100)}`],
  };
  for (const id of Object.values(forged).flat()) {
    for (const [method, body] of [["GET", ""], ["POST", "1"], ["POST", `42["send-message",{}]`]]) {
      assert.deepEqual(await raw(b, method, `sid=${id}`, body), unknown, `${method} of ${id}`);
      assert.deepEqual(await raw(a, method, `sid=${id}`, body), unknown, `${method} of ${id} to the node itself`);
    }
  }
  assert.equal(await forwards(b) - before, 3 * (forged.reach.length + forged.nobody.length), "what is no session id is not forwarded");
  await ann.settled();
  assert.deepEqual([ann.got(":disconnect"), ann.got("error")], [[], []]);
  // A second sid counts for nothing, before the true one or behind it.
  assert.deepEqual(await raw(b, "POST", `sid=garbage&sid=${sid}`, "1"), unknown);
  assert.equal((await raw(b, "POST", `sid=${sid}&sid=garbage`, "1")).body, "ok", "the true one does reach it");
  await ann.next(":disconnect");
});

test("alone, a node knows its own sessions and no others", async (t) => {
  const server = await startParley(t);
  const ann = await server.connect(t, "ann", { transports: ["polling"] });
  assert.match(ann.socket.io.engine.id, /^[\w-]{22}$/);
  assert.equal((await raw(server, "GET", `sid=zzzzzzzzzz.${"A".repeat(22)}`)).body, `{"code":1,"message":"Session ID unknown"}`);
  await assert.rejects(server.metric("parley_gateway_forwards_total"));
});

test("the clients of a node that is killed come back", async (t) => {
  const { a, b, balancer } = await cluster(t);
  const { id } = await a.group("ann", ["bob"]);
  // Each second one has its session on b.
  const clients = [];
  for (let i = 0; i < 6; i++) clients.push(await signedIn(t, balancer.url, ["ann", "bob"][i % 2], { transports: ["polling"] }));
  await clients[0].send(id, "before");
  for (const client of clients) await client.next("new-message", (m) => m.content === "before");
  const onB = Number(await b.metric("parley_engineio_pollings"));
  t.diagnostic(`${onB} of ${clients.length} sessions are on the node that is killed`);
  assert.equal(onB, 3);

  // Who is connected anew signs in anew, as a real client would.
  for (const client of clients) client.socket.on("connect", () => client.signIn(client.user, { cursor: client.cursor }).catch(() => {})); // or the next time
  const before = clients.map((client) => client.socket.io.engine.id);
  const prefix = before[1].split(".")[0]; // handshakes go to a and b in turn;
  const began = performance.now();
  await b.kill();
  await eventually("no session of the killed node is left", () =>
    clients.every((client) => client.socket.connected && !client.socket.io.engine.id.startsWith(prefix)), 20_000);
  t.diagnostic(`all were back ${Math.round(performance.now() - began)} ms after the kill`);
  assert.equal((await a.rest("ann", "POST", `/v1/conversations/${id}/messages`, { content: "after" })).status, 201);
  for (const client of clients) await client.next("new-message", (m) => m.content === "after", 10_000);
});
