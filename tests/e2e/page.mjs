// Drives the page of a node in Chromium and checks what a visitor would see.
//
//   node page.mjs http://HOST:PORT/ tour SCREENSHOT   every button, every figure; keeps a picture
//   node page.mjs http://HOST:PORT/ hostile           publishes and subscribes hostile names and data
//   node page.mjs http://HOST:PORT/ token TOKEN       a node that asks for a token
//   node page.mjs http://HOST:PORT/ slow NAME         a node whose slowest client has this name
//   node page.mjs http://HOST:PORT/ names NAMES       a node whose slow clients have these names, a JSON array
//   node page.mjs http://HOST:PORT/ nobody            a node without slow clients
//
// Ends with 0 where all is as it should be; otherwise says what is not.
import assert from 'node:assert/strict';
import { openBrowser } from './browser.mjs';

const [, , url, what, argument] = process.argv;
const browser = await openBrowser();
const page = await browser.newPage({ viewport: { width: 1280, height: 1400 } });
page.setDefaultTimeout(20_000);

// Whatever goes wrong in the page is told here: errors, refused loads, and what its content security policy stopped.
const troubles = [];
// The browser itself tells of every request that the node refuses, which is what some of these are made for.
const isRefusal = (text) => /^Failed to load resource: the server responded with a status of (400|401) /.test(text);
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type()) && !isRefusal(message.text())) troubles.push(`${message.text()} (${message.location().url})`);
});
page.on('pageerror', (error) => troubles.push(`uncaught: ${error.message}`));
page.on('requestfailed', (request) => troubles.push(`failed: ${request.url()} ${request.failure()?.errorText}`));
page.on('request', (request) => { if (!request.url().startsWith(url) && !request.url().startsWith('data:')) troubles.push(`asked elsewhere: ${request.url()}`); });
page.on('dialog', (dialog) => { troubles.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
await page.addInitScript(() => {
  window.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
});

const number = (selector, attribute) => page.$eval(selector, (element, name) => Number(name ? element.dataset[name] : element.textContent.replaceAll(',', '')), attribute);
/** Waits until a figure is at least so large. */
const reaches = (selector, attribute, least) => page.waitForFunction(
  ([where, name, n]) => {
    const element = document.querySelector(where);
    return Number(name ? element.dataset[name] : element.textContent.replaceAll(',', '')) >= n;
  },
  [selector, attribute, least],
);
const shows = (selector, text) => page.waitForFunction(
  ([where, part]) => document.querySelector(where).textContent.includes(part),
  [selector, text],
);

async function tour(screenshot) {
  await page.goto(url);
  await page.waitForSelector('#state[data-state="ready"]');
  await shows('#socket-state', 'connected');
  await reaches('#connections', null, 1);
  const start = { eventsIn: await number('#events-in', 'total'), deliveries: await number('#deliveries', 'total'), received: await number('#received', 'count') };
  assert.equal(start.received, 0);

  // Each button publishes an event that this page is subscribed to, once however many of its topics the page has.
  const samples = [
    ['#publish-conductor', 'error-recovery', 'retry-started'],
    ['#publish-runs', 'run:demo-run', 'stage-progress'],
    ['#publish-projects', 'project:demo', 'workflow.progress'],
    ['#publish-workflow', 'run:550e8400-e29b-41d4-a716-446655440000', 'step_log'],
  ];
  for (const [index, [button, topic, event]] of samples.entries()) {
    await page.click(button);
    await shows('#publish-result', `${event}: 1 event accepted`);
    await reaches('#received', 'count', index + 1);
    await shows('#received', event);
    await reaches('#events-in', 'total', start.eventsIn + index + 1);
    await reaches('#deliveries', 'total', start.deliveries + index + 1);
    await shows('#tail', event);
    await shows('#tail', topic);
  }
  assert.equal(await number('#received', 'count'), 4);
  assert.notEqual(await page.textContent('#trip-last'), '–', 'the way of an event is timed');
  await page.waitForFunction(() => /ms|s$/.test(document.querySelector('#latency-p99').textContent));

  await page.click('#publish-many');
  await reaches('#received', 'count', 1004);
  await reaches('#deliveries', 'total', start.deliveries + 1004);
  assert.equal(await number('#received', 'count'), 1004);

  await page.click('#publish-steady');
  await reaches('#received', 'count', 1014);
  await page.waitForFunction(() => parseFloat(document.querySelector('#events-in').textContent) > 0);

  // One's own event, on a topic subscribed to by hand; then one that the node refuses.
  await page.fill('#topic', 'mine');
  await page.click('#topic-form button');
  await shows('#topics', 'mine');
  await page.click('#own summary');
  await page.fill('#own-topics', 'mine');
  await page.fill('#own-event', 'my-own');
  await page.fill('#own-data', '{"large": 12345678901234567890}');
  await page.click('#own-form button');
  await shows('#received', 'my-own');
  await page.screenshot({ path: screenshot, fullPage: true });
  await page.click('#publish-steady');
  await page.fill('#own-event', '');
  await page.click('#own-form button');
  await shows('#publish-result', 'Not published. 400');
}

const HOSTILE = [
  '<img src=x onerror="window.owned=1">',
  '<script>window.owned=1</script>',
  '"><svg onload=window.owned=1>',
  "');window.owned=1;//",
  'javascript:window.owned=1',
  '{{constructor.constructor("window.owned=1")()}}',
  '</li></ol><iframe srcdoc="<script>parent.owned=1</script>">',
  '\u202etxt.exe\u2066',
  '__proto__',
];

async function hostile() {
  await page.goto(url);
  await page.waitForSelector('#state[data-state="ready"]');
  await shows('#socket-state', 'connected');
  let expected = 0;
  for (const text of HOSTILE) {
    await page.fill('#topic', text);
    await page.click('#topic-form button');
    await page.waitForFunction((count) => document.querySelectorAll('#topics li').length === count, 5 + expected);
    const data = { [text]: text, nested: [text], html: text };
    // Past the page: straight to the node, as anybody might.
    const answer = await fetch(new URL('api/publish', url), { method: 'POST', body: JSON.stringify({ topics: [text], event: text, data }) });
    assert.equal(answer.status, 200, await answer.text());
    expected += 1;
    await reaches('#received', 'count', expected);
    await shows('#tail', text.slice(-8).replace(/[\u202e\u2066]/g, (c) => `\\u${c.charCodeAt(0).toString(16)}`));
    // A refusal with the text in it is shown, too.
    await page.evaluate((value) => { document.querySelector('#own-topics').value = value; document.querySelector('#own-event').value = value.repeat(50); }, text);
    const answered = page.waitForResponse((response) => response.url().endsWith('/api/publish'));
    await page.$eval('#own-form', (form) => form.requestSubmit());
    assert.equal((await answered).status(), 400);
    await shows('#publish-result', 'Not published. 400');
  }
  const found = await page.evaluate(() => ({
    owned: 'owned' in window, polluted: 'owned' in {},
    inserted: document.querySelectorAll('#tail img, #tail svg, #tail script, #received img, #received svg, #received script, #topics img, iframe, [onerror], [onload]').length,
  }));
  assert.deepEqual(found, { owned: false, polluted: false, inserted: 0 });
}

async function withToken(token) {
  await page.goto(url);
  await page.waitForSelector('#token-form:not([hidden])');
  await page.fill('#token', 'wrong');
  await page.click('#token-form button');
  await shows('#token-hint', 'did not take');
  await page.waitForSelector('#token-form:not([hidden])');
  await page.fill('#token', token);
  await page.click('#token-form button');
  await page.waitForSelector('#state[data-state="ready"]');
  await page.click('#publish-conductor');
  await reaches('#received', 'count', 1);
  assert.equal((await page.content()).includes(token), false, 'the token is not shown');
}

async function slow(name) {
  await page.goto(url);
  await page.waitForSelector('#slow-card:not([hidden])');
  await shows('#slow', 'drop oldest');
  const cells = await page.$$eval('#slow tbody tr:first-child > *', (all) => all.map((cell) => cell.textContent));
  assert.equal(cells.length, 11);
  assert.equal(cells[0], name, 'a name is text, whatever is in it');
  assert.equal(cells[2], 'json');
  assert.ok(Number(cells[3].replaceAll(',', '')) > 0, `events: ${cells[3]}`);
  assert.match(cells[4], /^\d[\d.,]* [KM]?i?B$/);
  const inserted = await page.evaluate(() => ({ owned: 'owned' in window, elements: document.querySelectorAll('#slow img, #slow script').length }));
  assert.deepEqual(inserted, { owned: false, elements: 0 });
}

async function names(json) {
  const expected = JSON.parse(json).map((name) => name.replace(/[\u0000-\u001f\u202e\u2066]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`));
  await page.goto(url);
  await page.waitForFunction((count) => document.querySelectorAll('#slow tbody tr').length === count, expected.length);
  const shown = await page.$$eval('#slow tbody tr > *:first-child', (all) => all.map((cell) => cell.textContent));
  assert.deepEqual(shown.sort(), expected.sort());
  const found = await page.evaluate(() => ({
    owned: 'owned' in window, polluted: 'owned' in {},
    inserted: document.querySelectorAll('#slow img, #slow svg, #slow script, #slow a, iframe, [onerror], [onload]').length,
  }));
  assert.deepEqual(found, { owned: false, polluted: false, inserted: 0 });
}

async function nobodySlow() {
  await page.goto(url);
  await page.waitForSelector('#state[data-state="ready"]');
  await reaches('#connections', null, 1);
  assert.equal(await page.isVisible('#slow-card'), false, 'nobody is slow');
}

try {
  await { tour, hostile, token: withToken, slow, names, nobody: nobodySlow }[what](argument);
  assert.deepEqual(await page.evaluate(() => window.violations), []);
  assert.deepEqual(troubles, []);
} catch (error) {
  console.error(error);
  console.error('troubles:', troubles);
  console.error('the page says:', (await page.innerText('body')).slice(0, 3000));
  process.exitCode = 1;
}
await browser.close();
