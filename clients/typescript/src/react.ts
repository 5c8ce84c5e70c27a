import { useEffect, useState, useSyncExternalStore } from "react";
import { runsCategories, type RunsEvents } from "./catalogs/runs.js";
import { Client, ClientError, ConnectionState, type Policy, type WebSocketConstructor } from "./client.js";
import type { CatalogEvent, Categories, CategoryEvent, EventHandler } from "./events.js";
import { Handlers } from "./handlers.js";
import type { GapData } from "./messages.js";
import { scopeTopics, type Scope } from "./url.js";

export { ConnectionState, type EventHandler };

export interface UseEventsOptions extends Scope {
  /** Further topics. */
  topics?: readonly string[] | undefined;
  /** As for `connect`. */
  url?: string | undefined;
  clientId?: string | undefined;
  /** The policy of all topics of this hook. `onGap` is called for `"drop-oldest"` only. */
  policy?: Policy | undefined;
  WebSocket?: WebSocketConstructor | undefined;
  /** Whether to connect on mount, and not only when `reconnect()` is called. `true` by default. */
  autoConnect?: boolean | undefined;
  /** 5 by default. */
  maxReconnectAttempts?: number | undefined;
  /** The pause before the first attempt, in milliseconds; each later one is twice as long. 1000 by default. */
  reconnectDelay?: number | undefined;
  /** The longest pause. 30000 by default. */
  maxReconnectDelay?: number | undefined;
  onConnect?: (() => void) | undefined;
  onDisconnect?: (() => void) | undefined;
  onStateChange?: ((state: ConnectionState) => void) | undefined;
  /** Whatever goes wrong, errors of handlers included. Without it errors go to the console. */
  onError?: ((error: ClientError) => void) | undefined;
  onGap?: ((gap: GapData) => void) | undefined;
}

export interface UseEventsReturn<E, C extends Categories<E>> {
  isConnected: boolean;
  connectionState: ConnectionState;
  /** Why there is no connection, or what the node refused last; `null` again once it is connected and has every topic. */
  error: Error | null;
  /** Returns what unsubscribes. */
  subscribe: <N extends keyof E & string>(eventType: N, handler: EventHandler<CatalogEvent<E, N>>) => () => void;
  unsubscribe: <N extends keyof E & string>(eventType: N, handler: EventHandler<CatalogEvent<E, N>>) => void;
  /** Returns what unsubscribes. */
  subscribe_category: <K extends keyof C & string>(
    category: K,
    handler: EventHandler<CategoryEvent<E, C, K>>,
  ) => () => void;
  unsubscribe_category: <K extends keyof C & string>(
    category: K,
    handler: EventHandler<CategoryEvent<E, C, K>>,
  ) => void;
  /** Connects at once, with all attempts before it. */
  reconnect: () => void;
  /** Closes, and stays closed until `reconnect()`. */
  disconnect: () => void;
}

/**
 * A hook like `useRunEvents` for another catalog:
 *
 *     const useWorkflowEvents = createEventHook<WorkflowEvents, typeof workflowCategories>(workflowCategories);
 */
export function createEventHook<E, C extends Categories<E>>(
  categories: C,
): (options?: UseEventsOptions) => UseEventsReturn<E, C> {
  return (options = {}) => useEvents(categories, options);
}

export type UseRunEventsOptions = UseEventsOptions;
export type UseRunEventsReturn = UseEventsReturn<RunsEvents, typeof runsCategories>;

/** The events of runs. Of one run, project or user where the options name it. */
export const useRunEvents: (options?: UseRunEventsOptions) => UseRunEventsReturn = createEventHook<
  RunsEvents,
  typeof runsCategories
>(runsCategories);

