// The official clients that these tests run with: the newest 4.8, and two older 4.x that are still in use, with the engine.io-client
// that each came with. 4.1 knows neither timeout() nor emitWithAck(), 4.5 not the latter; so what all must do is written with callbacks.
import * as engine51 from "engine.io-client-5-1";
import * as engine62 from "engine.io-client-6-2";
import * as engine66 from "engine.io-client";
import * as client41 from "socket.io-client-4-1";
import * as client45 from "socket.io-client-4-5";
import * as client48 from "socket.io-client";
import { createRequire } from "node:module";
import { next, within } from "./server.js";

const require = createRequire(import.meta.url);
const version = (name) => require(`${name}/package.json`).version;

export const clients = [
  { version: version("socket.io-client"), io: client48.io, Manager: client48.Manager },
  { version: version("socket.io-client-4-5"), io: client45.io, Manager: client45.Manager },
  { version: version("socket.io-client-4-1"), io: client41.io, Manager: client41.Manager },
];

export const engines = [
  { version: version("engine.io-client"), Socket: engine66.Socket },
  { version: version("engine.io-client-6-2"), Socket: engine62.Socket },
  { version: version("engine.io-client-5-1"), Socket: engine51.default.Socket },
];

// ask emits an event and resolves to the first argument of its acknowledgement.
export function ask(socket, event, ...args) {
  return within(new Promise((resolve) => socket.emit(event, ...args, resolve)), `acknowledgement of ${event}`);
}

// ended resolves to the reason of the next disconnect, beside which later versions tell more.
export async function ended(socket, millis) {
  return [await next(socket, "disconnect", millis)].flat()[0];
}
