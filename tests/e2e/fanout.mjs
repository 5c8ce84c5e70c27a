// A fan-out server of npm ws, as `fanwire bench --peer ws` speaks to it: `node fanout.mjs PORT`.
import { WebSocketServer } from 'ws';

const topics = new Map();

const subscribe = (topic, socket) => {
  if (!topics.has(topic)) topics.set(topic, new Set());
  topics.get(topic).add(socket);
  socket.on('close', () => topics.get(topic).delete(socket));
};

const publish = (message) => {
  const end = message.indexOf(' ');
  const event = message.subarray(end + 1);
  for (const socket of topics.get(message.toString('utf8', 0, end)) ?? []) socket.send(event, { binary: false });
};

new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) }).on('connection', (socket, request) => {
  socket.on('error', () => {});
  if (request.url.startsWith('/sub/')) subscribe(request.url.slice('/sub/'.length), socket);
  else socket.on('message', publish);
});
