// A WebSocket client in Chromium, on a page that comes from nowhere, that speaks the lines of `client.mjs`, as far as
// pages have them: `send` and `close`, `open`, `text` and `closed`.
import { createInterface } from 'node:readline';
import { openBrowser } from './browser.mjs';

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const browser = await openBrowser();
const page = await browser.newPage();
page.on('pageerror', (error) => tell({ error: error.message }));
await page.exposeFunction('tell', tell);
await page.evaluate((url) => {
  const { tell } = window;
  const ws = new WebSocket(url);
  ws.onopen = () => tell({ open: true });
  ws.onmessage = ({ data }) => tell({ text: data });
  ws.onclose = ({ code, reason }) => tell({ closed: { code, reason } });
  window.ws = ws;
}, process.argv[2]);

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => page.evaluate(({ send, close }) => {
  if (send !== undefined) window.ws.send(send);
  if (close !== undefined) window.ws.close(close);
}, JSON.parse(line)));
// Whoever started this closes its input, or is gone.
lines.on('close', () => browser.close().then(() => process.exit()));
