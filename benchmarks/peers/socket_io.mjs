// socket.io on node, over WebSocket alone: an event that is answered with one, and a room.
import { createRequire } from "node:module";

const connection = "0123456789abcdef0123456789abcdef";
const { Server } = createRequire(process.env.NODE_MODULES + "/")("socket.io");
const io = new Server({ transports: ["websocket"] });

io.on("connection", (socket) => {
  const room = socket.handshake.query.room;
  if (room) socket.join(room);
  socket.on("say", ({ text }) => {
    if (room) io.to(room).emit("said", { type: "said", room, text, connection });
    else socket.emit("said", { type: "said", text, connection, count: 1 });
  });
});
io.listen(Number(process.argv[2]));
