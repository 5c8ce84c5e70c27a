/** An event, as a node sends it. */
export interface AnyEvent {
  type: "event";
  event: string;
  /** The event's first topic. */
  category: string;
  data: unknown;
  /** ISO 8601, UTC, milliseconds. */
  timestamp: string;
  /** What this client calls itself, where it gave a name. */
  clientId?: string;
}

/** The event `N` of the catalog `E`, an interface that maps names of events to their data. */
export interface CatalogEvent<E, N extends keyof E & string> extends AnyEvent {
  event: N;
  data: E[N];
}

/** Every event of the catalog `E` whose name is in `N`, as a union that `event.event` tells apart. */
export type EventOf<E, N extends keyof E & string = keyof E & string> = { [K in N]: CatalogEvent<E, K> }[N];

/** The categories of the catalog `E`: which events are in each. */
export type Categories<E> = Readonly<Record<string, readonly (keyof E & string)[]>>;

/** The events in the category `K`. */
export type CategoryEvent<E, C extends Categories<E>, K extends keyof C> = EventOf<E, C[K][number]>;

/** What takes an event. What it returns is ignored, except that a promise's rejection counts as an error. */
export type EventHandler<T extends AnyEvent = AnyEvent> = (event: T) => void;

/** Whom an event is for: everyone, or the subscribers of a run, a project, a user and further topics. */
export type Target =
  | "all"
  | { run?: string | undefined; project?: string | undefined; user?: string | undefined; topics?: string[] | undefined };

/** What the publish helpers of the catalogs write to. */
export interface Publisher {
  /** Resolves when the node has accepted the event. */
  publish(target: Target, category: string, event: string, data: unknown): Promise<void>;
}

/** The topics of an event: its category first, then those of its target. */
export function topicsOf(target: Target, category: string): string[] {
  const topics = [category];
  if (target === "all") {
    topics.push("global");
  } else {
    if (target.run !== undefined) topics.push(`run:${target.run}`);
    if (target.project !== undefined) topics.push(`project:${target.project}`);
    if (target.user !== undefined) topics.push(`user:${target.user}`);
    topics.push(...(target.topics ?? []));
  }
  return [...new Set(topics)];
}
