import { topicsOf, type Publisher, type Target } from "./events.js";

export interface HttpPublisherOptions {
  /** Where the node serves HTTP, such as `http://127.0.0.1:8080`. A path before `/api/publish` is kept. */
  url: string;
  /** The node's `publish_token`. */
  token?: string | undefined;
  /** Instead of the global `fetch`. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
}

/** What is asked for besides that the node accepts an event. */
export interface PublishOptions {
  /** To be told how far it went: the promise then resolves once the event has been flushed to all who get it. */
  receipt?: boolean | undefined;
  /**
   * 1 to 255 bytes, yours alone, and another for each event: what comes again under the same key within the node's
   * `idempotency_window` is accepted and not published. So an event whose answer was lost can be sent again.
   */
  idempotencyKey?: string | undefined;
}

/** How far an event went: numbers of clients. What was queued then may still be written, left out or lost. */
export interface Receipt {
  /** Whom it was for. */
  matched: number;
  /** Whose kernel has taken it. */
  written: number;
  /** For whom it waited. */
  queued: number;
  /** For whom it was left out, by the policy of their subscription. */
  leftOut: number;
  /** Who were closed while it waited for them. */
  closed: number;
}

/** What the node says of an event that it accepted. */
export interface Published {
  /** Whether it was published before under its `idempotencyKey`, and now was not. */
  duplicate: boolean;
  /** If it was asked for, and of a duplicate, if the first time asked for it and it is complete. */
  receipt: Receipt | undefined;
}

/** A {@link Publisher} that can tell more. */
export interface HttpPublisher extends Publisher {
  publish(target: Target, category: string, event: string, data: unknown): Promise<void>;
  publish(target: Target, category: string, event: string, data: unknown, options: PublishOptions): Promise<Published>;
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
export function httpPublisher(options: HttpPublisherOptions): HttpPublisher {
  const url = `${options.url.replace(/\/+$/, "")}/api/publish`;
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (options.token !== undefined) headers["Authorization"] = `Bearer ${options.token}`;
  async function publish(target: Target, category: string, event: string, data: unknown): Promise<void>;
  async function publish(target: Target, category: string, event: string, data: unknown, more: PublishOptions): Promise<Published>;
  async function publish(target: Target, category: string, event: string, data: unknown, more?: PublishOptions): Promise<Published | void> {
    const body = JSON.stringify({ topics: topicsOf(target, category), event, data });
    const key = more?.idempotencyKey;
    // Called as a plain function: browsers refuse a `fetch` that is called as a method of something else.
    const send = options.fetch ?? fetch;
    const response = await send(more?.receipt ? `${url}?receipt=1` : url, {
      method: "POST",
      headers: key === undefined ? headers : { ...headers, "Idempotency-Key": key },
      body,
    });
    const answer = await response.text();
    if (!response.ok) throw refusal(response.status, answer);
    if (more !== undefined) return published(response.status, answer);
  }
  return { publish };
}

function published(status: number, answer: string): Published {
  try {
    const { duplicate, receipt } = JSON.parse(answer);
    return { duplicate: duplicate === true, receipt };
  } catch {
    throw new PublishError(`this is no answer of a node: ${answer.trim()}`, status);
  }
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
