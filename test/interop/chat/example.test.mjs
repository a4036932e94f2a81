// The example of two people, as its README has it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually, startParley } from "./parley.mjs";

const example = fileURLToPath(new URL("../../../examples/two-people", import.meta.url));

test("the example chats", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "parley-example-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  cpSync(example, folder, { recursive: true, filter: (path) => basename(path) !== "node_modules" });
  execFileSync("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });

  const server = await startParley(t, { env: { PARLEY_JWT_SECRET: "" } });
  const open = async (user, other) => {
    const token = await server.run("token", "--user", user);
    const child = spawn(process.execPath, ["chat.mjs", "--user", user, "--token", token, "--with", other, "--url", server.url], { cwd: folder });
    t.after(() => child.kill("SIGKILL"));
    const lines = [];
    for (const stream of [child.stdout, child.stderr]) createInterface(stream).on("line", (line) => lines.push(line));
    const shows = (line) => eventually(`"${line}" in ${user}'s terminal`, () => lines.includes(line));
    await shows(`* you are ${user}; write to ${other}`);
    return { lines, shows, write: (line) => child.stdin.write(`${line}\n`) };
  };
  const ann = await open("ann", "bob"), bob = await open("bob", "ann");
  ann.write("hello");
  for (const terminal of [ann, bob]) await terminal.shows("ann: hello");
  bob.write("hello yourself");
  for (const terminal of [ann, bob]) await terminal.shows("bob: hello yourself");
  ann.write("x".repeat(50_000));
  await eventually("an error", () => ann.lines.at(-1).startsWith("* error: "));
  assert.deepEqual(bob.lines.slice(1), ["ann: hello", "bob: hello yourself"]);

  await server.stop();
  await eventually("word of the end", () => bob.lines.some((line) => line.startsWith("* disconnected")));
  await server.start();
  await eventually("bob is back", () => bob.lines.filter((line) => line.startsWith("* you are bob")).length === 2, 10_000);
  bob.write("still there?");
  await bob.shows("bob: still there?");
});
