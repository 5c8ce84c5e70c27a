// Puts the README's code where `npm run check` finds it.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

const directory = new URL('readme/', import.meta.url);
const text = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const blocks = [...text.matchAll(/^```(tsx?)\n(.*?)^```$/gms)];
if (blocks.length === 0) throw new Error('the README has no code');
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory);
for (const [index, [, language, code]] of blocks.entries()) writeFileSync(new URL(`${index}.${language}`, directory), code);
