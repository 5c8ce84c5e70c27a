// The client against a WebSocket that the test plays: clocks, closes and messages that a real node does not provide at will.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import * as fanwire from 'fanwire-client';
import { resolveUrl } from '../dist/url.js';
import { FakeSocket, ack, event } from './fake-socket.mjs';

const { ConnectionState, connect, httpPublisher, topicsOf } = fanwire;
const { CONNECTING, CONNECTED, RECONNECTING, DISCONNECTED, FAILED } = ConnectionState;

beforeEach(() => {
  FakeSocket.made = [];
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
});
afterEach(() => mock.timers.reset());

/** A client whose pauses are not left to chance, and what it told. */
function start(options = {}) {
  const told = { states: [], errors: [], gaps: [], acks: [] };
  const client = connect({
    url: 'ws://node/ws',
    WebSocket: FakeSocket,
    onState: (state) => told.states.push(state),
    onError: (error) => told.errors.push(error),
    onGap: (gap) => told.gaps.push(gap),
    onAck: (data) => told.acks.push(data),
    ...options,
    reconnect: { jitter: 0, ...options.reconnect },
  });
  return { client, ...told };
}

/** Brings the newest socket up. */
function up() {
  FakeSocket.last.open();
  FakeSocket.last.pong();
}

/** Asserts that the next attempt comes after exactly so long. */
function nextAttemptAfter(ms) {
  const before = FakeSocket.made.length;
  mock.timers.tick(ms - 1);
  assert.equal(FakeSocket.made.length, before, `an attempt before ${ms} ms`);
  mock.timers.tick(1);
  assert.equal(FakeSocket.made.length, before + 1, `no attempt after ${ms} ms`);
}

test('subscriptions made before the socket is open are sent when it is, and again after a reconnect', async () => {
  const { client, states } = start({ clientId: 'me' });
  client.subscribe(['a', 'b']);
  client.subscribe('c', { events: ['x'], policy: 'drop-oldest' });
  assert.deepEqual(FakeSocket.last.sent, []);
  FakeSocket.last.open();
  const sent = [
    { type: 'subscribe', categories: ['a', 'b'], clientId: 'me' },
    { type: 'subscribe', categories: ['c'], events: ['x'], policy: 'drop-oldest', clientId: 'me' },
    { type: 'ping' },
  ];
  assert.deepEqual(FakeSocket.last.sent, sent);
  await null;
  assert.deepEqual(states, [CONNECTING]);
  FakeSocket.last.pong();
  assert.deepEqual(states, [CONNECTING, CONNECTED]);
  client.unsubscribe('b');
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: 'unsubscribe', categories: ['b'] });
  FakeSocket.last.fail();
  nextAttemptAfter(1000);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent, [{ ...sent[0], categories: ['a'] }, ...sent.slice(1)]);
});

test('what was granted is sent together, what was not stands alone', () => {
  const { client } = start();
  FakeSocket.last.open();
  client.subscribe('a');
  client.subscribe('refused*');
  client.subscribe('b');
  FakeSocket.last.receive(ack('a', 'b'));
  FakeSocket.last.fail();
  nextAttemptAfter(1000);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent.map(({ categories }) => categories), [['a', 'b'], ['refused*'], undefined]);
});

/** A client of a node that has granted each of these, after the connection was lost and is open again. */
function reopened(...topics) {
  const made = start();
  for (const topic of topics) made.client.subscribe(topic);
  FakeSocket.last.open();
  FakeSocket.last.receive(ack(...topics));
  FakeSocket.last.pong();
  FakeSocket.last.fail();
  nextAttemptAfter(1000);
  FakeSocket.last.open();
  return made;
}
const refusal = (error) => ({ type: 'error', timestamp: '', data: { error } });

