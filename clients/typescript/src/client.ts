import type { AnyEvent, CatalogEvent, EventHandler } from "./events.js";
import { Handlers } from "./handlers.js";
import { parseMessage, type AckData, type GapData, type NodeMessage } from "./messages.js";
import { resolveUrl, scopeTopics, type Scope } from "./url.js";

export enum ConnectionState {
  /** The first attempt is under way. */
  CONNECTING = "connecting",
  /**
   * The node has answered every subscription: what is published from now on arrives. Topics that it refused are left
   * out; then `error` is its refusal and not `null`.
   */
  CONNECTED = "connected",
  /** The connection was lost; another attempt is under way or due. */
  RECONNECTING = "reconnecting",
  /** Not yet opened, or closed by its owner. */
  DISCONNECTED = "disconnected",
  /** Given up: the attempts were used up, or the node said not to come back. `reconnect()` tries again. */
  FAILED = "failed",
}

/** What happens when this client is too slow for a topic. Which ones a node serves is its version's matter. */
export type Policy = "disconnect" | "drop-oldest" | "drop-newest" | "conflate" | "replay";

export type ClientErrorKind =
  /** The connection was lost or could not be made. */
  | "connection"
  /** The node refused something. The connection stays, unless a close follows. */
  | "node"
  /** The node sent what is no message. */
  | "malformed"
  /** A handler or callback threw; `cause` is what it threw. */
  | "handler"
  /** More events came before the first handler was there than `holdEvents` allows. */
  | "held";

/** Whatever goes wrong is one of these. */
export class ClientError extends Error {
  override readonly name = "ClientError";
  readonly kind: ClientErrorKind;
  /** The close code of a lost connection. */
  readonly code: number | undefined;

  constructor(kind: ClientErrorKind, message: string, options: { code?: number | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.code = options.code;
  }
}

/** What the client uses of a `WebSocket`. The browser's and that of npm `ws` both fit. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

export interface ReconnectOptions {
  /** How many attempts in a row; 0 for none, `Infinity` for no end. 5 by default. */
  attempts?: number | undefined;
  /** The pause before the first of them, in milliseconds. 1000 by default. */
  baseMs?: number | undefined;
  /** The longest pause. 30000 by default. A longer one that the node asks for is kept to. */
  maxMs?: number | undefined;
  /** By how much each pause is longer than the one before. 2 by default. */
  factor?: number | undefined;
  /** The part of a pause that is left to chance, 0 to 1. 0.5 by default: a pause of 1000 is 500 to 1000. */
  jitter?: number | undefined;
}

export interface SubscribeOptions {
  /** Only events of these names. */
  events?: readonly string[] | undefined;
  policy?: Policy | undefined;
}

export interface ClientOptions extends Scope {
  /** `ws:`, `wss:`, `http:`, `https:`, or relative to the page. */
  url?: string | undefined;
  /** What the client calls itself, 1 to 128 characters: the name in the node's logs and status. */
  clientId?: string | undefined;
  /** The policy of the scope's topics. That of others is given where they are subscribed. */
  policy?: Policy | undefined;
  /** Instead of the global `WebSocket`. */
  WebSocket?: WebSocketConstructor | undefined;
  reconnect?: ReconnectOptions | undefined;
  /** How long an attempt may take until the node has taken the subscriptions. 10000 by default. */
  connectTimeoutMs?: number | undefined;
  /** How long the node may be silent. 75000 by default: two and a half of its pings. */
  silenceMs?: number | undefined;
  /** How many events are kept for the first handler where none is there yet; 0 for none. 1000 by default. */
  holdEvents?: number | undefined;
  onState?: ((state: ConnectionState) => void) | undefined;
  /** Without it errors go to the console. */
  onError?: ((error: ClientError) => void) | undefined;
  /** The node left events out, as this client's policy allows. */
  onGap?: ((gap: GapData) => void) | undefined;
  /** The client's whole set of topics has changed, or a connection has them again. */
  onAck?: ((ack: AckData) => void) | undefined;
}

interface Subscription extends SubscribeOptions {
  /** The call it came from. */
  call: number;
  /** What it is sent along with: `GRANTED`, or a number of those that share it. At first that of its call. */
  group: number;
}

