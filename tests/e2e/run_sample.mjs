// Runs a sample of a write-up as it stands, in Node.js (with npm `ws` as its `WebSocket`) or in Chromium. The samples
// connect to localhost:8080; where the node really listens is the only thing that is arranged around them.
//
//   node run_sample.mjs node|chromium HOST:PORT [SAMPLE.js [frames]]
//
// What the sample logs goes to standard output, a line each. With `frames` it is what its socket sends and receives
// instead, as somebody sees it who looks on: `> TEXT`, `< TEXT`, and `closed`. Ends when the sample has logged that its connection is
// closed, or with standard input.
import { readFileSync } from 'node:fs';
import { runInThisContext } from 'node:vm';
import WebSocket from 'ws';
import { openBrowser } from './browser.mjs';

const [, , where, address, file = 'browser_sample.js', mode] = process.argv;
const showsFrames = mode === 'frames';
const sample = readFileSync(new URL(file, import.meta.url), 'utf8');
const inputEnded = new Promise((resolve) => process.stdin.resume().on('end', resolve));
const print = (words) => process.stdout.write(`${words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' ')}\n`);

if (where === 'node') {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(url.replace('localhost:8080', address));
      const closed = new Promise((resolve) => this.on('close', resolve));
      inputEnded.then(() => this.terminate());
      closed.then(() => process.stdin.destroy());
      if (showsFrames) {
        this.on('message', (text) => print(['<', text.toString()]));
        this.on('close', () => print(['closed']));
      }
    }

    send(text) {
      if (showsFrames) print(['>', text]);
      super.send(text);
    }
  };
  console.log = (...words) => { if (!showsFrames) print(words); };
  runInThisContext(sample);
} else {
  const browser = await openBrowser(`--host-resolver-rules=MAP localhost:8080 ${address}`);
  const page = await browser.newPage();
  // What is logged is fetched from the page; it is printed in the order of logging.
  let last = Promise.resolve();
  const closed = new Promise((resolve) => {
    page.on('console', (message) => {
      const words = Promise.all(message.args().map((word) => word.jsonValue()));
      last = last.then(async () => {
        if (!showsFrames) print(await words);
        if ((await words)[0] === 'Connection closed') resolve();
      });
    });
  });
  if (showsFrames) {
    page.on('websocket', (socket) => {
      socket.on('framesent', ({ payload }) => print(['>', payload]));
      socket.on('framereceived', ({ payload }) => print(['<', payload]));
      socket.on('close', () => print(['closed']));
    });
  }
  await page.addScriptTag({ content: sample });
  await Promise.race([closed, inputEnded]);
  await browser.close();
  process.stdin.destroy();
}