test('what is refused together after a reconnect is sent one by one, and the refusal stays', () => {
  const { client } = reopened('a', 'b', 'c');
  const socket = FakeSocket.last;
  assert.deepEqual(socket.sent, [{ type: 'subscribe', categories: ['a', 'b', 'c'] }, { type: 'ping' }]);
  socket.receive(refusal('too many'));
  socket.pong();
  // Nothing of it is there yet.
  assert.equal(client.state, RECONNECTING);
  assert.deepEqual(socket.sent.slice(2).map(({ categories }) => categories), [['a'], ['b'], ['c'], undefined]);
  socket.receive(ack('a'));
  socket.receive(ack('a', 'b'));
  socket.receive(refusal('c is too many'));
  socket.pong();
  assert.equal(client.state, CONNECTED);
  assert.deepEqual([client.error.kind, client.error.message], ['node', 'c is too many']);
  assert.equal(socket.sent.length, 6);
  // The next time it stands alone at once.
  socket.fail();
  nextAttemptAfter(1000);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent.map(({ categories }) => categories), [['a', 'b'], ['c'], undefined]);
  FakeSocket.last.receive(ack('a', 'b'));
  FakeSocket.last.receive(ack('a', 'b', 'c'));
  assert.equal(client.state, CONNECTED);
  assert.equal(client.error, null);
});

test('all that were refused together may be taken one by one', () => {
  const { client } = reopened('a', 'b');
  FakeSocket.last.receive(refusal('for a moment'));
  FakeSocket.last.pong();
  FakeSocket.last.receive(ack('a'));
  FakeSocket.last.receive(ack('a', 'b'));
  FakeSocket.last.pong();
  assert.equal(client.state, CONNECTED);
  assert.equal(client.error, null);
});

test('one that is refused alone is not sent again', () => {
  const { client } = reopened('a');
  FakeSocket.last.receive(refusal('no'));
  FakeSocket.last.pong();
  assert.equal(FakeSocket.last.sent.length, 2);
  assert.equal(client.state, CONNECTED);
  assert.equal(client.error.message, 'no');
});

test('a refusal stays until the node has every topic', () => {
  const { client } = start();
  up();
  client.subscribe('a');
  client.subscribe('b');
  FakeSocket.last.receive(refusal('not a'));
  assert.equal(client.error.message, 'not a');
  FakeSocket.last.receive(ack('b'));
  assert.equal(client.error.message, 'not a');
  client.unsubscribe('a');
  FakeSocket.last.receive({ ...ack('b'), type: 'unsubscription-ack' });
  assert.equal(client.error, null);
});

test('a pong says nothing of what was asked for after its ping', () => {
  const { client } = start();
  FakeSocket.last.open();
  client.subscribe('late');
  FakeSocket.last.pong();
  assert.equal(client.state, CONNECTED);
  assert.equal(client.error, null);
});

test('topics that are missing without a word are an error', () => {
  const { client } = start();
  client.subscribe(['a', 'b']);
  FakeSocket.last.open();
  FakeSocket.last.receive(ack('a'));
  FakeSocket.last.pong();
  assert.equal(client.state, CONNECTED);
  assert.match(client.error.message, /not taken: b$/);
});

test('many topics go in messages that a node takes', () => {
  const { client } = start();
  const topics = Array.from({ length: 1000 }, (_, n) => `run:${n}`.padEnd(60, '.'));
  client.subscribe(topics);
  FakeSocket.last.open();
  const subscribes = FakeSocket.last.sent.filter(({ type }) => type === 'subscribe');
  assert.deepEqual(subscribes.flatMap(({ categories }) => categories), topics);
  assert.ok(subscribes.length < 12);
  for (const message of subscribes) assert.ok(Buffer.byteLength(JSON.stringify(message)) <= 8192);
});

test('a message is measured as the bytes that it is, with all that is in it', () => {
  const topics = [...Array(300).keys()].flatMap((n) => [`${n}${'語'.repeat(60)}`, `${n}${'"'.repeat(100)}`, `${n}${'\u0001'.repeat(30)}`]);
  const events = Array.from({ length: 20 }, (_, n) => `${n}`.padEnd(100, 'é'));
  const { client } = start({ clientId: 'ü'.repeat(128) });
  FakeSocket.last.open();
  client.subscribe(topics, { events });
  client.unsubscribe(topics);
  const messages = FakeSocket.last.sent.slice(2);
  assert.deepEqual(messages.flatMap(({ categories }) => categories), [...topics, ...topics]);
  const longest = Math.max(...messages.map((message) => Buffer.byteLength(JSON.stringify(message))));
  assert.ok(longest > 7000 && longest <= 8192, `${longest}`);
});