/**
 * Connects to a node. Handlers that are added before the caller next waits miss nothing. No callback is called before
 * this has returned, so callbacks may use the client.
 */
export function connect<E = Record<string, unknown>>(options: ClientOptions = {}): Client<E> {
  const client = new Client<E>(options);
  client["openQuietly"]();
  return client;
}

const OPEN = 1;
const NORMAL_CLOSURE = 1000;
/** The group of what the node has granted: no call has this number. */
const GRANTED = 0;
/** 1002, 1003, 1007 and 1009 say that what this client sent was wrong; it would send the same again. */
const FINAL_CODES: ReadonlySet<number> = new Set([1002, 1003, 1007, 1008, 1009]);
/** Of a subscribe or unsubscribe. Well below the 64 KiB that a node takes in one message: beyond, it closes for good. */
const MAX_MESSAGE_BYTES = 8192;
/** Timers with longer delays fire at once. */
const MAX_TIMEOUT_MS = 0x7fff_ffff;

/** A connection to a node that comes back. Nothing that the node sends or that a handler does makes a call of it throw. */
export class Client<E = Record<string, unknown>> {
  private readonly options: ClientOptions;
  private readonly handlers: Handlers;
  private readonly subscriptions = new Map<string, Subscription>();
  private calls = 0;
  /** The calls before the newest ping: its pong comes after the answers to them. */
  private pingedCalls = 0;
  /** The topics that this connection has, as the node said last. */
  private acked: ReadonlySet<string> = new Set();
  /** What the node refused last, until it has all topics. */
  private refusal: ClientError | null = null;
  private socket: WebSocketLike | null = null;
  private current: ConnectionState = ConnectionState.DISCONNECTED;
  private lastError: ClientError | null = null;
  /** Attempts since the node last acknowledged. */
  private attempts = 0;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private connectTimer: ReturnType<typeof setTimeout> | undefined;
  private silenceTimer: ReturnType<typeof setTimeout> | undefined;
  private lastMessageAt = 0;
  /** Events that came before the first handler; `null` once there has been one. */
  private held: AnyEvent[] | null;
  /** What there is to tell once `connect` has returned. */
  private untold: (() => void)[] = [];
  private isQuiet = false;
  /** The call that the constructor made for the policy of the scope. */
  private readonly scopeCall: number | null;

  /** Does not connect yet. `handlers` are those of an owner who has them already: nothing is held for them. */
  constructor(options: ClientOptions = {}, handlers?: Handlers) {
    this.options = options;
    this.handlers = handlers ?? new Handlers();
    this.held = handlers || options.holdEvents === 0 ? null : [];
    const hasPolicy = options.policy !== undefined;
    if (hasPolicy) this.subscribe(scopeTopics(options), { policy: options.policy });
    this.scopeCall = hasPolicy ? this.calls : null;
  }

  get state(): ConnectionState {
    return this.current;
  }

  /**
   * Why there is no connection. While there is one, what the node refused last, until it has taken every topic or
   * those that it refused are unsubscribed. Else `null`.
   */
  get error(): ClientError | null {
    return this.lastError;
  }

  /** The topics subscribed to by calls; those of the scope are not among them. */
  get topics(): string[] {
    return [...this.subscriptions].filter(([, { call }]) => call !== this.scopeCall).map(([name]) => name);
  }

  // Connection

  /** Connects, unless it is connected or about to. */
  open(): void {
    if (this.current === ConnectionState.DISCONNECTED || this.current === ConnectionState.FAILED) this.reconnect();
  }

  /** Opens, and tells of it in a microtask: until then its caller has no client to use in a callback. */
  private openQuietly(): void {
    this.isQuiet = true;
    this.open();
    this.isQuiet = false;
    queueMicrotask(() => this.tellUntold());
  }

  private tellUntold(): void {
    for (const tell of this.untold.splice(0)) tell();
  }

  /** Connects anew at once, with all attempts before it. */
  reconnect(): void {
    const wasUp = this.current === ConnectionState.CONNECTED || this.current === ConnectionState.RECONNECTING;
    this.drop();
    this.attempts = 0;
    const state = wasUp ? ConnectionState.RECONNECTING : ConnectionState.CONNECTING;
    this.setState(state);
    // Unless `onState` has closed it meanwhile.
    if (this.current === state && this.socket === null) this.attempt();
  }