function useEvents<E, C extends Categories<E>>(categories: C, options: UseEventsOptions): UseEventsReturn<E, C> {
  const [connection] = useState(() => new Connection(categories, options));
  const { state, error } = useSyncExternalStore(connection.onChange, connection.snapshot, connection.snapshot);

  // Callbacks and pauses may be others at each render; those of the newest count when they are needed.
  useEffect(() => {
    connection.options = options;
  });

  // What a connection is for. Only a change of these makes another one.
  const { runId, projectId, userId, url, clientId, policy, autoConnect = true } = options;
  const topics = options.topics?.join("\n");
  useEffect(() => {
    connection.mount(autoConnect);
    return connection.unmount;
  }, [connection, runId, projectId, userId, topics, url, clientId, policy, autoConnect]);

  return {
    isConnected: state === ConnectionState.CONNECTED,
    connectionState: state,
    error,
    ...(connection.calls as unknown as Calls<E, C>),
  };
}

type Calls<E, C extends Categories<E>> = Omit<UseEventsReturn<E, C>, "isConnected" | "connectionState" | "error">;

interface Snapshot {
  state: ConnectionState;
  error: Error | null;
}

/** A node takes no longer filters. */
const MAX_FILTER = 100;

/** What a component's hook keeps from render to render. Handlers outlive the clients that come and go with the scope. */
class Connection {
  private readonly handlers: Handlers;
  private readonly listeners = new Set<() => void>();
  private client: Client | null = null;
  private mounted = false;
  private autoConnect: boolean | undefined;
  /** Whether there is to be a connection while mounted. */
  private wanted = false;
  /** What the client is subscribed to for the handlers, with the filter of each as text. */
  private applied = new Map<string, string>();
  private isSyncDue = false;
  private now: Snapshot = { state: ConnectionState.DISCONNECTED, error: null };

  /** The categories of each event of the catalog. */
  private readonly categoriesOf = new Map<string, string[]>();

  constructor(
    categories: Readonly<Record<string, readonly string[]>>,
    public options: UseEventsOptions,
  ) {
    for (const [category, events] of Object.entries(categories)) {
      for (const event of events) this.categoriesOf.set(event, [...(this.categoriesOf.get(event) ?? []), category]);
    }
    this.handlers = new Handlers((event) => this.categoriesOf.get(event) ?? []);
  }

