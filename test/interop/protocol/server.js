// Starts the Go servers of these tests on free ports, and ends them with the test.
import { spawn, execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const binaries = new Map();

function build(command) {
  if (!binaries.has(command)) {
    const folder = mkdtempSync(join(tmpdir(), `parley-${command}-`));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    const binary = join(folder, command);
    execFileSync("go", ["build", "-o", binary, `./${command}`], { cwd: here, stdio: "inherit" });
    binaries.set(command, binary);
  }
  return binaries.get(command);
}

// What the servers said is of use to those who look into a failure, and only to them: some tests make a server complain.
const said = [];
process.on("exit", (code) => { if (code !== 0) process.stderr.write(said.join("")); });

// startServer starts the echo server, with flags, and resolves to { url, stop } once it listens.
export const startServer = (...flags) => start("echoserver", ...flags);

// start is startServer for any of the commands beside this file.
export async function start(command, ...flags) {
  const child = spawn(build(command), flags, { stdio: ["pipe", "pipe", "pipe"] });
  child.stderr.on("data", (chunk) => said.push(chunk) > 1000 && said.shift());
  const exited = once(child, "exit");
  const lines = createInterface(child.stdout);
  const [url] = await Promise.race([once(lines, "line"), exited.then(() => Promise.reject(new Error(`${command} ended`)))]);
  return {
    url,
    // The server ends when its standard input does.
    stop: () => (child.stdin.end(), exited),
  };
}

// holdUpgrade starts a proxy to the server that holds everything of a WebSocket back until release is called, so that polling goes on while an
// upgrade has begun. With refuse it ends the WebSocket's connection instead. It resolves to { url, release, stop }.
export async function holdUpgrade(url, { refuse = false } = {}) {
  const target = new URL(url);
  const sockets = new Set();
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  const proxy = createServer((client) => {
    const upstream = connect(target.port, target.hostname);
    let held = false;
    const forward = (from, to) => {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
      from.on("data", (chunk) => {
        held ||= chunk.includes("Upgrade: websocket");
        if (held && refuse) return from.destroy();
        held ? released.then(() => to.write(chunk)) : to.write(chunk);
      });
    };
    forward(client, upstream);
    forward(upstream, client);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    url: `http://127.0.0.1:${proxy.address().port}`,
    release,
    stop: () => (sockets.forEach((s) => s.destroy()), proxy.close()),
  };
}

// within rejects when the promise has not settled after some milliseconds, and says what was waited for.
export async function within(promise, what, millis = 10_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${millis} ms`)), millis);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// next resolves to the arguments of the next event of an emitter, which are one value if there is but one.
export function next(emitter, event, millis) {
  const came = new Promise((resolve) => emitter.once(event, (...args) => resolve(args.length === 1 ? args[0] : args)));
  return within(came, event, millis);
}

// until resolves once a condition, which may be asynchronous, holds, and rejects if it has not after some milliseconds.
export async function until(condition, what, millis = 10_000) {
  for (const deadline = Date.now() + millis; !(await condition());) {
    if (Date.now() > deadline) throw new Error(`${what}: not in ${millis} ms`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

// endOf resolves to the reason for which a socket or session of the optionserver has ended.
export async function endOf(server, id) {
  let reason;
  await until(async () => (reason = (await (await fetch(`${server.url}/ends`)).json())[id]) !== undefined, `end of ${id}`);
  return reason;
}