  /** Closes. Handlers and subscriptions stay, for the next `open()`. */
  close(): void {
    this.drop();
    if (this.held !== null) this.held = [];
    this.lastError = null;
    this.setState(ConnectionState.DISCONNECTED);
  }

  // Subscriptions

  /**
   * Subscribes to topics now and after every reconnect. For topics that it has, replaces filter and policy.
   * Returns what unsubscribes from them.
   */
  subscribe(topics: string | readonly string[], options: SubscribeOptions = {}): () => void {
    const names = typeof topics === "string" ? [topics] : [...topics];
    const { events, policy } = options;
    const call = ++this.calls;
    for (const name of names) {
      // To the end: the node is told in the order of the calls.
      this.subscriptions.delete(name);
      this.subscriptions.set(name, { events, policy, call, group: call });
    }
    if (names.length > 0) this.sendSubscribes(names, options);
    return () => this.unsubscribe(names.filter((name) => this.subscriptions.get(name)?.call === call));
  }

  /** Also leaves topics of the scope, until the next reconnect. */
  unsubscribe(topics: string | readonly string[]): void {
    const names = typeof topics === "string" ? [topics] : [...topics];
    for (const name of names) this.subscriptions.delete(name);
    const message = { type: "unsubscribe", categories: [] };
    for (const categories of chunks(names, message)) this.send({ ...message, categories });
  }

  // Handlers

  /** Adds a handler for events of a name; returns what removes it. */
  on<N extends keyof E & string>(event: N, handler: EventHandler<CatalogEvent<E, N>>): () => void {
    return this.handled(this.handlers.addForEvent(event, handler as unknown as EventHandler));
  }

  /** Adds a handler for events whose first topic this is; returns what removes it. */
  onCategory(category: string, handler: EventHandler): () => void {
    return this.handled(this.handlers.addForCategory(category, handler));
  }

  /** Adds a handler for all events; returns what removes it. */
  onEvent(handler: EventHandler): () => void {
    return this.handled(this.handlers.addForAll(handler));
  }

  private handled(remove: () => void): () => void {
    if (this.held !== null) {
      // Those that are added along with this one get the events as well.
      queueMicrotask(() => {
        const events = this.held ?? [];
        this.held = null;
        for (const event of events) this.dispatch(event);
      });
    }
    return remove;
  }

  // Connection, within

  private attempt(): void {
    let socket: WebSocketLike;
    try {
      const Socket = this.options.WebSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
      if (Socket === undefined) throw new Error("there is no WebSocket here: pass one in");
      socket = new Socket(resolveUrl(this.options.url, this.options));
    } catch (error) {
      this.fail(new ClientError("connection", messageOf(error), { cause: error }));
      return;
    }
    this.socket = socket;
    // Of what went wrong a browser tells the page nothing, `ws` does.
    let problem = "";
    socket.onerror = (event) => (problem = typeof event?.message === "string" ? event.message : "");
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => this.received(event.data);
    socket.onclose = (event) => this.lost(event?.code ?? 1006, event?.reason ?? "", problem);
    const connectMs = this.options.connectTimeoutMs ?? 10_000;
    this.connectTimer = later(connectMs, () => this.lost(1006, "", `no acknowledgement within ${connectMs} ms`));
  }

  private opened(): void {
    this.watchSilence();
    this.acked = new Set();
    this.refusal = null;
    // What the node has granted before goes in few messages. The rest goes as it was asked for: one that the node
    // refuses takes no other with it.
    const groups = new Map<string, string[]>();
    for (const [name, { events, policy, group }] of this.subscriptions) {
      const key = JSON.stringify([events, policy, group]);
      const names = groups.get(key);
      if (names) names.push(name);
      else groups.set(key, [name]);
    }
    for (const names of groups.values()) {
      const first = this.subscriptions.get(names[0]!)!;
      // One that is alone need not be sent alone again.
      if (names.length === 1) first.group = ++this.calls;
      this.sendSubscribes(names, first);
    }
    const { clientId } = this.options;
    if (groups.size === 0 && clientId !== undefined) this.send({ type: "subscribe", categories: [], clientId });
    this.ping();
  }

  /** Its answer comes after those to everything that was sent before. */
  private ping(): void {
    this.pingedCalls = this.calls;
    this.send({ type: "ping" });
  }

