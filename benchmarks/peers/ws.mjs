// node's `ws`: echo, and a loop over the sockets of a room.
import { createRequire } from "node:module";

const connection = "0123456789abcdef0123456789abcdef";
const { WebSocketServer } = createRequire(process.env.NODE_MODULES + "/")("ws");
const rooms = new Map();

new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) }).on("connection", (socket, request) => {
  if (request.url === "/ws/echo") {
    socket.on("message", (data) => socket.send(JSON.stringify({ type: "said", text: JSON.parse(data).text, connection, count: 1 })));
    return;
  }
  const room = rooms.get(request.url) ?? new Set();
  rooms.set(request.url, room.add(socket));
  socket.on("close", () => room.delete(socket));
  socket.on("message", (data) => {
    const said = JSON.stringify({ type: "said", room: request.url, text: JSON.parse(data).text, connection });
    for (const each of room) each.send(said);
  });
});
