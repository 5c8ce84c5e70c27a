// npm `ws`: a loop over a topic's clients, as its documentation broadcasts. Run: node ws.cjs PORT
const { WebSocketServer } = require("ws");

const subscribers = new Map(); // topic → Set of WebSockets

function subscribe(socket, topic) {
  if (!subscribers.has(topic)) subscribers.set(topic, new Set());
  const set = subscribers.get(topic);
  set.add(socket);
  socket.on("close", () => {
    set.delete(socket);
    if (set.size === 0) subscribers.delete(topic);
  });
}

function publish(message) {
  const space = message.indexOf(" ");
  const set = subscribers.get(message.toString("latin1", 0, space));
  if (!set) return;
  // The same bytes for everybody: nothing is encoded again.
  const data = message.subarray(space + 1);
  for (const socket of set) socket.send(data, { binary: false });
}

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  clientTracking: false,
  perMessageDeflate: false,
});

server.on("connection", (socket, request) => {
  socket.on("error", () => {}); // "close" follows.
  const [, side, topic] = request.url.split("/");
  if (side === "pub") socket.on("message", publish);
  else if (side === "sub" && topic) subscribe(socket, topic);
  else socket.close(1008, "/sub/{topic} or /pub");
});