  /** The node has answered what was sent before the ping. */
  private ponged(): void {
    const missing = this.missing().filter(([, { call }]) => call <= this.pingedCalls);
    const together = missing.filter(([, { group }]) => group === GRANTED);
    if (together.length === 0) {
      this.acknowledged(missing.map(([name]) => name));
      return;
    }
    // They were refused together, for the sake of one maybe. Each is told by itself now, and after later reconnects.
    this.refusal = null;
    for (const [name, subscription] of together) {
      subscription.group = ++this.calls;
      this.sendSubscribes([name], subscription);
    }
    this.ping();
  }

  /** What the node, by its last acknowledgement, does not have. */
  private missing(): [string, Subscription][] {
    return [...this.subscriptions].filter(([name]) => !this.acked.has(name));
  }

  private received(data: unknown): void {
    this.lastMessageAt = Date.now();
    let message: NodeMessage | null;
    try {
      message = parseMessage(data);
    } catch (error) {
      this.report(new ClientError("malformed", `the node sent a malformed message: ${messageOf(error)}`, { cause: error }));
      return;
    }
    switch (message?.type) {
      case "event":
        this.deliver(message);
        break;
      case "ping":
        this.send({ type: "pong" });
        break;
      case "pong":
        this.ponged();
        break;
      case "subscription-ack":
        this.granted(message.data.categories);
        this.call("onAck", message.data);
        break;
      case "unsubscription-ack":
        this.has(message.data.categories);
        this.call("onAck", message.data);
        break;
      case "gap":
        this.call("onGap", message.data);
        break;
      case "error":
        this.refused(new ClientError("node", message.data.error));
        break;
    }
  }

  private refused(error: ClientError): void {
    this.refusal = error;
    if (this.current === ConnectionState.CONNECTED) this.lastError = error;
    this.report(error);
  }

  private deliver(event: AnyEvent): void {
    const limit = this.options.holdEvents ?? 1000;
    if (this.held === null) this.dispatch(event);
    else if (this.held.length < limit) this.held.push(event);
    else this.report(new ClientError("held", `${event.event}: ${limit} events are held already, and no handler is there`));
  }

  private dispatch(event: AnyEvent): void {
    this.handlers.dispatch(event, (error) => this.threw("a handler", error));
  }

  private granted(topics: readonly string[]): void {
    const hasAll = this.has(topics);
    for (const name of topics) {
      const subscription = this.subscriptions.get(name);
      if (subscription) subscription.group = GRANTED;
    }
    // A node's pong says the same. Stand-ins for one may know subscriptions only.
    if (hasAll) this.acknowledged([]);
  }

  /** Whether these, which the node says this connection has, are all. */
  private has(topics: readonly string[]): boolean {
    this.acked = new Set(topics);
    if (this.missing().length > 0) return false;
    this.refusal = null;
    if (this.current === ConnectionState.CONNECTED) this.lastError = null;
    return true;
  }

  private acknowledged(missing: readonly string[]): void {
    clearTimeout(this.connectTimer);
    this.attempts = 0;
    this.lastError = this.refusal;
    // A node says why. Whatever else leaves some out must not look as if it had not.
    if (missing.length > 0) this.lastError ??= new ClientError("node", `topics that the node has not taken: ${missing.join(", ")}`);
    this.setState(ConnectionState.CONNECTED);
  }

  /** The connection is gone, or taken for it. */
  private lost(code: number, reason: string, problem: string): void {
    this.drop();
    const what = problem || (reason ? `${code} ${reason}` : `${code}`);
    if (FINAL_CODES.has(code) || (code >= 4500 && code <= 4999)) {
      this.fail(new ClientError("connection", `the node closed the connection for good: ${what}`, { code }));
      return;
    }
    const { attempts = 5, baseMs = 1000, maxMs = 30_000, factor = 2, jitter = 0.5 } = this.options.reconnect ?? {};
    if (this.attempts >= attempts) {
      const tried = attempts > 0 ? ` after ${attempts} attempts to reconnect` : "";
      this.fail(new ClientError("connection", `no connection${tried}: ${what}`, { code }));
      return;
    }
    const pause = Math.min(maxMs, baseMs * factor ** this.attempts) * (1 - jitter * Math.random());
    this.attempts += 1;
    this.retryTimer = later(retryAfterMs(reason) ?? pause, () => this.attempt());
    const error = new ClientError("connection", `the connection was lost: ${what}`, { code });
    this.lastError = error;
    this.setState(ConnectionState.RECONNECTING);
    this.report(error);
  }

