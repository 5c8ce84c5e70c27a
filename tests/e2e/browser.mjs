// Chromium, as the tests use it: the system's own, without anything that talks to elsewhere.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

export async function openBrowser(...args) {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: run \`make install-deps\`, or set CHROMIUM`);
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', ...args,
    ],
  });
}
