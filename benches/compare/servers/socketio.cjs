// Socket.IO: a room for each topic, WebSockets from the first byte. Run: node socketio.cjs PORT
const http = require("node:http").createServer();
const { Server } = require("socket.io");

const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  // A heartbeat within the measurement would be work that the others do not have.
  pingInterval: 600_000,
  pingTimeout: 600_000,
});

// Its page on memory usage recommends this: the request is not kept for as long as the connection.
io.engine.on("connection", (connection) => {
  connection.request = null;
});

io.on("connection", (socket) => {
  socket.on("sub", (topic) => {
    socket.join(topic);
    socket.emit("subbed");
  });
  socket.on("pub", (topic, json) => io.to(topic).emit("event", json));
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
