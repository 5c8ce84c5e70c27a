// What a node sends, and guards for each of it. A guard checks the whole shape, so that what it lets through is safe to use.
import type { AnyEvent } from "./events.js";

/** Where a topic with history stands. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface AckData {
  /** All of the client's topics, in the order they were subscribed. */
  categories: string[];
  positions?: Record<string, Position>;
  recovered?: boolean;
  missing?: Record<string, { from: number; to: number } | null>;
}

export interface GapData {
  topic: string;
  /** How many of its events were left out here. */
  dropped: number;
  /** How many of these a newer event of the same key replaced. */
  conflated?: number;
}

export interface SubscriptionAck {
  type: "subscription-ack";
  timestamp: string;
  data: AckData;
}

export interface UnsubscriptionAck {
  type: "unsubscription-ack";
  timestamp: string;
  data: AckData;
}

export interface Ping {
  type: "ping";
  timestamp: string;
}

export interface Pong {
  type: "pong";
  timestamp: string;
}

export interface Gap {
  type: "gap";
  timestamp: string;
  data: GapData;
}

export interface ErrorMessage {
  type: "error";
  timestamp: string;
  data: { error: string };
}

export interface PublishAck {
  type: "publish-ack";
  timestamp?: string;
  id?: unknown;
}

export type NodeMessage =
  | AnyEvent
  | SubscriptionAck
  | UnsubscriptionAck
  | Ping
  | Pong
  | Gap
  | ErrorMessage
  | PublishAck;

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasType(value: unknown, type: string): value is Fields {
  return isFields(value) && value["type"] === type && typeof value["timestamp"] === "string";
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}

export function isEvent(value: unknown): value is AnyEvent {
  return (
    hasType(value, "event") &&
    typeof value["event"] === "string" &&
    typeof value["category"] === "string" &&
    "data" in value &&
    (value["clientId"] === undefined || typeof value["clientId"] === "string")
  );
}

function isAck(value: unknown, type: string): boolean {
  return hasType(value, type) && isFields(value["data"]) && isStrings(value["data"]["categories"]);
}

export function isSubscriptionAck(value: unknown): value is SubscriptionAck {
  return isAck(value, "subscription-ack");
}

export function isUnsubscriptionAck(value: unknown): value is UnsubscriptionAck {
  return isAck(value, "unsubscription-ack");
}

export function isPing(value: unknown): value is Ping {
  return hasType(value, "ping");
}

export function isPong(value: unknown): value is Pong {
  return hasType(value, "pong");
}

export function isGap(value: unknown): value is Gap {
  if (!hasType(value, "gap") || !isFields(value["data"])) return false;
  const { topic, dropped } = value["data"];
  return typeof topic === "string" && typeof dropped === "number";
}

export function isErrorMessage(value: unknown): value is ErrorMessage {
  return hasType(value, "error") && isFields(value["data"]) && typeof value["data"]["error"] === "string";
}

export function isPublishAck(value: unknown): value is PublishAck {
  return isFields(value) && value["type"] === "publish-ack";
}

/** The guard of each type. */
const GUARDS: Readonly<Record<NodeMessage["type"], (value: unknown) => boolean>> = {
  event: isEvent,
  "subscription-ack": isSubscriptionAck,
  "unsubscription-ack": isUnsubscriptionAck,
  ping: isPing,
  pong: isPong,
  gap: isGap,
  error: isErrorMessage,
  "publish-ack": isPublishAck,
};

export function isNodeMessage(value: unknown): value is NodeMessage {
  if (!isFields(value) || typeof value["type"] !== "string") return false;
  const { type } = value;
  return Object.hasOwn(GUARDS, type) && GUARDS[type as NodeMessage["type"]](value);
}

/**
 * Reads what came in a frame. `null` for a type that this version does not know: later nodes may send some.
 *
 * Throws an `Error` that says what is malformed.
 */
export function parseMessage(data: unknown): NodeMessage | null {
  if (typeof data !== "string") throw new Error("a binary message");
  const value: unknown = JSON.parse(data);
  if (isNodeMessage(value)) return value;
  if (!isFields(value) || typeof value["type"] !== "string") throw new Error("not an object with a `type`");
  if (Object.hasOwn(GUARDS, value["type"])) throw new Error(`not the shape of a message of type ${value["type"]}`);
  return null;
}
