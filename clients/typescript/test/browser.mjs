// The hook in Chromium against a real node: browser.mjs HOST:PORT, run by tests/typescript_client.rs.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { httpPublisher } from 'fanwire-client';
import * as runs from 'fanwire-client/catalogs/runs';
import { openBrowser } from '../../../tests/e2e/browser.mjs';
import { node, nodeUrl, status, until } from './stage.mjs';

const samples = JSON.parse(readFileSync(new URL('samples.json', import.meta.url), 'utf8'));

const bundled = await build({
  entryPoints: [fileURLToPath(new URL('page.tsx', import.meta.url))],
  bundle: true,
  format: 'esm',
  jsx: 'automatic',
  write: false,
  // React's own checks, StrictMode's double mount among them, are in its development build.
  define: { 'process.env.NODE_ENV': '"development"' },
});

const publisher = httpPublisher({ url: nodeUrl });
const browser = await openBrowser();
// The page is put in the node's place, so the browser does not know it for a local one.
const context = await browser.newContext({ permissions: ['local-network-access'] });
const page = await context.newPage();
page.setDefaultTimeout(20_000);

const troubles = [];
page.on('pageerror', (error) => troubles.push(`uncaught: ${error.message}`));
page.on('console', (message) => {
  // The browser itself tells of each attempt that a node which is away refuses.
  if (['error', 'warning'].includes(message.type()) && !message.text().includes('net::ERR_CONNECTION_REFUSED')) troubles.push(message.text());
});
let opened = 0;
/** All that nodes sent, as text. */
const frames = [];
page.on('websocket', (socket) => {
  opened += 1;
  socket.on('framereceived', ({ payload }) => frames.push(payload));
});

// At the node's address, so that the hook finds it from the page's; not from the node, which serves no page of ours.
await page.route(`${nodeUrl}/**`, (route) => {
  const { pathname } = new URL(route.request().url());
  if (pathname === '/app.js') return route.fulfill({ contentType: 'text/javascript', body: bundled.outputFiles[0].text });
  if (pathname === '/app') return route.fulfill({ contentType: 'text/html', body: '<!doctype html><div id="root"></div><script type="module" src="/app.js"></script>' });
  return route.fulfill({ status: 404, body: '' });
});

const show = async (...watchers) => {
  await page.evaluate((it) => window.show(it), watchers);
  await page.waitForSelector(`#watchers[data-shown="${watchers.map(({ name }) => name).join(' ')}"]`, { state: 'attached' });
};
const isIn = (name, state) => page.waitForSelector(`#${name}[data-state="${state}"]`, { state: 'attached' });
const attribute = (name, which) => page.getAttribute(`#${name}`, `data-${which}`);
const seen = (name, what) => page.evaluate(([who, which]) => window.seen[who]?.[which] ?? [], [name, what]);
const has = async (name, what, count) => until(`${count} of ${name}'s ${what}`, async () => {
  const list = await seen(name, what);
  return list.length >= count && list;
});
const call = (name, what) => page.evaluate(([who, which]) => window.seen[who].hook[which](), [name, what]);
const clients = async () => (await status()).connectedClients;
const clientsAre = (count) => until(`${count} clients`, async () => (await clients()) === count);

/** Publishes an event of the catalog with the sample's data, but for what is given. */
const publish = (target, event, data = {}) => {
  const [category] = Object.entries(runs.runsCategories).find(([, events]) => events.includes(event));
  return publisher.publish(target, category, event, { ...samples[event], ...data });
};
const progress = (n, run = '1') => publish({ run }, 'stage-progress', { progress: n });

async function eventsComeToTheirHandlers() {
  await page.goto(`${nodeUrl}/app`);
  const watcher = { name: 'one', options: { runId: '1', maxReconnectAttempts: 10_000 }, events: ['stage-progress'], categories: ['governance'] };
  await show(watcher);
  await isIn('one', 'connected');
  assert.equal(await attribute('one', 'connected'), 'true');
  // Mounted twice by StrictMode, connected once.
  assert.equal(opened, 1);
  assert.equal(await clients(), 1);
  assert.deepEqual(await seen('one', 'states'), ['connecting', 'connected']);

  await progress(0, 'another');
  await publish({ run: '1' }, 'stage-started');
  await publish({ run: '1' }, 'approval-granted', { comment: '1' });
  // What was published under the run's name alone belongs to the category that the catalog says.
  await publisher.publish({}, 'run:1', 'approval-denied', { runId: '1', reason: '2' });
  await publish('all', 'governance-required', { reason: '3' });
  await progress(4);
  const events = await has('one', 'events', 1);
  assert.deepEqual(events.map(({ event, category, data }) => [event, category, data.progress]), [['stage-progress', 'stage', 4]]);
  const categories = await has('one', 'categories', 3);
  assert.deepEqual(categories.map(({ event, data }) => [event, data.comment ?? data.reason]), [['approval-granted', '1'], ['approval-denied', '2'], ['governance-required', '3']]);

  // New options with the same content, new renders: the same connection, the same functions.
  const before = await seen('one', 'renders');
  for (let n = 0; n < 3; n += 1) await show({ ...watcher, options: { ...watcher.options } });
  await until('renders', async () => (await seen('one', 'renders')) > before);
  await progress(5);
  await has('one', 'events', 2);
  assert.equal(opened, 1);
  assert.equal(await page.evaluate(() => window.seen.one.functions.size), 6);
}