test('what is too long in any message goes alone', () => {
  const { client } = start();
  FakeSocket.last.open();
  client.subscribe(['a', 'x'.repeat(9000), 'b']);
  assert.deepEqual(FakeSocket.last.sent.slice(1).map(({ categories }) => categories), [['a'], ['x'.repeat(9000)], ['b']]);
  // A filter that leaves no room for two.
  client.subscribe(['c', 'd'], { events: ['y'.repeat(9000)] });
  assert.deepEqual(FakeSocket.last.sent.slice(4).map(({ categories }) => categories), [['c'], ['d']]);
});

test('the unsubscribe of one call leaves a later call alone', () => {
  const { client } = start();
  const undo = client.subscribe(['a', 'b']);
  client.subscribe('b', { events: ['x'] });
  undo();
  assert.deepEqual(client.topics, ['b']);
});

test('a client that only has a name gives it', () => {
  start({ clientId: 'me' });
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent, [{ type: 'subscribe', categories: [], clientId: 'me' }, { type: 'ping' }]);
});

test('an ack of all subscriptions counts as an acknowledgement', () => {
  const { client, acks } = start();
  client.subscribe(['a', 'b']);
  FakeSocket.last.open();
  FakeSocket.last.receive(ack('a'));
  assert.equal(client.state, CONNECTING);
  FakeSocket.last.receive(ack('a', 'b'));
  assert.equal(client.state, CONNECTED);
  assert.deepEqual(acks, [{ categories: ['a'] }, { categories: ['a', 'b'] }]);
});

test('pauses grow to the longest, and the attempts end', () => {
  const { client, states, errors } = start({ reconnect: { maxMs: 5000 } });
  for (const pause of [1000, 2000, 4000, 5000, 5000]) {
    FakeSocket.last.fail();
    assert.equal(client.state, RECONNECTING);
    nextAttemptAfter(pause);
  }
  FakeSocket.last.fail();
  assert.deepEqual(states, [CONNECTING, RECONNECTING, FAILED]);
  assert.match(errors.at(-1).message, /no connection after 5 attempts to reconnect: 1006/);
  assert.equal(client.error, errors.at(-1));
  mock.timers.tick(1e9);
  assert.equal(FakeSocket.made.length, 6);
  // By hand it starts anew, with all attempts.
  client.reconnect();
  assert.equal(client.state, CONNECTING);
  FakeSocket.last.fail();
  nextAttemptAfter(1000);
  up();
  assert.equal(client.state, CONNECTED);
  assert.equal(client.error, null);
});

test('chance shortens a pause by up to its part', () => {
  mock.method(Math, 'random', () => 1);
  start({ reconnect: { jitter: 0.25, baseMs: 400, factor: 3 } });
  FakeSocket.last.fail();
  nextAttemptAfter(300);
  FakeSocket.last.fail();
  nextAttemptAfter(900);
  mock.restoreAll();
});

test('the count starts anew only when the node has acknowledged', () => {
  const { client } = start({ reconnect: { attempts: 2 } });
  // As a node at capacity does: it takes the connection, says why not, and closes.
  const refuse = () => {
    FakeSocket.last.open();
    FakeSocket.last.receive({ type: 'error', timestamp: '', data: { error: 'Server capacity exceeded' } });
    FakeSocket.last.fail(1013);
  };
  refuse();
  nextAttemptAfter(1000);
  up();
  FakeSocket.last.fail();
  nextAttemptAfter(1000);
  refuse();
  nextAttemptAfter(2000);
  refuse();
  assert.equal(client.state, FAILED);
});

test('no attempts means none', () => {
  const { client, states } = start({ reconnect: { attempts: 0 } });
  FakeSocket.last.fail();
  assert.deepEqual(states, [CONNECTING, FAILED]);
  client.close();
});

test('close codes that say come back, with the pause that the node asks for', () => {
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4008, 4499]) {
    const { client, errors } = start();
    up();
    FakeSocket.last.fail(code, '{"retryAfterMs":1800}');
    assert.equal(client.state, RECONNECTING, `${code}`);
    assert.equal(errors[0].code, code);
    nextAttemptAfter(1800);
    up();
    assert.equal(client.state, CONNECTED);
    client.close();
  }
  for (const reason of ['', 'x', '{}', 'null', '{"retryAfterMs":-1}', '{"retryAfterMs":"soon"}', '{"retryAfterMs":null}']) {
    const { client } = start();
    up();
    FakeSocket.last.fail(1013, reason);
    nextAttemptAfter(1000);
    client.close();
  }
});

