// A chat of two people in a terminal:
//
//     node chat.mjs --user ann --token "$(bin/parley token --user ann)" --with bob
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { io } from "socket.io-client";

const { values: option } = parseArgs({
  options: {
    user: { type: "string" },
    token: { type: "string", default: process.env.PARLEY_TOKEN },
    with: { type: "string" },
    url: { type: "string", default: "http://127.0.0.1:3000" },
  },
});
if (!option.user || !option.token || !option.with) {
  console.error("usage: node chat.mjs --user ME --token TOKEN --with SOMEBODY [--url http://127.0.0.1:3000]");
  process.exit(2);
}

// Two people have one direct conversation: whoever asks second is answered with the same one.
const response = await fetch(new URL("/v1/conversations", option.url), {
  method: "POST",
  headers: { authorization: `Bearer ${option.token}`, "content-type": "application/json" },
  body: JSON.stringify({ type: "direct", member_ids: [option.with] }),
}).catch((err) => fail(`no answer from ${option.url}: ${err.cause?.code ?? err.message}`));
const conversation = await response.json();
if (!response.ok) fail(conversation.error);

const socket = io(option.url);

// A new connection belongs to nobody yet, and the client makes one whenever the old one broke.
socket.on("connect", () => socket.emit("authenticate", { user_id: option.user, token: option.token }));
socket.on("authenticated", ({ user_id }) => console.log(`* you are ${user_id}; write to ${option.with}`));

// Everything that is sent in a conversation comes to all who are in it, one's own messages too.
socket.on("new-message", (message) => console.log(`${message.sender_id}: ${message.content}`));

socket.on("error", ({ message }) => console.log(`* error: ${message}`));
socket.on("connect_error", (err) => console.log(`* no connection: ${err.message}`));
socket.on("disconnect", (reason) => console.log(`* disconnected: ${reason}`));

createInterface({ input: process.stdin })
  .on("line", (line) => line && socket.emit("send-message", { conversation_id: conversation.id, content: line }))
  .on("close", () => socket.disconnect());

function fail(why) {
  console.error(why);
  process.exit(1);
}
