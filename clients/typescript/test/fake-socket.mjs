// A WebSocket that a test holds the other end of.
export class FakeSocket {
  /** All that were made, the newest last. */
  static made = [];

  static get last() {
    return FakeSocket.made.at(-1);
  }

  readyState = 0;
  sent = [];
  closedWith = null;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  constructor(url) {
    this.url = url;
    FakeSocket.made.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }

  open() {
    this.readyState = 1;
    this.onopen?.({});
  }

  /** Sends a message from the node: an object, or what stands for a frame. */
  receive(message) {
    this.onmessage?.({ data: message?.type ? JSON.stringify(message) : message });
  }

  /** What a node answers to a ping: all that came before it has taken effect. */
  pong() {
    this.receive({ type: 'pong', timestamp: '2026-01-01T00:00:00.000Z' });
  }

  fail(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

export const event = (name, category, data = null) => ({ type: 'event', event: name, category, data, timestamp: '2026-01-01T00:00:00.000Z' });
export const ack = (...categories) => ({ type: 'subscription-ack', timestamp: '2026-01-01T00:00:00.000Z', data: { categories } });
