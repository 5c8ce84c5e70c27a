// A WebSocket client (npm `ws`) that is told what to do on standard input and tells what it sees on standard
// output, one JSON object a line. `client.py` speaks the same lines.
//
//   in:  {"send":"text"} {"sendBinary":"hex"} {"ping":"hex"} {"close":1000}
//   out: {"open":true} {"text":"…"} {"ping":"hex"} {"pong":"hex"} {"closed":{"code":…,"reason":"…"}}
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const ws = new WebSocket(process.argv[2]);
ws.on('open', () => tell({ open: true }));
ws.on('message', (data, isBinary) => tell(isBinary ? { binary: data.toString('hex') } : { text: data.toString() }));
ws.on('ping', (data) => tell({ ping: data.toString('hex') }));
ws.on('pong', (data) => tell({ pong: data.toString('hex') }));
ws.on('error', (error) => tell({ error: error.message }));
ws.on('close', (code, reason) => {
  tell({ closed: { code, reason: reason.toString() } });
  process.exit();
});

createInterface({ input: process.stdin }).on('line', (line) => {
  const { send, sendBinary, ping, close } = JSON.parse(line);
  if (send !== undefined) ws.send(send);
  if (sendBinary !== undefined) ws.send(Buffer.from(sendBinary, 'hex'));
  if (ping !== undefined) ws.ping(Buffer.from(ping, 'hex'));
  if (close !== undefined) ws.close(close);
});