test('close codes that say stay away', () => {
  for (const code of [1002, 1003, 1007, 1008, 1009, 4500, 4999]) {
    const { client, states, errors } = start();
    up();
    const made = FakeSocket.made.length;
    FakeSocket.last.fail(code, '{"error":"not allowed"}');
    assert.deepEqual(states, [CONNECTING, CONNECTED, FAILED], `${code}`);
    assert.equal(errors.length, 1);
    assert.equal(errors[0].code, code);
    assert.match(errors[0].message, /for good: \d+ {"error":"not allowed"}/);
    mock.timers.tick(1e9);
    assert.equal(FakeSocket.made.length, made);
    client.close();
  }
});

test('a ping is answered; a silent node is left', () => {
  const { client, errors } = start();
  up();
  for (let n = 0; n < 5; n += 1) {
    mock.timers.tick(74_999);
    FakeSocket.last.receive({ type: 'ping', timestamp: '' });
    assert.deepEqual(FakeSocket.last.sent.at(-1), { type: 'pong' });
  }
  assert.equal(client.state, CONNECTED);
  const silent = FakeSocket.last;
  mock.timers.tick(75_000);
  assert.equal(client.state, RECONNECTING);
  assert.equal(silent.closedWith, 1000);
  assert.match(errors[0].message, /silent for 75000 ms/);
  nextAttemptAfter(1000);
  up();
  // What the old one still says is nobody's business.
  assert.equal(silent.onmessage, null);
  assert.equal(silent.onclose, null);
  assert.equal(client.state, CONNECTED);
});

test('an attempt that comes to nothing is given up', () => {
  const { client, errors } = start({ connectTimeoutMs: 500 });
  mock.timers.tick(500);
  assert.equal(client.state, RECONNECTING);
  assert.match(errors[0].message, /no acknowledgement within 500 ms/);
  nextAttemptAfter(1000);
  FakeSocket.last.open();
  mock.timers.tick(500);
  assert.match(errors[1].message, /no acknowledgement within 500 ms/);
});

test('a handler that throws harms no other, and neither does a callback', async () => {
  const { client, errors } = start({ onGap: () => { throw new Error('in onGap'); } });
  const seen = [];
  client.on('x', () => { throw new Error('mine'); });
  client.on('x', async () => { throw new Error('later'); });
  client.onCategory('c', () => { throw 'text'; });
  client.on('x', (e) => seen.push(e.data));
  client.onEvent((e) => seen.push(e.event));
  up();
  await null;
  FakeSocket.last.receive(event('x', 'c', 1));
  FakeSocket.last.receive({ type: 'gap', timestamp: '', data: { topic: 'c', dropped: 3 } });
  FakeSocket.last.receive(event('x', 'd', 2));
  await null;
  await null;
  assert.deepEqual(seen, [1, 'x', 2, 'x']);
  assert.deepEqual(errors.map(({ kind }) => kind), Array(errors.length).fill('handler'));
  assert.deepEqual(errors.map(({ message }) => message).sort(), [
    'a handler threw: later', 'a handler threw: later', 'a handler threw: mine', 'a handler threw: mine', 'a handler threw: text', 'onGap threw: in onGap',
  ]);
  assert.equal(errors.find(({ message }) => message.endsWith('mine')).cause.message, 'mine');
});

test('an error callback that throws, or none, ends on the console', () => {
  const console_ = mock.method(console, 'error', () => {});
  const throwing = start({ onError: () => { throw new Error('again'); } });
  FakeSocket.last.receive('{');
  assert.equal(console_.mock.callCount(), 1);
  const silent = start({ onError: undefined });
  FakeSocket.last.receive('{');
  assert.equal(console_.mock.callCount(), 2);
  throwing.client.close();
  silent.client.close();
  mock.restoreAll();
});

