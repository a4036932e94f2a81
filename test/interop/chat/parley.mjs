// Starts real `parley serve` processes, each with a data folder and a port of its own, and speaks to them by REST.
import { execFile, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "./client.mjs";
import { within } from "../protocol/server.js";

const binary = fileURLToPath(new URL("../../../bin/parley", import.meta.url));

// What lives ends with this process, however that ends.
const alive = new Set();
process.on("exit", () => alive.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

// The secret that all servers of these tests share, so that a token is good on every node of a cluster.
export const secret = randomBytes(32).toString("base64url");

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// signed makes a JWT of any claims, for tests of what is refused.
export function signed(claims, { alg = "HS256", key = secret, hash = "sha256" } = {}) {
  const head = `${base64url({ alg, typ: "JWT" })}.${base64url(claims)}`;
  return `${head}.${key === null ? "" : createHmac(hash, key).update(head).digest("base64url")}`;
}

// tokenFor makes a good token; ttl is in seconds, and may lie in the past.
export const tokenFor = (user, ttl = 3600) => signed({ sub: user, exp: Math.floor(Date.now() / 1000) + ttl });

// eventually calls check until it returns something true, and returns that.
export async function eventually(what, check, millis = 5000) {
  const deadline = Date.now() + millis;
  for (;;) {
    const got = await check();
    if (got) return got;
    if (Date.now() > deadline) throw new Error(`${what}: not in ${millis} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// freePort finds a port that nobody listens on, for what must be known before a process starts.
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

// startParley starts a server for the test t; it ends with t. args are flags of serve; database is a PostgreSQL URL, without which it is SQLite.
export async function startParley(t, { args = [], database, env = {} } = {}) {
  const server = new Parley(args, database, env);
  t.after(() => server.remove());
  await server.start();
  return server;
}

class Parley {
  constructor(args, database, env) {
    this.args = args;
    this.folder = mkdtempSync(join(tmpdir(), "parley-chat-"));
    this.env = {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PARLEY_") && name !== "PORT")),
      PARLEY_DATA: join(this.folder, "data"), PARLEY_JWT_SECRET: secret, PARLEY_LOG_LEVEL: "warn", PARLEY_LISTEN: "127.0.0.1:0",
      // These tests send more than a person may.
      PARLEY_RATE_LIMITS: "off", PARLEY_QUOTA_SEND_MESSAGE: "off", PARLEY_QUOTA_CREATE_GROUP: "off",
      ...(database && { PARLEY_DATABASE_URL: database }), ...env,
    };
  }

  // start resolves when clients are taken. After the first time it keeps the port.
  async start() {
    const child = spawn(binary, ["serve", ...this.args], { cwd: this.folder, env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    alive.add(child);
    this.child = child;
    this.log = "";
    child.stderr.on("data", (chunk) => { this.log += chunk; });
    this.exited = once(child, "exit").then(([code, signal]) => {
      alive.delete(child);
      return signal ?? code;
    });
    const ready = (async () => {
      for await (const line of createInterface(child.stdout)) {
        if (line.startsWith("Chat server running on port ")) this.port = Number(line.split(" ").pop());
        if (line === "WebSocket server ready") return;
      }
      throw new Error(`parley serve ended: ${this.log}`);
    })();
    await within(ready, "parley serve", 20_000);
    child.stdout.resume();
    this.url = `http://127.0.0.1:${this.port}`;
    this.env.PARLEY_LISTEN = `127.0.0.1:${this.port}`;
  }

  // kill is kill -9.
  kill() { return this.stop("SIGKILL"); }

  // stop resolves to the exit code, or the signal that ended the process.
  stop(signal = "SIGTERM") {
    this.child.kill(signal);
    return this.exited;
  }

  async remove() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  // run runs another command of the binary on the same data, and resolves to what it prints.
  async run(...command) {
    const { stdout } = await promisify(execFile)(binary, command, { cwd: this.folder, env: this.env });
    return stdout.trim();
  }

  // rest calls a route as a user, and resolves to { status, body }.
  async rest(user, method, path, body) {
    const response = await fetch(this.url + path, {
      method, body: body && JSON.stringify(body),
      headers: { authorization: `Bearer ${tokenFor(user)}`, ...(body && { "content-type": "application/json" }) },
    });
    const text = await response.text();
    return { status: response.status, body: text && JSON.parse(text) };
  }

  // ok is rest for what must succeed; it resolves to the body.
  async ok(user, method, path, body) {
    const answer = await this.rest(user, method, path, body);
    if (answer.status >= 300) throw new Error(`${method} ${path} as ${user}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  // group makes a group, or another type of conversation, and resolves to its row.
  group(owner, members, type = "group") {
    return this.ok(owner, "POST", "/v1/conversations", { type, member_ids: members });
  }

  // history resolves to all messages of a conversation that are not deleted, oldest first.
  async history(user, conversation) {
    const all = [];
    for (let after = 0; after !== undefined;) {
      const { messages, next } = await this.ok(user, "GET", `/v1/conversations/${conversation}/messages?limit=100&after=${after}`);
      all.push(...messages);
      after = next;
    }
    return all;
  }

  // metric resolves to the sum of a metric over its labels.
  async metric(name) {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    if (lines.length === 0) throw new Error(`there is no metric ${name}`);
    return lines.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
  }

  // open makes a client of the official library for the test t, which need not be connected yet.
  open(t, options) { return new Client(t, this.url, options); }

  // connect resolves to a client that a user has signed in by the event.
  async connect(t, user, options = {}, credentials = {}) {
    const client = this.open(t, options);
    await client.signIn(user, credentials);
    return client;
  }
}
