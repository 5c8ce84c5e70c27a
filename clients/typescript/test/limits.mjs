// The client against a real node that holds three topics: limits.mjs HOST:PORT, run by tests/typescript_client.rs.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { connect, httpPublisher, ConnectionState } from 'fanwire-client';
import { address, nodeUrl, status, until } from './stage.mjs';

const publisher = httpPublisher({ url: nodeUrl });

function start(...topics) {
  const told = { errors: [], acks: [], events: [] };
  const client = connect({ url: `ws://${address}/ws`, WebSocket, onError: (error) => told.errors.push(error), onAck: (ack) => told.acks.push(ack) });
  client.onEvent((event) => told.events.push(event));
  for (const topic of topics) client.subscribe(topic);
  return { client, ...told };
}
const connected = (client) => until('connected', () => client.state === ConnectionState.CONNECTED);

const { client, acks, errors, events } = start('a', 'b', 'c');
await connected(client);
assert.equal(client.error, null);
// Another one takes a place meanwhile, so not all of its topics fit again.
client.close();
await until('nobody', async () => (await status()).connectedClients === 0);
const other = start('x');
await connected(other.client);
client.open();
await connected(client);
assert.deepEqual(acks.at(-1).categories, ['a', 'b']);
assert.match(client.error.message, /max_topics/);
assert.ok(errors.every(({ kind }) => kind === 'node'));
await publisher.publish({}, 'b', 'x', 1);
await until('the event', () => events.length === 1);
// With the place free again it gets everything.
client.close();
other.client.close();
await until('nobody', async () => (await status()).connectedClients === 0);
client.open();
await connected(client);
assert.deepEqual(acks.at(-1).categories, ['a', 'b', 'c']);
assert.equal(client.error, null);
client.close();
process.stdout.write('passed\n', () => process.exit());