test('malformed messages are reported, unknown types are not', () => {
  const { client, errors } = start();
  up();
  const bad = [
    '', '{', 'null', '[]', '7', '{}', '{"type":7}', '{"type":"event"}', '{"type":"event","event":"x","category":"c","timestamp":""}',
    '{"type":"event","event":7,"category":"c","data":null,"timestamp":""}', '{"type":"gap","timestamp":"","data":{}}',
    '{"type":"subscription-ack","timestamp":"","data":{"categories":[7]}}', '{"type":"error","timestamp":"","data":null}', new ArrayBuffer(1),
  ];
  for (const [index, text] of bad.entries()) {
    FakeSocket.last.receive(text);
    assert.equal(errors.length, index + 1, `${text}`);
    assert.equal(errors[index].kind, 'malformed');
  }
  for (const text of ['{"type":"of a later version"}', '{"type":"toString"}', '{"type":"publish-ack","id":1}']) FakeSocket.last.receive(text);
  assert.equal(errors.length, bad.length);
  assert.equal(client.state, CONNECTED);
});

test('errors of the node and gaps are told', () => {
  const { client, errors, gaps } = start();
  up();
  FakeSocket.last.receive({ type: 'error', timestamp: '', data: { error: 'no such policy' } });
  FakeSocket.last.receive({ type: 'gap', timestamp: '', data: { topic: 'a', dropped: 7 } });
  assert.deepEqual([errors[0].kind, errors[0].message], ['node', 'no such policy']);
  assert.deepEqual(gaps, [{ topic: 'a', dropped: 7 }]);
  assert.equal(client.state, CONNECTED);
});

test('events wait for the first handler', async () => {
  const { client, errors } = start({ holdEvents: 2 });
  up();
  for (const n of [1, 2, 3]) FakeSocket.last.receive(event('x', 'c', n));
  assert.deepEqual(errors.map(({ kind }) => kind), ['held']);
  const seen = [];
  client.on('y', () => assert.fail());
  client.on('x', (e) => seen.push(e.data));
  // In order, also with what comes before the handlers are run.
  await null;
  FakeSocket.last.receive(event('x', 'c', 4));
  assert.deepEqual(seen, [1, 2, 4]);
});

test('handlers come and go', async () => {
  const { client } = start();
  up();
  const seen = [];
  const once = client.on('x', () => { seen.push('once'); once(); });
  const off = client.onCategory('c', () => seen.push('category'));
  const both = () => seen.push('both');
  client.on('x', both);
  client.onCategory('c', both);
  await null;
  FakeSocket.last.receive(event('x', 'c'));
  assert.deepEqual(seen, ['once', 'both', 'category']);
  off();
  FakeSocket.last.receive(event('x', 'c'));
  assert.deepEqual(seen.slice(3), ['both']);
});

test('close ends everything, open begins again', () => {
  const { client, states } = start();
  client.subscribe('a');
  const first = FakeSocket.last;
  client.close();
  assert.equal(first.closedWith, 1000);
  assert.deepEqual(states, [CONNECTING, DISCONNECTED]);
  client.close();
  client.open();
  FakeSocket.last.fail();
  client.close();
  mock.timers.tick(1e9);
  assert.equal(FakeSocket.made.length, 2);
  client.open();
  client.open();
  up();
  assert.equal(FakeSocket.made.length, 3);
  assert.deepEqual(FakeSocket.last.sent[0], { type: 'subscribe', categories: ['a'] });
  // At once, and the old one goes.
  client.reconnect();
  assert.equal(FakeSocket.made.at(-2).closedWith, 1000);
  assert.equal(FakeSocket.made.length, 4);
  assert.equal(client.state, RECONNECTING);
});

test('callbacks may use the client from the first', async () => {
  const told = [];
  for (const url of ['ws://node/ws', 'ws://']) {
    const use = (what) => told.push(`${what} ${client.state}`);
    const client = connect({ url, WebSocket: FakeSocket, onState: use, onError: ({ kind }) => use(kind) });
    assert.deepEqual(told.splice(0), []);
    await null;
    assert.deepEqual(told.splice(0), url === 'ws://' ? ['connecting failed', 'failed failed', 'connection failed'] : ['connecting connecting']);
  }
});

test('topics are those of calls, with and without a policy of the scope', () => {
  for (const policy of [undefined, 'drop-oldest']) {
    const { client } = start({ runId: '1', policy });
    assert.deepEqual(client.topics, []);
    client.subscribe(['a', 'global']);
    assert.deepEqual(client.topics, ['a', 'global']);
  }
});

