// Made by `fanwire generate typescript` from the catalog `conductor`: change that, not this.

import type { AnyEvent, CatalogEvent, Publisher, Target } from "../events.js";

/** A retry attempt was initiated. */
export interface RetryStartedData {
  /** Which retry (not empty). */
  retryId: string;
  /** Which attempt (at least 0). */
  attemptNumber: number;
  /** What went wrong before. */
  errorMessage?: string;
  /** After how many attempts it gives up (at least 0). */
  maxAttempts?: number;
  /** When the next attempt is due, if there is to be one (date-time). */
  nextRetryAt?: string | null;
}

/** A retry attempt was completed. */
export interface RetryCompletedData {
  /** Which retry (not empty). */
  retryId: string;
  /** Which attempt (at least 0). */
  attemptNumber?: number;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** What went wrong, where it failed. */
  errorMessage?: string | null;
  /** Whether it succeeded. */
  success?: boolean;
}

/** An error has been resolved. */
export interface ErrorResolvedData {
  /** Which error (not empty). */
  errorId: string;
  /** How it was resolved. */
  resolution?: string;
  /** When (date-time). */
  resolvedAt?: string;
  /** Who or what resolved it. */
  resolvedBy?: string;
  /** The retry that resolved it (not empty). */
  retryId?: string;
}

/** A circuit breaker changed its state. */
export interface CircuitBreakerStateChangedData {
  /** The state now: closed, open or half-open (not empty). */
  newState: string;
  /** Which breaker (not empty). */
  circuitBreakerId?: string;
  /** Failures that it has counted (at least 0). */
  failureCount?: number;
  /** When an open breaker lets a call through again (date-time). */
  nextAttemptAt?: string | null;
  /** The state before: closed, open or half-open. */
  previousState?: string;
  /** What the breaker protects (not empty). */
  service?: string;
}

/** The execution of a schedule started. */
export interface ScheduleExecutedData {
  /** Which schedule (not empty). */
  scheduleId: string;
  /** When it started (date-time). */
  executedAt?: string;
  /** Which execution (not empty). */
  executionId?: string;
  /** When the schedule is due again (date-time). */
  nextRunAt?: string | null;
}

/** An execution finished. */
export interface ExecutionCompletedData {
  /** Which execution (not empty). */
  executionId: string;
  /** When it ended (date-time). */
  completedAt?: string;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** What went wrong, where it failed. */
  errorMessage?: string | null;
  /** The schedule that it belongs to (not empty). */
  scheduleId?: string;
  /** How it ended. */
  status?: string;
  /** Whether it succeeded. */
  success?: boolean;
}

/** A new schedule was created. */
export interface ScheduleCreatedData {
  /** Which schedule (not empty). */
  scheduleId: string;
  /** Who made it. */
  createdBy?: string;
  /** When it is due. */
  cronExpression?: string;
  /** Whether it runs. */
  enabled?: boolean;
  /** Its name. */
  name?: string;
  /** When it is first due (date-time). */
  nextRunAt?: string | null;
  /** The time zone of that. */
  timezone?: string;
}

/** A schedule was removed. */
export interface ScheduleDeletedData {
  /** Which schedule (not empty). */
  scheduleId: string;
  /** Who removed it. */
  deletedBy?: string;
  /** Why. */
  reason?: string;
}

/** A delivery succeeded. */
export interface WebhookDeliveredData {
  /** Which webhook (not empty). */
  webhookId: string;
  /** Which attempt (at least 0). */
  attemptNumber?: number;
  /** Which delivery (not empty). */
  deliveryId?: string;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** The HTTP status of the answer (100 to 599). */
  statusCode?: number;
  /** Where it went. */
  url?: string;
}

/** A delivery failed. */
export interface WebhookFailedData {
  /** Which webhook (not empty). */
  webhookId: string;
  /** Which attempt (at least 0). */
  attemptNumber?: number;
  /** Which delivery (not empty). */
  deliveryId?: string;
  /** What went wrong. */
  errorMessage?: string;
  /** When the next attempt is due, if there is to be one (date-time). */
  nextRetryAt?: string | null;
  /** The HTTP status of the answer, if there was one (100 to 599). */
  statusCode?: number | null;
  /** Where it should have gone. */
  url?: string;
}

