// Bun with its own publish and subscribe. Run: bun bun.js PORT
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    const [, side, topic] = new URL(request.url).pathname.split("/");
    const isKnown = side === "pub" || (side === "sub" && topic);
    if (isKnown && server.upgrade(request, { data: { topic } })) return undefined;
    return new Response("a WebSocket to /sub/{topic} or /pub\n", { status: 404 });
  },
  websocket: {
    perMessageDeflate: false,
    // Nobody is closed for being idle or left out for being late: a queue may have 1 GiB.
    idleTimeout: 0,
    sendPings: false,
    backpressureLimit: 2 ** 30,
    open(socket) {
      if (socket.data.topic) socket.subscribe(socket.data.topic);
    },
    message(_publisher, text) {
      const space = text.indexOf(" ");
      server.publish(text.slice(0, space), text.slice(space + 1));
    },
  },
});