test('callbacks may close', () => {
  const closing = (which) => {
    const { client } = start({
      onState: (state) => { if (state === which) holder.client?.close(); },
    });
    return client;
  };
  const holder = {};
  holder.client = closing(CONNECTED);
  up();
  assert.equal(holder.client.state, DISCONNECTED);
  holder.client = closing(RECONNECTING);
  FakeSocket.last.fail();
  assert.equal(holder.client.state, DISCONNECTED);
  holder.client.open();
  FakeSocket.last.open();
  FakeSocket.last.pong();
  const made = FakeSocket.made.length;
  holder.client.reconnect();
  assert.equal(holder.client.state, DISCONNECTED);
  mock.timers.tick(1e9);
  assert.equal(FakeSocket.made.length, made);
});

test('what onAck opens anew is not connected yet', () => {
  const { client } = start({ onAck: () => client.reconnect() });
  client.subscribe('a');
  FakeSocket.last.open();
  FakeSocket.last.receive(ack('a'));
  assert.equal(client.state, RECONNECTING);
  up();
  assert.equal(client.state, CONNECTED);
});

test('an address that is none, or no WebSocket, is an error and no exception', async () => {
  for (const options of [{ url: 'ws://' }, { url: 'ftp://node/' }, { url: undefined }, { url: '/ws' }, { WebSocket: class { constructor() { throw new SyntaxError('no'); } } }]) {
    const { client, states, errors } = start(options);
    assert.equal(client.state, FAILED);
    await null;
    assert.deepEqual(states, [CONNECTING, FAILED]);
    assert.equal(errors[0].kind, 'connection');
  }
});

test('the scope goes into the query, and its policy into a subscribe', () => {
  start({ url: 'https://node/x/ws?a=1#top', runId: 'r&1', projectId: 'p', userId: 'ü', policy: 'drop-oldest' });
  assert.equal(FakeSocket.last.url, 'wss://node/x/ws?a=1&runId=r%261&projectId=p&userId=%C3%BC');
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent[0], { type: 'subscribe', categories: ['run:r&1', 'project:p', 'user:ü', 'global'], policy: 'drop-oldest' });
});

test('the address comes from the options, the environment, or the page', (t) => {
  t.after(() => {
    delete process.env.REACT_APP_WEBSOCKET_URL;
    delete globalThis.location;
  });
  assert.throws(() => resolveUrl(undefined, {}), /no `url`/);
  globalThis.location = { protocol: 'file:', host: '' };
  assert.throws(() => resolveUrl(undefined, {}), /no `url`/);
  globalThis.location = { protocol: 'https:', host: 'app.example.com' };
  assert.equal(resolveUrl(undefined, {}), 'wss://app.example.com/ws');
  assert.equal(resolveUrl('/other', { runId: '7' }), 'wss://app.example.com/other?runId=7');
  globalThis.location = { protocol: 'http:', host: 'localhost:3000' };
  assert.equal(resolveUrl(undefined, {}), 'ws://localhost:3000/ws');
  process.env.REACT_APP_WEBSOCKET_URL = 'wss://api.example.com/ws';
  assert.equal(resolveUrl(undefined, {}), 'wss://api.example.com/ws');
  assert.equal(resolveUrl('ws://given/ws', {}), 'ws://given/ws');
  const { process: kept } = globalThis;
  try {
    globalThis.process = undefined;
    assert.equal(resolveUrl(undefined, {}), 'ws://localhost:3000/ws');
  } finally {
    globalThis.process = kept;
  }
});

test('bundlers put their settings in place of the expressions', async () => {
  const bundled = async (define) => {
    const entry = new URL('../dist/url.js', import.meta.url);
    const { outputFiles: [file] } = await build({ entryPoints: [fileURLToPath(entry)], bundle: true, format: 'esm', platform: 'browser', write: false, define });
    const { resolveUrl: resolve } = await import(`data:text/javascript,${encodeURIComponent(file.text)}`);
    return resolve(undefined, {});
  };
  // Vite's way, and that of webpack's DefinePlugin in Create React App.
  const vite = { 'import.meta.env.VITE_WEBSOCKET_URL': '"ws://vite/ws"' };
  const webpack = { 'process.env.REACT_APP_WEBSOCKET_URL': '"ws://webpack/ws"' };
  assert.equal(await bundled(vite), 'ws://vite/ws');
  assert.equal(await bundled(webpack), 'ws://webpack/ws');
  assert.equal(await bundled({ ...vite, ...webpack }), 'ws://vite/ws');
  await assert.rejects(bundled({}), /no `url`/);
});

