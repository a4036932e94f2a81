// A client of the official library that remembers what it got, in order.
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { tokenFor } from "./parley.mjs";
import { within } from "../protocol/server.js";

export class Client {
  // log holds [event, payload] for each event, and ["ack:<event>", answer] for each acknowledgement.
  log = [];
  // cursor is the last that the server gave, which a real client would store.
  cursor = "";
  #waiting = new Set();

  constructor(t, url, options = {}) {
    this.socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
    t.after(() => this.close());
    this.socket.onAny((event, payload) => this.#add(event, payload));
    for (const event of ["connect", "disconnect", "connect_error"]) {
      this.socket.on(event, (payload) => this.#add(`:${event}`, payload));
    }
  }

  #add(event, payload) {
    if (payload?.cursor && event !== "sync_required") this.cursor = payload.cursor;
    this.log.push([event, payload]);
    for (const look of this.#waiting) look();
  }

  close() { this.socket.disconnect(); }

  // got lists the payloads of an event.
  got(event) { return this.log.filter(([name]) => name === event).map(([, payload]) => payload); }

  // messages lists the texts that came as new-message, of one conversation if it is given.
  messages(conversation) {
    return this.got("new-message").filter((m) => !conversation || m.conversation_id === conversation).map((m) => m.content);
  }

  // until resolves when check, called with this client after each thing that comes, returns something true.
  until(what, check, millis) {
    let look;
    const came = new Promise((resolve, reject) => {
      look = () => {
        try {
          const got = check(this);
          if (got) resolve(got);
        } catch (err) {
          reject(err);
        }
      };
    });
    this.#waiting.add(look);
    look();
    return within(came, what, millis).finally(() => this.#waiting.delete(look)).catch((err) => {
      const tail = this.log.slice(-8).map(([event, payload]) => `${event} ${JSON.stringify(payload)?.slice(0, 200)}`);
      throw new Error(`${err.message}; the last that came:\n${tail.join("\n")}`);
    });
  }

  // next resolves to the payload of the first event of a name, past or to come, that fits.
  next(event, fits = () => true, millis) {
    return this.until(event, () => {
      const found = this.log.find(([name, payload]) => name === event && fits(payload));
      return found && { payload: found[1] };
    }, millis).then(({ payload }) => payload);
  }

  // call emits an event and resolves to its acknowledgement, whatever it says.
  call(event, payload, millis = 5000) {
    const answered = new Promise((resolve) => {
      this.socket.emit(event, payload, (answer) => {
        this.#add(`ack:${event}`, answer);
        resolve(answer);
      });
    });
    return within(answered, `the acknowledgement of ${event.slice(0, 100)}`, millis);
  }

  // ok is call for what must succeed.
  async ok(event, payload, millis) {
    const answer = await this.call(event, payload, millis);
    assert.equal(answer.ok, true, `${event} ${JSON.stringify(payload)}: ${JSON.stringify(answer)}`);
    return answer;
  }

  // refused is call for what must fail with a code; it resolves to the error.
  async refused(code, event, payload) {
    const answer = await this.call(event, payload);
    assert.equal(answer.ok, false, `${event} ${JSON.stringify(payload)}: ${JSON.stringify(answer)}`);
    assert.equal(answer.error.code, code, `${event} ${JSON.stringify(payload)}: ${JSON.stringify(answer)}`);
    return answer.error;
  }

  signIn(user, { token = tokenFor(user), ...rest } = {}) {
    this.user = user;
    return this.ok("authenticate", { user_id: user, token, ...rest }, 10_000);
  }

  // send sends a text and resolves to the message's row.
  async send(conversation, content, rest = {}) {
    return (await this.ok("send-message", { conversation_id: conversation, content, ...rest }, 20_000)).message;
  }

  // settled resolves when everything has come that the server had for this client before: what it answers now comes behind.
  async settled() { await this.ok("sync", {}); }
}
