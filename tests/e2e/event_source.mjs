// An EventSource in Chromium, in a page of another origin than the node's. It is told what to do on standard input and
// tells what it sees on standard output, one JSON object a line.
//
//   in:  {"connect":"URL","types":["…"]}  {"close":true}
//        {"block":true}: the page's thread stands still until {"release":true}
//        {"fetch":"URL","headers":{…}}: what a page's own request is answered
//   out: {"page":"ORIGIN"}, once it is there
//        {"open":STATE} {"error":STATE}, with the source's readyState: 0 it connects again, 1 open, 2 it has given up
//        {"event":"TYPE","data":"…","id":"…","origin":"…"}
//        {"blocked":true}  {"fetched":{"status":…,"type":…,"body":…}}
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { openBrowser } from './browser.mjs';

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// The page, and an answer that is held back.
const held = [];
const server = createServer((request, response) => {
  if (request.url === '/hold') {
    held.push(response);
    tell({ blocked: true });
    return;
  }
  response.setHeader('Content-Type', 'text/html');
  response.end('<!doctype html><title>another site</title>');
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await openBrowser();
const page = await browser.newPage();
page.on('pageerror', (error) => tell({ uncaught: error.message }));
await page.exposeFunction('tell', tell);
await page.goto(`${origin}/`);
tell({ page: origin });

const commands = {
  connect: (url, { types }) => page.evaluate(([where, names]) => {
    const source = new EventSource(where);
    const handle = (event) => window.tell(event instanceof MessageEvent
      ? { event: event.type, data: event.data, id: event.lastEventId, origin: event.origin }
      : { [event.type]: source.readyState });
    // Names of events may be those of the source's own: a Set, because a listener is called once.
    new Set(['open', 'error', 'message', ...names]).forEach((name) => source.addEventListener(name, handle));
    window.source = source;
  }, [url, types ?? []]),
  close: () => page.evaluate(() => window.source.close()),
  block: () => page.evaluate(() => {
    setTimeout(() => {
      const request = new XMLHttpRequest();
      request.open('GET', '/hold', false);
      request.send();
    });
  }),
  release: () => held.splice(0).forEach((response) => response.end()),
  fetch: (url, { headers }) => page.evaluate(async ([where, lines]) => {
    try {
      const response = await fetch(where, { headers: lines });
      const type = response.headers.get('Content-Type');
      // A stream does not end.
      const body = type === 'text/event-stream' ? null : await response.text();
      if (body === null) response.body.cancel();
      window.tell({ fetched: { status: response.status, type, body } });
    } catch (error) {
      window.tell({ fetched: { error: error.message } });
    }
  }, [url, headers ?? {}]),
};

const input = createInterface({ input: process.stdin });
for await (const line of input) {
  const told = JSON.parse(line);
  for (const [name, argument] of Object.entries(told)) {
    await commands[name]?.(argument, told);
  }
}
await browser.close();
process.exit();