/** A new webhook was registered. */
export interface WebhookRegisteredData {
  /** Which webhook (not empty). */
  webhookId: string;
  /** Whether it is called. */
  active?: boolean;
  /** What it is called for. */
  events?: string[];
  /** Where it delivers to. */
  url?: string;
}

/** A message was added to the queue. */
export interface EntryAddedData {
  /** Which entry (not empty). */
  entryId: string;
  /** How often it was tried (at least 0). */
  attempts?: number;
  /** What went wrong. */
  errorMessage?: string;
  /** The message itself. */
  payload?: unknown;
  /** The queue that it came from. */
  queue?: string;
  /** What failed with it. */
  source?: string;
}

/** An entry was resolved. */
export interface EntryResolvedData {
  /** Which entry (not empty). */
  entryId: string;
  /** How it was resolved. */
  resolution?: string;
  /** When (date-time). */
  resolvedAt?: string;
  /** Who resolved it. */
  resolvedBy?: string;
}

/** An entry was submitted again. */
export interface EntryResubmittedData {
  /** Which entry (not empty). */
  entryId: string;
  /** What it became (not empty). */
  newJobId?: string;
  /** When (date-time). */
  resubmittedAt?: string;
  /** Who submitted it. */
  resubmittedBy?: string;
}

/** Error recovery, schedules, webhooks and dead letters of a workflow service: the data of each event. */
export interface ConductorEvents {
  "retry-started": RetryStartedData;
  "retry-completed": RetryCompletedData;
  "error-resolved": ErrorResolvedData;
  "circuit-breaker-state-changed": CircuitBreakerStateChangedData;
  "schedule-executed": ScheduleExecutedData;
  "execution-completed": ExecutionCompletedData;
  "schedule-created": ScheduleCreatedData;
  "schedule-deleted": ScheduleDeletedData;
  "webhook-delivered": WebhookDeliveredData;
  "webhook-failed": WebhookFailedData;
  "webhook-registered": WebhookRegisteredData;
  "entry-added": EntryAddedData;
  "entry-resolved": EntryResolvedData;
  "entry-resubmitted": EntryResubmittedData;
}

/** The events of each category. */
export const conductorCategories = {
  "error-recovery": ["retry-started", "retry-completed", "error-resolved", "circuit-breaker-state-changed"],
  "scheduler": ["schedule-executed", "execution-completed", "schedule-created", "schedule-deleted"],
  "webhook": ["webhook-delivered", "webhook-failed", "webhook-registered"],
  "dlq": ["entry-added", "entry-resolved", "entry-resubmitted"],
} as const;

export function isRetryStarted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "retry-started"> {
  return event.event === "retry-started";
}

/** Publishes `retry-started`: a retry attempt was initiated. */
export function broadcastRetryStarted(publisher: Publisher, target: Target, data: RetryStartedData): Promise<void> {
  return publisher.publish(target, "error-recovery", "retry-started", data);
}

export function isRetryCompleted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "retry-completed"> {
  return event.event === "retry-completed";
}

/** Publishes `retry-completed`: a retry attempt was completed. */
export function broadcastRetryCompleted(publisher: Publisher, target: Target, data: RetryCompletedData): Promise<void> {
  return publisher.publish(target, "error-recovery", "retry-completed", data);
}

export function isErrorResolved(event: AnyEvent): event is CatalogEvent<ConductorEvents, "error-resolved"> {
  return event.event === "error-resolved";
}

/** Publishes `error-resolved`: an error has been resolved. */
export function broadcastErrorResolved(publisher: Publisher, target: Target, data: ErrorResolvedData): Promise<void> {
  return publisher.publish(target, "error-recovery", "error-resolved", data);
}

export function isCircuitBreakerStateChanged(event: AnyEvent): event is CatalogEvent<ConductorEvents, "circuit-breaker-state-changed"> {
  return event.event === "circuit-breaker-state-changed";
}

/** Publishes `circuit-breaker-state-changed`: a circuit breaker changed its state. */
export function broadcastCircuitBreakerStateChanged(publisher: Publisher, target: Target, data: CircuitBreakerStateChangedData): Promise<void> {
  return publisher.publish(target, "error-recovery", "circuit-breaker-state-changed", data);
}

