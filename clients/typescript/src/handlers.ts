import type { AnyEvent, EventHandler } from "./events.js";

/** Handlers by event name, by category and for all, and what runs them. One that throws harms no other. */
export class Handlers {
  private readonly byEvent = new Map<string, Set<EventHandler>>();
  private readonly byCategory = new Map<string, Set<EventHandler>>();
  private readonly forAll = new Set<EventHandler>();

  /** `categoriesOf` names the categories of an event besides the one it was published in. */
  constructor(private readonly categoriesOf: (event: string) => readonly string[] = () => []) {}

  /** Adding the same handler again changes nothing. */
  addForEvent(name: string, handler: EventHandler): () => void {
    return addTo(this.byEvent, name, handler);
  }

  addForCategory(name: string, handler: EventHandler): () => void {
    return addTo(this.byCategory, name, handler);
  }

  addForAll(handler: EventHandler): () => void {
    this.forAll.add(handler);
    return () => void this.forAll.delete(handler);
  }

  removeForEvent(name: string, handler: EventHandler): void {
    removeFrom(this.byEvent, name, handler);
  }

  removeForCategory(name: string, handler: EventHandler): void {
    removeFrom(this.byCategory, name, handler);
  }

  eventNames(): IterableIterator<string> {
    return this.byEvent.keys();
  }

  categoryNames(): IterableIterator<string> {
    return this.byCategory.keys();
  }

  dispatch(event: AnyEvent, onThrow: (error: unknown) => void): void {
    // All of them before the first is called: a handler may add and remove handlers. Each is called once, also where
    // it was added in several places.
    const handlers = new Set(this.byEvent.get(event.event));
    for (const name of new Set([event.category, ...this.categoriesOf(event.event)])) {
      for (const handler of this.byCategory.get(name) ?? []) handlers.add(handler);
    }
    for (const handler of this.forAll) handlers.add(handler);
    for (const handler of handlers) run(handler, event, onThrow);
  }
}

function run(handler: EventHandler, event: AnyEvent, onThrow: (error: unknown) => void): void {
  try {
    const result: unknown = handler(event);
    if (result instanceof Promise) result.catch(onThrow);
  } catch (error) {
    onThrow(error);
  }
}

function addTo(map: Map<string, Set<EventHandler>>, name: string, handler: EventHandler): () => void {
  let handlers = map.get(name);
  if (handlers === undefined) map.set(name, (handlers = new Set()));
  handlers.add(handler);
  return () => removeFrom(map, name, handler);
}

function removeFrom(map: Map<string, Set<EventHandler>>, name: string, handler: EventHandler): void {
  const handlers = map.get(name);
  if (handlers?.delete(handler) && handlers.size === 0) map.delete(name);
}