  readonly onChange = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  };

  readonly snapshot = (): Snapshot => this.now;

  /** The functions that the hook returns: the same ones at each render. */
  readonly calls = {
    subscribe: (eventType: string, handler: EventHandler): (() => void) => {
      this.handlers.addForEvent(eventType, handler);
      this.syncSoon();
      return () => this.calls.unsubscribe(eventType, handler);
    },
    unsubscribe: (eventType: string, handler: EventHandler): void => {
      this.handlers.removeForEvent(eventType, handler);
      this.syncSoon();
    },
    subscribe_category: (category: string, handler: EventHandler): (() => void) => {
      this.handlers.addForCategory(category, handler);
      this.syncSoon();
      return () => this.calls.unsubscribe_category(category, handler);
    },
    unsubscribe_category: (category: string, handler: EventHandler): void => {
      this.handlers.removeForCategory(category, handler);
      this.syncSoon();
    },
    reconnect: (): void => {
      this.wanted = true;
      if (this.client) this.client.reconnect();
      else if (this.mounted) this.open();
    },
    disconnect: (): void => {
      this.wanted = false;
      this.close();
    },
  };

  mount(autoConnect: boolean): void {
    this.mounted = true;
    // A new value decides. Otherwise it stays at what the component has asked for since.
    if (autoConnect !== this.autoConnect) this.wanted = autoConnect;
    this.autoConnect = autoConnect;
    // Not at once: StrictMode unmounts and mounts again before anything else runs, and needs no connection for that.
    queueMicrotask(() => {
      if (this.mounted && this.wanted && this.client === null) this.open();
    });
  }

  readonly unmount = (): void => {
    this.mounted = false;
    this.close();
  };

  private open(): void {
    const { runId, projectId, userId, topics = [], url, clientId, policy, WebSocket } = this.options;
    const { maxReconnectAttempts: attempts, reconnectDelay: baseMs, maxReconnectDelay: maxMs } = this.options;
    const client: Client = new Client(
      {
        ...{ runId, projectId, userId, url, clientId, policy, WebSocket },
        reconnect: { attempts, baseMs, maxMs },
        onState: (state) => {
          // That of one that was let go is nobody's business.
          if (client === this.client) this.become(state, client.error);
        },
        onError: (error) => this.failed(client, error),
        onGap: (gap) => this.options.onGap?.(gap),
        // What was refused may have been taken now, or left.
        onAck: () => {
          if (client === this.client && client.state === ConnectionState.CONNECTED) this.set({ state: client.state, error: client.error });
        },
      },
      this.handlers,
    );
    client.subscribe(topics, { policy });
    this.client = client;
    this.applied.clear();
    this.sync();
    client.open();
  }

  private close(): void {
    const client = this.client;
    if (client === null) return;
    // First: a callback may open another one.
    this.client = null;
    client.close();
    try {
      this.become(ConnectionState.DISCONNECTED, null);
    } catch (cause) {
      this.report(new ClientError("handler", `a callback threw: ${String(cause)}`, { cause }));
    }
  }

  private become(state: ConnectionState, error: Error | null): void {
    const before = this.now.state;
    this.set({ state, error });
    // One that throws does not keep the next from being called.
    try {
      if (state === ConnectionState.CONNECTED) this.options.onConnect?.();
      else if (before === ConnectionState.CONNECTED) this.options.onDisconnect?.();
    } finally {
      this.options.onStateChange?.(state);
    }
  }

  private failed(client: Client, error: ClientError): void {
    if (client === this.client && (error.kind === "connection" || error.kind === "node")) {
      this.set({ state: client.state, error });
    }
    this.report(error);
  }

  private report(error: ClientError): void {
    try {
      if (this.options.onError) this.options.onError(error);
      else console.error(error);
    } catch (another) {
      console.error(another, "thrown by onError for", error);
    }
  }

  private set(next: Snapshot): void {
    if (next.state === this.now.state && next.error === this.now.error) return;
    this.now = next;
    for (const listener of [...this.listeners]) listener();
  }

  // Topics

  /** Once for all handlers that one effect, or one removed and added again, brings. */
  private syncSoon(): void {
    if (this.isSyncDue) return;
    this.isSyncDue = true;
    queueMicrotask(() => {
      this.isSyncDue = false;
      this.sync();
    });
  }

  /** Subscribes to what the handlers need and unsubscribes from what none needs any more. */
  private sync(): void {
    if (this.client === null) return;
    const wanted = this.wantedTopics();
    const unneeded = [...this.applied.keys()].filter((topic) => !wanted.has(topic));
    for (const topic of unneeded) this.applied.delete(topic);
    this.client.unsubscribe(unneeded);
    for (const [topic, names] of wanted) {
      const events = names && names.size <= MAX_FILTER ? [...names].sort() : undefined;
      const filter = JSON.stringify(events ?? null);
      if (this.applied.get(topic) === filter) continue;
      this.applied.set(topic, filter);
      this.client.subscribe(topic, { events, policy: this.options.policy });
    }
  }

  /** The topics that are the handlers' matter, each with the event names that are needed of it; `null` for all. */
  private wantedTopics(): Map<string, Set<string> | null> {
    const wanted = new Map<string, Set<string> | null>();
    // With a scope its topics bring what the handlers choose from. The topic of a category would bring everyone's.
    if (scopeTopics(this.options).length > 0 || this.options.topics?.length) return wanted;
    wanted.set("global", null);
    for (const category of this.handlers.categoryNames()) wanted.set(category, null);
    for (const event of this.handlers.eventNames()) {
      for (const category of this.categoriesOf.get(event) ?? []) {
        const names = wanted.get(category);
        if (names === undefined) wanted.set(category, new Set([event]));
        else names?.add(event);
      }
    }
    return wanted;
  }
}
