// What the scripts share that tests/typescript_client.rs runs: its node, and waiting.
import { createInterface } from 'node:readline';

/** `HOST:PORT` of the node. It stays the same over its ends and starts. */
export const address = process.argv[2];
export const nodeUrl = `http://${address}`;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the node killed (`kill`), asked to end (`terminate`) or started (`start`); resolves when that is so. */
export async function node(what) {
  process.stdout.write(`${what}\n`);
  const { done } = await answers.next();
  if (done) throw new Error(`the test ended instead of: ${what}`);
}

const PATIENCE = 20_000;

/** Asks until the answer is not `undefined`, `null` or `false`, and returns it. */
export async function until(what, found, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  for (;;) {
    const it = await found();
    if (it !== undefined && it !== null && it !== false) return it;
    if (Date.now() > deadline) throw new Error(`it did not come to this: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The node's own word on its clients. */
export async function status() {
  const response = await fetch(`${nodeUrl}/api/websocket/status`);
  return response.json();
}

// Tells the test that this is alive. What takes too long is for `until` to say.
setInterval(() => process.stdout.write('working\n'), 2000).unref();
