// The official client in Chromium against packages engineio and socketio.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, servePages } from "./chromium.js";
import { endOf, holdUpgrade, start, startServer } from "./server.js";

let browser, pages, server;
before(async () => {
  [browser, pages, server] = await Promise.all([launch(), servePages(), startServer()]);
});
after(() => Promise.all([browser?.close(), pages?.stop(), server?.stop()]));

// open resolves to a page with a client, which has cookies and connections of its own and is closed at the end of the test t. Its address
// has another origin than any server of these tests.
async function open(t, client = "socket.io-client") {
  const context = await browser.newContext();
  context.setDefaultTimeout(10_000);
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${pages.url}/${client}/`);
  return page;
}

const transports = { websocket: { transports: ["websocket"] }, polling: { transports: ["polling"] }, upgrade: {} };

for (const client of ["socket.io-client", "socket.io-client-4-5", "socket.io-client-4-1"]) {
  describe(`${client} in Chromium`, { concurrency: 2, timeout: 60_000 }, () => {
    for (const [name, options] of Object.entries(transports)) {
      test(`speaks over ${name}, binary both ways`, async (t) => {
        const page = await open(t, client);
        const got = await page.evaluate(async ([url, options]) => {
          const socket = io(url, { auth: { who: "ann" }, ...options });
          const auth = await next(socket, "auth");
          const engine = socket.io.engine;
          if (!options.transports && engine.transport.name !== "websocket") await next(engine, "upgrade");
          const echo = async (...args) => (socket.emit("message", ...args), next(socket, "message-back"));
          const large = new Uint8Array(300_000).map((_, i) => i % 251);
          const [text, buffer, view, blob, empty] = await echo(
            "grüße \u{1F600}", Uint8Array.of(1, 2, 255).buffer, Uint16Array.of(0x0708), new Blob(["blob"]), new ArrayBuffer(0));
          const echoed = new Uint8Array(await ask(socket, "message-with-ack", large));
          socket.once("question", (asked, ack) => ack(Uint8Array.of(1, 2, 3)));
          socket.emit("ask");
          const answer = await next(socket, "answer");
          const kept = echoed.length === large.length && echoed.every((b, i) => b === large[i]);
          const transport = engine.transport.name;
          socket.disconnect();
          return { auth, transport, text, binary: [buffer, view, blob, empty].map(bytes), kept, answer };
        }, [server.url, options]);
        assert.deepEqual(got, {
          auth: { who: "ann" },
          transport: name === "polling" ? "polling" : "websocket",
          text: "grüße \u{1F600}",
          binary: [[1, 2, 255], [8, 7], [98, 108, 111, 98], []],
          kept: true,
          answer: "AQID",
        });
      });
    }
  });
}

describe("the newest client in Chromium", { concurrency: 2, timeout: 60_000 }, () => {
  for (const [name, options] of Object.entries(transports)) {
    test(`comes back over ${name} after the server was restarted`, async (t) => {
      const first = await startServer();
      const page = await open(t);
      await page.evaluate(async ([url, options]) => {
        globalThis.socket = io(url, { reconnectionDelay: 300, reconnectionDelayMax: 300, ...options });
        await next(socket, "connect");
        // A client whose upgrade fails half-way may have stopped to poll, and then waits for the next ping in vain.
        if (!options.transports && socket.io.engine.transport.name !== "websocket") await next(socket.io.engine, "upgrade");
        globalThis.reason = ended(socket);
      }, [first.url, options]);
      await first.stop();
      const reason = await page.evaluate(() => reason);
      assert.ok(["transport close", "transport error"].includes(reason), reason);
      const back = page.evaluate(async () => (await next(socket, "connect"), ask(socket, "message-with-ack", "again")));
      const second = await startServer("-listen", new URL(first.url).host);
      t.after(() => second.stop());
      assert.equal(await back, "again");
    });
  }

  test("polls with fetch", async (t) => {
    const page = await open(t);
    const got = await page.evaluate(async (url) => {
      const socket = io(url, { transports: [client.Fetch] });
      await next(socket, "connect");
      const echoed = await ask(socket, "message-with-ack", Uint8Array.of(0, 127, 128));
      const requests = performance.getEntriesByType("resource").filter((e) => e.name.startsWith(url)).map((e) => e.initiatorType);
      socket.disconnect();
      return { echoed: bytes(echoed), kinds: [...new Set(requests)] };
    }, server.url);
    assert.deepEqual(got, { echoed: [0, 127, 128], kinds: ["fetch"] });
  });

  test("loses and reorders nothing while it changes its transport", async (t) => {
    const proxy = await holdUpgrade(server.url);
    t.after(() => proxy.stop());
    const page = await open(t);
    await page.exposeFunction("release", () => proxy.release());
    const got = await page.evaluate(async (url) => {
      const socket = io(url), echoed = [], counted = [];
      let sent = 0;
      socket.on("message-back", (n, data) => echoed.push(data ? new Uint16Array(data)[0] : n));
      socket.on("number", (n) => counted.push(n));
      const pause = () => new Promise((resolve) => setTimeout(resolve));
      const arrived = () => Math.min(echoed.length, counted.length);
      // flow has n more messages sent by both, of which about a hundred at a time are under way.
      const flow = (n) => within((async () => {
        for (const end = sent + n; sent < end; sent++) {
          while (sent - arrived() > 100) await pause();
          // One in three is binary: what belongs together must not be torn apart.
          sent % 3 ? socket.emit("message", sent) : socket.emit("message", "binary", Uint16Array.of(sent));
          socket.emit("count", sent, sent + 1);
        }
      })(), n + " messages", 20_000);

      await next(socket, "connect");
      await flow(500);
      const { engine } = socket.io;
      const before = engine.transport.name;
      await release();
      while (engine.transport.name !== "websocket") await flow(10);
      await flow(500);
      await within((async () => { while (arrived() < sent) await pause(); })(), "the rest");
      socket.disconnect();
      return { before, sent, echoed, counted };
    }, proxy.url);
    const wanted = Array.from({ length: got.sent }, (_, i) => i);
    assert.equal(got.before, "polling");
    assert.deepEqual(got.echoed, wanted);
    assert.deepEqual(got.counted, wanted);
  });

  for (const transport of ["websocket", "polling"]) {
    test(`is heard to go when its page is closed, over ${transport}`, async (t) => {
      const own = await start("optionserver");
      t.after(() => own.stop());
      const page = await open(t);
      const id = await page.evaluate(async ([url, transport]) => {
        const socket = io(url, { transports: [transport] });
        await next(socket, "connect");
        await ask(socket, "message", 1);
        return socket.id;
      }, [own.url, transport]);
      await page.close();
      assert.equal(await endOf(own, id), transport === "websocket" ? "transport close" : "transport error");
    });
  }
});

describe("a list of origins", { concurrency: 2, timeout: 60_000 }, () => {
  let listed, other;
  before(async () => {
    [listed, other] = await Promise.all([start("optionserver", "-origins", pages.url), start("optionserver", "-origins", "https://chat.example")]);
  });
  after(() => Promise.all([listed?.stop(), other?.stop()]));

  for (const [name, options] of Object.entries(transports)) {
    test(`lets a page that is on it connect over ${name}`, async (t) => {
      const page = await open(t);
      const got = await page.evaluate(async ([url, options]) => {
        const socket = io(url, options);
        await next(socket, "connect");
        // A header of its own makes a browser ask first (preflight).
        const asked = io(url, { forceNew: true, extraHeaders: { "X-Mine": "1" }, transports: ["polling"] });
        await next(asked, "connect");
        const got = await Promise.all([ask(socket, "message", "allowed"), ask(asked, "message", "asked")]);
        socket.disconnect(), asked.disconnect();
        return got;
      }, [listed.url, options]);
      assert.deepEqual(got, ["allowed", "asked"]);
    });

    test(`keeps a page that is not on it out over ${name}`, async (t) => {
      const page = await open(t);
      const error = await page.evaluate(async ([url, options]) => {
        const socket = io(url, { reconnection: false, ...options });
        socket.on("connect", () => { throw new Error("connected"); });
        return (await next(socket, "connect_error")).message;
      }, [other.url, options]);
      assert.equal(error, name === "websocket" ? "websocket error" : "xhr poll error");
    });
  }

  test("does not stand in the way of the server's own pages", async (t) => {
    const page = await open(t);
    // The page comes from here, as a proxy before both would have it. Chromium cannot know that it is as near as the server.
    await page.context().grantPermissions(["local-network-access"], { origin: other.url });
    await page.route(`${other.url}/page/**`, async (route) => {
      const path = new URL(route.request().url()).pathname.replace("/page", "/socket.io-client");
      await route.fulfill({ response: await route.fetch({ url: pages.url + path }) });
    });
    await page.goto(`${other.url}/page/`);
    for (const options of Object.values(transports)) {
      const got = await page.evaluate(async (options) => {
        const socket = io({ forceNew: true, ...options });
        await next(socket, "connect");
        return ask(socket, "message", "at home").finally(() => socket.disconnect());
      }, options);
      assert.equal(got, "at home");
    }
  });
});

describe("credentials", { concurrency: 2, timeout: 60_000 }, () => {
  let wants, wantsNot;
  before(async () => {
    [wants, wantsNot] = await Promise.all([
      start("optionserver", "-origins", pages.url, "-cookie", "owner", "-credentials"),
      start("optionserver", "-origins", pages.url, "-cookie", "owner"),
    ]);
  });
  after(() => Promise.all([wants?.stop(), wantsNot?.stop()]));

  test("are taken from a page on the list: the session's cookie comes back with each request", async (t) => {
    const page = await open(t);
    const cookies = [];
    page.on("request", (request) => request.url().includes("sid=") && cookies.push(request.allHeaders().then((h) => h.cookie)));
    const [id, echoed] = await page.evaluate(async (url) => {
      const socket = io(url, { withCredentials: true, transports: ["polling"] });
      await next(socket, "connect");
      const echoed = await ask(socket, "message", "with a cookie");
      const { id } = socket.io.engine;
      socket.disconnect();
      return [id, echoed];
    }, wants.url);
    assert.equal(echoed, "with a cookie");
    const [cookie] = await page.context().cookies(wants.url);
    assert.equal(`${cookie.name}=${cookie.value}`, `owner=${id}`);
    assert.equal(cookie.httpOnly, true, "no script reads the session's id");
    assert.equal(cookie.sameSite, "Lax");
    assert.ok(cookies.length >= 2, `${cookies.length} requests were seen`);
    for (const sent of await Promise.all(cookies)) assert.equal(sent, `owner=${id}`);
  });

  test("go along when the transport changes", async (t) => {
    const page = await open(t);
    const [transport, echoed] = await page.evaluate(async (url) => {
      const socket = io(url, { withCredentials: true });
      await next(socket, "connect");
      if (socket.io.engine.transport.name !== "websocket") await next(socket.io.engine, "upgrade");
      const echoed = await ask(socket, "message", "upgraded");
      return [socket.io.engine.transport.name, echoed];
    }, wants.url);
    assert.deepEqual([transport, echoed], ["websocket", "upgraded"]);
  });

  test("are not given to a server that does not want them", async (t) => {
    const page = await open(t);
    const error = await page.evaluate(async (url) => {
      const socket = io(url, { withCredentials: true, transports: ["polling"], reconnection: false });
      return (await next(socket, "connect_error")).message;
    }, wantsNot.url);
    assert.equal(error, "xhr poll error");
  });
});