async function itComesBackToANodeThatComesBack() {
  await node('kill');
  await isIn('one', 'reconnecting');
  assert.equal(await attribute('one', 'connected'), 'false');
  assert.match(await attribute('one', 'error'), /connection was lost: 1006/);
  await node('start');
  await isIn('one', 'connected');
  assert.equal(await attribute('one', 'error'), '');
  await progress(6);
  assert.equal((await has('one', 'events', 3))[2].data.progress, 6);
  assert.equal(await clients(), 1);
  assert.deepEqual(await seen('one', 'states'), ['connecting', 'connected', 'reconnecting', 'connected']);
  assert.deepEqual(await seen('one', 'calls'), ['connect', 'disconnect', 'connect']);
}

async function anotherRunIsAnotherConnection() {
  // The attempts are few from here on.
  const before = opened;
  await show({ name: 'one', options: { runId: '2', maxReconnectAttempts: 3 }, events: ['stage-progress'] });
  await until('another connection', () => opened > before);
  await isIn('one', 'connected');
  await clientsAre(1);
  assert.equal(opened, before + 1);
  const count = (await seen('one', 'events')).length;
  await progress(7, '1');
  await publish({ run: '2' }, 'approval-granted');
  await progress(8, '2');
  assert.equal((await has('one', 'events', count + 1))[count].data.progress, 8);
  assert.equal((await seen('one', 'categories')).length, 3, 'its handler is gone');
}

async function itGivesUpAndCanBeToldToTryAgain() {
  await node('kill');
  await isIn('one', 'failed');
  assert.match(await attribute('one', 'error'), /no connection after 3 attempts to reconnect: 1006/);
  const tried = opened;
  await node('start');
  await call('one', 'reconnect');
  await isIn('one', 'connected');
  assert.equal(opened, tried + 1);
  assert.equal(await attribute('one', 'error'), '');
  const count = (await seen('one', 'events')).length;
  await progress(9, '2');
  assert.equal((await has('one', 'events', count + 1))[count].data.progress, 9);
}

async function itClosesAndOpensByHand() {
  await call('one', 'disconnect');
  await isIn('one', 'disconnected');
  assert.equal(await attribute('one', 'error'), '');
  await clientsAre(0);
  await call('one', 'reconnect');
  await isIn('one', 'connected');
  await clientsAre(1);
}

async function troubleIsTold() {
  // With a handler that throws before the one that counts.
  await show({ name: 'two', options: { runId: '3', policy: 'drop-oldest' }, events: ['stage-progress'], throwing: true });
  await isIn('two', 'connected');
  // The first is unmounted: its socket is closed.
  await clientsAre(1);
  await progress(1, '3');
  await has('two', 'events', 1);
  assert.deepEqual(await seen('two', 'errors'), ['handler: a handler threw: a bug in the page']);
  // A browser reads for its page whether or not that keeps up. So the gap is put in the node's mouth.
  await page.evaluate(() => {
    const gap = { type: 'gap', timestamp: '', data: { topic: 'run:3', dropped: 7 } };
    for (const data of [JSON.stringify(gap), '{']) window.sockets.at(-1).dispatchEvent(new MessageEvent('message', { data }));
  });
  assert.deepEqual(await seen('two', 'gaps'), [{ topic: 'run:3', dropped: 7 }]);
  assert.match((await seen('two', 'errors'))[1], /^malformed: /);
  assert.equal(await attribute('two', 'state'), 'connected');
  // What the node refuses.
  await page.evaluate(() => window.sockets.at(-1).send('{"type":"no such thing"}'));
  await until('the error', async () => (await attribute('two', 'error')).includes('no such thing'));
  // Connected does not undo a refusal.
  await show({ name: 'six', options: { runId: '3', topics: ['bad\u0000'] } });
  await isIn('six', 'connected');
  assert.match(await attribute('six', 'error'), /topic/);
}

