// The client in Node.js against a real node: node.mjs HOST:PORT, run by tests/typescript_client.rs.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { connect, httpPublisher, ConnectionState } from 'fanwire-client';
import { address, node, nodeUrl, status, until } from './stage.mjs';

const publisher = httpPublisher({ url: nodeUrl });

/** A connected client, and what it was told. */
async function start(options = {}, prepare = () => {}) {
  const told = { states: [], errors: [], gaps: [], acks: [], events: [] };
  const client = connect({
    url: `ws://${address}/ws`,
    WebSocket,
    onState: (state) => told.states.push(state),
    onError: (error) => told.errors.push(error),
    onGap: (gap) => told.gaps.push(gap),
    onAck: (ack) => told.acks.push(ack),
    ...options,
  });
  client.onEvent((event) => told.events.push(event));
  prepare(client);
  await until('connected', () => client.state === ConnectionState.CONNECTED);
  return { client, ...told };
}

async function theScopeBringsItsTopics() {
  const { client, acks, events, errors } = await start({ runId: 'r 1', projectId: 'p', userId: 'u' });
  assert.deepEqual(acks[0].categories, ['run:r 1', 'project:p', 'user:u', 'global']);
  const byName = [];
  const byCategory = [];
  client.on('stage-progress', (event) => byName.push(event));
  client.onCategory('stage', (event) => byCategory.push(event));
  const data = { runId: 'r 1', stageId: 's', progress: 50, message: 'ü\u{1F600}"\\' };
  await publisher.publish({ run: 'another' }, 'stage', 'stage-progress', data);
  await publisher.publish({ run: 'r 1' }, 'stage', 'stage-progress', data);
  await publisher.publish({ project: 'p', user: 'u' }, 'stage', 'any-event', null);
  await publisher.publish('all', 'run', 'another-event', [1]);
  await until('three events', () => events.length === 3);
  assert.deepEqual(events.map(({ event }) => event), ['stage-progress', 'any-event', 'another-event']);
  const { timestamp, ...rest } = events[0];
  assert.deepEqual(rest, { type: 'event', event: 'stage-progress', category: 'stage', data });
  assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(byName, [events[0]]);
  assert.deepEqual(byCategory, events.slice(0, 2));
  assert.deepEqual(errors, []);
  client.close();
}

async function topicsFiltersAndNames() {
  const { client, events, acks } = await start({ clientId: 'watcher' }, (early) => {
    early.subscribe('a');
    early.subscribe(['b', 'c'], { events: ['wanted'] });
  });
  assert.deepEqual(acks.at(-1).categories, ['a', 'b', 'c']);
  assert.ok(JSON.stringify(await status()).includes('"watcher"'));
  for (const topic of ['a', 'b', 'c']) {
    for (const event of ['unwanted', 'wanted']) await publisher.publish({}, topic, event, topic);
  }
  await until('the last event', () => events.at(-1)?.category === 'c');
  assert.deepEqual(events.map(({ category, event }) => `${category} ${event}`), ['a unwanted', 'a wanted', 'b wanted', 'c wanted']);
  assert.ok(events.every(({ clientId }) => clientId === 'watcher'));
  client.unsubscribe(['a', 'b']);
  await until('the ack', () => acks.at(-1).categories.length === 1);
  await publisher.publish({}, 'a', 'wanted', 'late');
  await publisher.publish({}, 'c', 'wanted', 'last');
  await until('the last event', () => events.at(-1).data === 'last');
  assert.equal(events.length, 5);
  client.close();
  await until('the client gone', async () => !JSON.stringify(await status()).includes('"watcher"'));
}

async function aRefusedSubscribeHarmsNoOther() {
  const { client, errors, events } = await start({}, (early) => {
    early.subscribe('good');
    early.subscribe('bad\u0000');
    early.subscribe('better');
  });
  assert.deepEqual(errors.map(({ kind }) => kind), ['node']);
  assert.match(errors[0].message, /topic/);
  await publisher.publish({ topics: ['better'] }, 'good', 'x', 1);
  await publisher.publish({}, 'better', 'x', 2);
  await until('both', () => events.length === 2);
  client.close();
}

