// Runs browser_sample.js as it stands, in Node.js (with npm `ws` as its `WebSocket`) or in Chromium. The sample
// connects to localhost:8080; where the node really listens is the only thing that is arranged around it.
//
//   node run_sample.mjs node|chromium HOST:PORT
//
// What the sample logs goes to standard output, a line each. Ends when the sample's connection has closed.
import { readFileSync } from 'node:fs';
import { runInThisContext } from 'node:vm';
import WebSocket from 'ws';
import { openBrowser } from './browser.mjs';

const [, , where, address] = process.argv;
const sample = readFileSync(new URL('browser_sample.js', import.meta.url), 'utf8');

if (where === 'node') {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(url.replace('localhost:8080', address));
    }
  };
  console.log = (...words) => process.stdout.write(`${words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' ')}\n`);
  runInThisContext(sample);
} else {
  const browser = await openBrowser(`--host-resolver-rules=MAP localhost:8080 ${address}`);
  const page = await browser.newPage();
  const closed = new Promise((resolve) => {
    page.on('console', async (message) => {
      const words = await Promise.all(message.args().map((word) => word.jsonValue()));
      process.stdout.write(`${words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' ')}\n`);
      if (words[0] === 'Connection closed') resolve();
    });
  });
  await page.addScriptTag({ content: sample });
  await closed;
  await browser.close();
}