  private fail(error: ClientError): void {
    this.lastError = error;
    this.setState(ConnectionState.FAILED);
    this.report(error);
  }

  /** Lets go of the socket and of everything that was to happen for it. */
  private drop(): void {
    clearTimeout(this.retryTimer);
    clearTimeout(this.connectTimer);
    clearTimeout(this.silenceTimer);
    const socket = this.socket;
    if (socket === null) return;
    this.socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Not null: `ws` throws errors for which nobody listens, and closing early is one.
    socket.onerror = () => {};
    try {
      socket.close(NORMAL_CLOSURE);
    } catch {
      // It is closed already.
    }
  }

  /** A node that says nothing for so long is gone, whatever the socket says. */
  private watchSilence(): void {
    const limit = this.options.silenceMs ?? 75_000;
    this.lastMessageAt = Date.now();
    const check = (): void => {
      const left = this.lastMessageAt + limit - Date.now();
      if (left > 0) this.silenceTimer = later(left, check);
      else this.lost(1006, "", `the node was silent for ${limit} ms`);
    };
    this.silenceTimer = later(limit, check);
  }

  private sendSubscribes(names: readonly string[], { events, policy }: SubscribeOptions): void {
    const { clientId } = this.options;
    // Members that are `undefined` are left out of the text.
    const message = { type: "subscribe", categories: [], events, policy, clientId };
    for (const categories of chunks(names, message)) this.send({ ...message, categories });
  }

  private send(message: unknown): void {
    if (this.socket?.readyState === OPEN) this.socket.send(JSON.stringify(message));
  }

  // Telling the owner

  private setState(state: ConnectionState): void {
    if (state === this.current) return;
    this.current = state;
    this.call("onState", state);
  }

  private call<N extends "onState" | "onGap" | "onAck">(name: N, value: Parameters<NonNullable<ClientOptions[N]>>[0]): void {
    if (this.isQuiet) {
      this.untold.push(() => this.call(name, value));
      return;
    }
    this.tellUntold();
    try {
      (this.options[name] as ((value: unknown) => void) | undefined)?.(value);
    } catch (error) {
      this.threw(name, error);
    }
  }

  private threw(who: string, error: unknown): void {
    this.report(new ClientError("handler", `${who} threw: ${messageOf(error)}`, { cause: error }));
  }

  private report(error: ClientError): void {
    if (this.isQuiet) {
      this.untold.push(() => this.report(error));
      return;
    }
    this.tellUntold();
    try {
      if (this.options.onError) this.options.onError(error);
      else console.error(error);
    } catch (another) {
      console.error(another, "thrown by onError for", error);
    }
  }
}

/**
 * Splits topics so that `message`, which is that with no topics, is not too long with any of the parts. A topic that is
 * too long by itself goes alone: it is the node that says so.
 */
function chunks(names: readonly string[], message: unknown): string[][] {
  const empty = bytesOf(message);
  const parts: string[][] = [];
  let bytes = Infinity;
  for (const name of names) {
    // With its comma.
    const more = bytesOf(name) + 1;
    bytes += more;
    if (bytes > MAX_MESSAGE_BYTES) {
      parts.push([]);
      bytes = empty + more;
    }
    parts[parts.length - 1]!.push(name);
  }
  return parts;
}

const encoder = new TextEncoder();

/** How long it is in a message. */
function bytesOf(value: unknown): number {
  return encoder.encode(JSON.stringify(value)).length;
}

/** The pause that the node asks for in a close, in milliseconds. */
function retryAfterMs(reason: string): number | undefined {
  try {
    const { retryAfterMs: pause } = JSON.parse(reason);
    return typeof pause === "number" && pause >= 0 ? pause : undefined;
  } catch {
    return undefined;
  }
}

function later(ms: number, then: () => void): ReturnType<typeof setTimeout> {
  return setTimeout(then, Math.min(ms, MAX_TIMEOUT_MS));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
