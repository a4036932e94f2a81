// Starts Chromium, and serves the pages that it opens.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);

// launch resolves to a browser without a window, which its close() ends and whose profile that removes.
export const launch = () => chromium.launch({ executablePath: executable(), handleSIGTERM: false, handleSIGHUP: false, handleSIGINT: false });

// executable returns the browser that build/need.sh found or installed, under the same names.
function executable() {
  const names = process.env.PARLEY_TEST_CHROMIUM ? [process.env.PARLEY_TEST_CHROMIUM] : ["chromium", "chromium-browser", "google-chrome"];
  for (const name of names) {
    try {
      execFileSync(name, ["--version"], { stdio: "ignore" });
      return execFileSync("sh", ["-c", 'command -v "$1"', "sh", name], { encoding: "utf8" }).trim();
    } catch {
      // The next one may be there.
    }
  }
  throw new Error(`no Chromium under ${names.join(", ")}: run "make test-deps"`);
}

// What every page has beside the client: the helpers of clients.js and server.js, as far as they make sense there.
const helpers = `
  function within(promise, what, millis = 10_000) {
    return Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(what + ": nothing in " + millis + " ms")), millis))]);
  }
  function next(emitter, event) {
    return within(new Promise((resolve) => emitter.once(event, (...args) => resolve(args.length === 1 ? args[0] : args))), event);
  }
  function ask(socket, event, ...args) {
    return within(new Promise((resolve) => socket.emit(event, ...args, resolve)), "acknowledgement of " + event);
  }
  const ended = async (socket) => [await next(socket, "disconnect")].flat()[0];
  // bytes returns what a test can compare: binary data leaves a page as a list of numbers.
  const bytes = (data) => data instanceof ArrayBuffer ? [...new Uint8Array(data)] : "no ArrayBuffer but " + Object.prototype.toString.call(data);
`;

// The transports that an application may choose stand in the bundle for modules alone.
const classes = '<script type="module">import * as client from "./socket.io.esm.min.js"; globalThis.client = client;</script>';

// servePages resolves to { url, stop }. <url>/<package>/ is a page with that package's client as the global io. That of the newest has its
// classes too, as the global client.
export async function servePages() {
  const server = createServer((request, response) => {
    const [, name, file] = /^\/(socket\.io-client[-0-9]*)\/([a-z.]*)$/.exec(request.url) ?? [];
    if (file?.endsWith(".js")) {
      response.setHeader("Content-Type", "text/javascript");
      response.end(readFileSync(join(dirname(require.resolve(`${name}/package.json`)), "dist", file)));
    } else if (name) {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      response.end(`<!doctype html><title>${name}</title><script src="socket.io.js"></script><script>${helpers}</script>${name === "socket.io-client" ? classes : ""}`);
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve))),
  };
}
