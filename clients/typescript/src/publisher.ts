import { topicsOf, type Publisher } from "./events.js";

export interface HttpPublisherOptions {
  /** Where the node serves HTTP, such as `http://127.0.0.1:8080`. A path before `/api/publish` is kept. */
  url: string;
  /** The node's `publish_token`. */
  token?: string | undefined;
  /** Instead of the global `fetch`. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
}

/** The node did not accept an event. */
export class PublishError extends Error {
  override readonly name = "PublishError";
  /** The HTTP status. */
  readonly status: number;
  /** The node's error code, where it gave one. */
  readonly code: number | undefined;

  constructor(message: string, status: number, code?: number) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Publishes with `POST /api/publish`. */
export function httpPublisher(options: HttpPublisherOptions): Publisher {
  const url = `${options.url.replace(/\/+$/, "")}/api/publish`;
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (options.token !== undefined) headers["Authorization"] = `Bearer ${options.token}`;
  return {
    async publish(target, category, event, data) {
      const body = JSON.stringify({ topics: topicsOf(target, category), event, data });
      // Called as a plain function: browsers refuse a `fetch` that is called as a method of something else.
      const send = options.fetch ?? fetch;
      const response = await send(url, { method: "POST", headers, body });
      const answer = await response.text();
      if (!response.ok) throw refusal(response.status, answer);
    },
  };
}

function refusal(status: number, answer: string): PublishError {
  try {
    const { error, errors } = JSON.parse(answer);
    const first = errors?.[0];
    if (typeof first?.message === "string") return new PublishError(first.message, status, first.code);
    if (typeof error === "string") return new PublishError(error, status);
  } catch {
    // Not the node's JSON: a proxy's page, perhaps. The text itself has to do.
  }
  return new PublishError(answer.trim() || `the node answered ${status}`, status);
}