export function isScheduleExecuted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "schedule-executed"> {
  return event.event === "schedule-executed";
}

/** Publishes `schedule-executed`: the execution of a schedule started. */
export function broadcastScheduleExecuted(publisher: Publisher, target: Target, data: ScheduleExecutedData): Promise<void> {
  return publisher.publish(target, "scheduler", "schedule-executed", data);
}

export function isExecutionCompleted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "execution-completed"> {
  return event.event === "execution-completed";
}

/** Publishes `execution-completed`: an execution finished. */
export function broadcastExecutionCompleted(publisher: Publisher, target: Target, data: ExecutionCompletedData): Promise<void> {
  return publisher.publish(target, "scheduler", "execution-completed", data);
}

export function isScheduleCreated(event: AnyEvent): event is CatalogEvent<ConductorEvents, "schedule-created"> {
  return event.event === "schedule-created";
}

/** Publishes `schedule-created`: a new schedule was created. */
export function broadcastScheduleCreated(publisher: Publisher, target: Target, data: ScheduleCreatedData): Promise<void> {
  return publisher.publish(target, "scheduler", "schedule-created", data);
}

export function isScheduleDeleted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "schedule-deleted"> {
  return event.event === "schedule-deleted";
}

/** Publishes `schedule-deleted`: a schedule was removed. */
export function broadcastScheduleDeleted(publisher: Publisher, target: Target, data: ScheduleDeletedData): Promise<void> {
  return publisher.publish(target, "scheduler", "schedule-deleted", data);
}

export function isWebhookDelivered(event: AnyEvent): event is CatalogEvent<ConductorEvents, "webhook-delivered"> {
  return event.event === "webhook-delivered";
}

/** Publishes `webhook-delivered`: a delivery succeeded. */
export function broadcastWebhookDelivered(publisher: Publisher, target: Target, data: WebhookDeliveredData): Promise<void> {
  return publisher.publish(target, "webhook", "webhook-delivered", data);
}

export function isWebhookFailed(event: AnyEvent): event is CatalogEvent<ConductorEvents, "webhook-failed"> {
  return event.event === "webhook-failed";
}

/** Publishes `webhook-failed`: a delivery failed. */
export function broadcastWebhookFailed(publisher: Publisher, target: Target, data: WebhookFailedData): Promise<void> {
  return publisher.publish(target, "webhook", "webhook-failed", data);
}

export function isWebhookRegistered(event: AnyEvent): event is CatalogEvent<ConductorEvents, "webhook-registered"> {
  return event.event === "webhook-registered";
}

/** Publishes `webhook-registered`: a new webhook was registered. */
export function broadcastWebhookRegistered(publisher: Publisher, target: Target, data: WebhookRegisteredData): Promise<void> {
  return publisher.publish(target, "webhook", "webhook-registered", data);
}

export function isEntryAdded(event: AnyEvent): event is CatalogEvent<ConductorEvents, "entry-added"> {
  return event.event === "entry-added";
}

/** Publishes `entry-added`: a message was added to the queue. */
export function broadcastEntryAdded(publisher: Publisher, target: Target, data: EntryAddedData): Promise<void> {
  return publisher.publish(target, "dlq", "entry-added", data);
}

export function isEntryResolved(event: AnyEvent): event is CatalogEvent<ConductorEvents, "entry-resolved"> {
  return event.event === "entry-resolved";
}

/** Publishes `entry-resolved`: an entry was resolved. */
export function broadcastEntryResolved(publisher: Publisher, target: Target, data: EntryResolvedData): Promise<void> {
  return publisher.publish(target, "dlq", "entry-resolved", data);
}

export function isEntryResubmitted(event: AnyEvent): event is CatalogEvent<ConductorEvents, "entry-resubmitted"> {
  return event.event === "entry-resubmitted";
}

/** Publishes `entry-resubmitted`: an entry was submitted again. */
export function broadcastEntryResubmitted(publisher: Publisher, target: Target, data: EntryResubmittedData): Promise<void> {
  return publisher.publish(target, "dlq", "entry-resubmitted", data);
}