async function withoutAScopeHandlersDecideWhatComes() {
  await show({ name: 'three', options: {}, events: ['stage-progress'], categories: ['governance'] });
  await isIn('three', 'connected');
  await clientsAre(1);
  const received = frames.length;
  await publish({}, 'stage-started');
  await progress(1, 'any');
  await publish({}, 'approval-granted');
  await publisher.publish('all', 'run', 'stage-progress', { ...samples['stage-progress'], progress: 2 });
  assert.deepEqual((await has('three', 'events', 2)).map(({ data }) => data.progress), [1, 2]);
  await has('three', 'categories', 1);
  // What no handler wants the node does not send.
  assert.ok(!frames.slice(received).some((text) => text.includes('"stage-started"')));
  const topicsAre = (...topics) => until(`topics ${topics}`, async () => Object.keys((await status()).subscriptions).sort().join() === topics.join());
  await topicsAre('global', 'governance', 'stage');
  // One handler less, one topic less; another one, another topic. The connection stays.
  const before = opened;
  await show({ name: 'three', options: {}, events: ['run-failed'], categories: ['governance'] });
  await topicsAre('global', 'governance', 'run');
  await publish({}, 'run-failed', { durationMs: 3 });
  assert.equal((await has('three', 'events', 3))[2].data.durationMs, 3);
  assert.equal(opened, before);
}

async function connectingCanBeLeftToTheComponent() {
  await show({ name: 'four', options: { runId: '4', autoConnect: false }, events: ['stage-progress'] });
  await clientsAre(0);
  assert.equal(await attribute('four', 'state'), 'disconnected');
  await call('four', 'reconnect');
  await isIn('four', 'connected');
  await progress(1, '4');
  await has('four', 'events', 1);
}

async function aCallbackMayReconnect() {
  await show({ name: 'five', options: { runId: '5' }, insisting: true });
  await isIn('five', 'connected');
  await call('five', 'disconnect');
  await until('connected again', async () => (await seen('five', 'states')).filter((state) => state === 'connected').length === 2);
  await clientsAre(1);
  assert.deepEqual(await seen('five', 'states'), ['connecting', 'connected', 'disconnected', 'connecting', 'connected']);
  assert.equal(await attribute('five', 'state'), 'connected');
  assert.match((await seen('five', 'errors'))[0], /^handler: a callback threw: .*no/);
}

async function everyFieldOfEveryEventArrives() {
  await show({ name: 'reader', readsRun: 'r' });
  await isIn('reader', 'connected');
  for (const [event, data] of Object.entries(samples)) {
    const name = event.replace(/(?:^|-)(.)/g, (_, letter) => letter.toUpperCase());
    await runs[`broadcast${name}`](publisher, { run: 'r' }, data);
  }
  const events = await has('reader', 'events', Object.keys(samples).length);
  for (const [index, [event, data]] of Object.entries(samples).entries()) {
    assert.equal(events[index].event, event);
    assert.ok(runs.runsCategories[events[index].category].includes(event));
    for (const [field, value] of Object.entries(data)) assert.deepEqual(events[index].data[field], value, `${event}: ${field}`);
  }
}

async function unmountedItIsGone() {
  await show();
  await clientsAre(0);
  // Nothing opens a connection for what is not there.
  const before = opened;
  await call('four', 'reconnect');
  // What it would open, it would have opened before the page gets to this.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
  assert.equal(opened, before);
  await page.waitForFunction(() => window.sockets.every(({ readyState }) => readyState === WebSocket.CLOSED));
}

try {
  for (const test of [
    eventsComeToTheirHandlers, itComesBackToANodeThatComesBack, anotherRunIsAnotherConnection, itGivesUpAndCanBeToldToTryAgain, itClosesAndOpensByHand,
    troubleIsTold, withoutAScopeHandlersDecideWhatComes, connectingCanBeLeftToTheComponent, aCallbackMayReconnect, everyFieldOfEveryEventArrives, unmountedItIsGone,
  ]) {
    console.error(test.name);
    await test();
  }
  assert.deepEqual(troubles, []);
} catch (error) {
  console.error(error);
  console.error('troubles:', troubles);
  console.error('seen:', await page.evaluate(() => JSON.stringify(window.seen, null, 1)).catch(String));
  process.exitCode = 1;
}
await browser.close();
process.stdout.write(process.exitCode ? 'failed\n' : 'passed\n', () => process.exit());
