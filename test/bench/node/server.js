// The official Socket.IO server, as test/bench/gateway measures it: the settings that its own documentation recommends for production
// (native addons for ws, no permessage-deflate, the first request of each connection given free), the rest by default. It serves at the
// address that is its argument, and takes the same commands on standard input as ../socketio/main.go:
//
//   p room text   emits "message" with the text to the room
//   g             collects garbage, under node --expose-gc
//
// It ends when its input does.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [host, port] = process.argv[2].split(":");
const web = createServer();
const io = new Server(web, { serveClient: false });

// https://socket.io/docs/v4/memory-usage/ and https://socket.io/docs/v4/performance-tuning/
io.engine.on("connection", (transport) => {
  transport.request = null;
});

io.on("connection", (socket) => {
  socket.on("join", (rooms, joined) => {
    socket.join(rooms.split(" "));
    joined();
  });
});

function obey(line) {
  if (line === "g") {
    globalThis.gc?.();
    return;
  }
  const roomAt = 2;
  const textAt = line.indexOf(" ", roomAt) + 1;
  io.to(line.slice(roomAt, textAt - 1)).emit("message", line.slice(textAt));
}

let begun = "";
process.stdin.setEncoding("latin1");
process.stdin.on("data", (chunk) => {
  const lines = (begun + chunk).split("\n");
  begun = lines.pop();
  lines.forEach(obey);
});
process.stdin.on("end", () => process.exit(0));

web.listen(Number(port), host);