test('topics of targets', () => {
  assert.deepEqual(topicsOf('all', 'run'), ['run', 'global']);
  assert.deepEqual(topicsOf({ run: '1', project: '2', user: '3', topics: ['x', 'run'] }, 'run'), ['run', 'run:1', 'project:2', 'user:3', 'x']);
  assert.deepEqual(topicsOf({}, 'run'), ['run']);
});

test('the publisher sends what it should and throws what the node said', async () => {
  const asked = [];
  let answer = new Response('{"accepted":1}');
  const publisher = httpPublisher({ url: 'http://node/', token: 'secret', fetch: async (...args) => (asked.push(args), answer) });
  await publisher.publish({ run: '1' }, 'stage', 'stage-started', { a: 1 });
  assert.equal(asked[0][0], 'http://node/api/publish');
  assert.equal(asked[0][1].headers.Authorization, 'Bearer secret');
  assert.deepEqual(JSON.parse(asked[0][1].body), { topics: ['stage', 'run:1'], event: 'stage-started', data: { a: 1 } });
  for (const [body, status, message] of [
    ['{"accepted":0,"errors":[{"index":0,"code":7,"message":"`progress` is missing"}]}', 400, '`progress` is missing'],
    ['{"error":"this endpoint asks for a bearer token"}', 401, 'this endpoint asks for a bearer token'],
    ['<html>', 502, '<html>'],
    ['', 503, 'the node answered 503'],
    ['null', 500, 'null'],
  ]) {
    answer = new Response(body, { status });
    await assert.rejects(publisher.publish('all', 'run', 'x', null), { name: 'PublishError', message, status });
  }
});

test('the publisher asks for receipts and publishes once', async () => {
  const asked = [];
  let answer = '{"accepted":1}';
  const publisher = httpPublisher({ url: 'http://node/base', token: 't', fetch: async (...args) => (asked.push(args), new Response(answer)) });
  assert.equal(await publisher.publish('all', 'run', 'x', 1), undefined);
  assert.equal('Idempotency-Key' in asked[0][1].headers, false);
  assert.deepEqual(await publisher.publish('all', 'run', 'x', 1, {}), { duplicate: false, receipt: undefined });
  const receipt = { matched: 3, written: 1, queued: 1, leftOut: 1, closed: 0 };
  answer = JSON.stringify({ accepted: 1, receipt });
  assert.deepEqual(await publisher.publish('all', 'run', 'x', 1, { receipt: true }), { duplicate: false, receipt });
  answer = JSON.stringify({ accepted: 1, duplicate: true, receipt });
  assert.deepEqual(await publisher.publish('all', 'run', 'x', 1, { idempotencyKey: 'k', receipt: false }), { duplicate: true, receipt });
  const base = 'http://node/base/api/publish';
  assert.deepEqual(asked.map(([url]) => url), [base, base, `${base}?receipt=1`, base]);
  assert.deepEqual(asked[3][1].headers, { 'Content-Type': 'application/json', Authorization: 'Bearer t', 'Idempotency-Key': 'k' });
  assert.equal('Idempotency-Key' in asked[2][1].headers, false);
  answer = '<html>';
  await assert.rejects(publisher.publish('all', 'run', 'x', 1, {}), { name: 'PublishError', message: /<html>/, status: 200 });
});

test('guards tell messages apart', () => {
  const timestamp = '2026-01-01T00:00:00.000Z';
  const messages = {
    isEvent: event('x', 'c'),
    isSubscriptionAck: ack('a'),
    isUnsubscriptionAck: { ...ack('a'), type: 'unsubscription-ack' },
    isPing: { type: 'ping', timestamp },
    isPong: { type: 'pong', timestamp },
    isGap: { type: 'gap', timestamp, data: { topic: 'a', dropped: 1 } },
    isErrorMessage: { type: 'error', timestamp, data: { error: 'no' } },
    isPublishAck: { type: 'publish-ack', id: 1 },
  };
  for (const [guard, message] of Object.entries(messages)) {
    for (const [other, each] of Object.entries(messages)) assert.equal(fanwire[guard](each), guard === other, `${guard} of ${each.type}`);
    assert.ok(fanwire.isNodeMessage(message));
    for (const nothing of [undefined, null, 7, 'x', [], {}]) assert.equal(fanwire[guard](nothing), false);
  }
});