async function whatIsLeftOutIsTold() {
  let socket;
  class Pausable extends WebSocket {
    constructor(url) {
      super(url);
      socket = this;
    }
  }
  const { client, events, gaps } = await start({ WebSocket: Pausable }, (early) => early.subscribe('flood', { policy: 'drop-oldest' }));
  socket.pause();
  const text = 'x'.repeat(500_000);
  // Until the kernel takes no more for this client and its queue of 10 is full as well.
  let published = 0;
  await until('an event left out', async () => {
    await publisher.publish({}, 'flood', 'x', { n: (published += 1), text });
    const response = await fetch(`${nodeUrl}/api/v1/websocket/stats`);
    return (await response.json()).deliveries < published - 30;
  });
  await publisher.publish({}, 'flood', 'last', null);
  socket.resume();
  await until('the last event', () => events.at(-1)?.event === 'last');
  const dropped = gaps.reduce((sum, gap) => sum + gap.dropped, 0);
  assert.ok(gaps.length > 0 && gaps.every(({ topic }) => topic === 'flood'));
  assert.equal(events.length + dropped, published + 1);
  client.close();
}

async function closedBeforeItIsOpen() {
  let socket;
  class Kept extends WebSocket {
    constructor(url) {
      super(url);
      socket = this;
    }
  }
  const states = [];
  const client = connect({ url: `ws://${address}/ws`, WebSocket: Kept, onState: (state) => states.push(state), onError: assert.fail });
  client.close();
  // `ws` tells of this as an error, and errors that nobody listens for end the process.
  await until('the socket closed', () => socket.readyState === WebSocket.CLOSED);
  assert.deepEqual(states, ['connecting', 'disconnected']);
}

async function refusedEventsAreErrors() {
  await assert.rejects(publisher.publish({}, 'topic', '', 1), { name: 'PublishError', status: 400, message: /event/, code: 4 });
  await assert.rejects(publisher.publish({ topics: ['\u0000'] }, 'topic', 'x', 1), { name: 'PublishError', status: 400 });
}

async function receiptsAndKeys() {
  const { client, events } = await start({}, (early) => early.subscribe('receipts'));
  const all = { matched: 1, written: 1, queued: 0, leftOut: 0, closed: 0 };
  const publish = (data, options) => publisher.publish({}, 'receipts', 'x', data, options);
  assert.deepEqual(await publish(1, { receipt: true }), { duplicate: false, receipt: all });
  const once = { receipt: true, idempotencyKey: `key ${Math.random()}` };
  assert.deepEqual(await publish(2, once), { duplicate: false, receipt: all });
  // Sent again, as after an answer that was lost.
  assert.deepEqual(await publish(2, once), { duplicate: true, receipt: all });
  await assert.rejects(publish(3, once), { name: 'PublishError', status: 422, message: /Idempotency-Key/ });
  await assert.rejects(publish(4, { idempotencyKey: '' }), { name: 'PublishError', status: 400 });
  assert.deepEqual(await publish(5, { idempotencyKey: 'another' }), { duplicate: false, receipt: undefined });
  await until('the last', () => events.at(-1)?.data === 5);
  assert.deepEqual(events.map(({ data }) => data), [1, 2, 5]);
  client.close();
}

async function aNodeThatEndsInOrder() {
  const { client, states, errors, events } = await start({ reconnect: { attempts: Infinity, maxMs: 200 } }, (early) => early.subscribe('a'));
  const from = Date.now();
  await node('terminate');
  await until('reconnecting', () => states.at(-1) === ConnectionState.RECONNECTING);
  assert.equal(errors[0].code, 1001);
  // The pause that the node asks for, and not that of the options.
  assert.match(errors[0].message, /retryAfterMs/);
  const asked = JSON.parse(errors[0].message.match(/\{.*\}/)[0]).retryAfterMs;
  await node('start');
  await until('connected', () => states.at(-1) === ConnectionState.CONNECTED);
  assert.ok(Date.now() - from >= asked);
  assert.deepEqual(states, ['connecting', 'connected', 'reconnecting', 'connected']);
  await publisher.publish({}, 'a', 'x', 'after');
  await until('the event', () => events.at(-1)?.data === 'after');
  client.close();
}

async function aNodeThatIsKilled() {
  const { client, states, events } = await start({ runId: '1', reconnect: { attempts: Infinity, baseMs: 20, maxMs: 100 } }, (early) => early.subscribe(['a', 'b']));
  await node('kill');
  await until('reconnecting', () => states.at(-1) === ConnectionState.RECONNECTING);
  await node('start');
  await until('connected', () => states.at(-1) === ConnectionState.CONNECTED);
  await publisher.publish({}, 'b', 'x', 1);
  await publisher.publish({ run: '1' }, 'stage', 'x', 2);
  await until('both', () => events.length === 2);
  client.close();
}

for (const test of [
  theScopeBringsItsTopics, topicsFiltersAndNames, aRefusedSubscribeHarmsNoOther, whatIsLeftOutIsTold, closedBeforeItIsOpen, refusedEventsAreErrors, receiptsAndKeys, aNodeThatEndsInOrder,
  aNodeThatIsKilled,
]) {
  console.error(test.name);
  await test();
}
process.stdout.write('passed\n', () => process.exit());
