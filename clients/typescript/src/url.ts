/** What a connection is scoped to. The node subscribes it to `run:R`, `project:P`, `user:U` and `global`. */
export interface Scope {
  runId?: string | undefined;
  projectId?: string | undefined;
  userId?: string | undefined;
}

/** The topics that a node subscribes a connection of this scope to. */
export function scopeTopics({ runId, projectId, userId }: Scope): string[] {
  const topics = [];
  if (runId) topics.push(`run:${runId}`);
  if (projectId) topics.push(`project:${projectId}`);
  if (userId) topics.push(`user:${userId}`);
  if (topics.length > 0) topics.push("global");
  return topics;
}

/**
 * Where to connect to: `given`, else what the build was configured with, else the page's own host. With the scope in the query.
 *
 * Throws an `Error` where none of these is there or what is there is no address.
 */
export function resolveUrl(given: string | undefined, scope: Scope): string {
  const text = given || viteUrl() || createReactAppUrl() || pageUrl();
  if (!text) throw new Error("no `url` was given, and there is no page to take it from");
  let url: URL;
  try {
    url = new URL(text, pageUrl());
  } catch {
    throw new Error(`${JSON.stringify(text)} is no address to connect to`);
  }
  // What a page or a setting calls https is wss here.
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new Error(`${JSON.stringify(text)} is not ws: or wss:`);
  // A WebSocket's address has no fragment; browsers refuse one that does.
  url.hash = "";
  for (const name of ["runId", "projectId", "userId"] as const) {
    const value = scope[name];
    if (value) url.searchParams.set(name, value);
  }
  return url.href;
}

// Bundlers replace the two expressions below by text when they find them exactly as they stand. Without a bundler
// `import.meta.env` or `process` may not exist; asking first (`typeof process`) would hide the replaced text where it does not.

function viteUrl(): string | undefined {
  try {
    return (import.meta as unknown as { env: { VITE_WEBSOCKET_URL?: string } }).env.VITE_WEBSOCKET_URL;
  } catch {
    return undefined;
  }
}

declare const process: { env: { REACT_APP_WEBSOCKET_URL?: string } };

function createReactAppUrl(): string | undefined {
  try {
    return process.env.REACT_APP_WEBSOCKET_URL;
  } catch {
    return undefined;
  }
}

function pageUrl(): string | undefined {
  // Of a page opened from a file, or of a worker made from a blob, the host is empty.
  if (typeof location === "undefined" || !location.host) return undefined;
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`;
}
