// Runs a snippet for browsers in Chromium, on a page that comes from nowhere, until it is killed.
//
//   node run_snippet.mjs FILE
//
// What it logs goes to standard output, a line each.
import { readFileSync } from 'node:fs';
import { openBrowser } from './browser.mjs';

const browser = await openBrowser();
const page = await browser.newPage();
page.on('console', (message) => process.stdout.write(`${message.text()}\n`));
page.on('pageerror', (error) => process.stderr.write(`${error}\n`));
await page.addScriptTag({ content: readFileSync(process.argv[2], 'utf8') });
// Whoever started this closes its input, or is gone.
process.stdin.on('end', () => browser.close().then(() => process.exit())).resume();
