// Made by `fanwire generate typescript` from the catalog `workflow`: change that, not this.

import type { AnyEvent, CatalogEvent, Publisher, Target } from "../events.js";

/** A step begins. */
export interface StepStartData {
  /** Which step (not empty). */
  stepId: string;
  /** Its name. */
  stepName?: string;
}

/** A step ended. */
export interface StepCompleteData {
  /** Which step (not empty). */
  stepId: string;
  /** How it ended, such as success (not empty). */
  status: string;
  /** How long it took, in milliseconds (at least 0). */
  duration?: number;
  /** What went wrong, where it failed. */
  error?: string | null;
  /** Its name. */
  stepName?: string;
}

/** A line of a step's log. */
export interface StepLogData {
  /** Which step (not empty). */
  stepId: string;
  /** How grave it is. */
  level: "debug" | "info" | "warn" | "error";
  /** The line. */
  message: string;
  /** When it was written (date-time). */
  timestamp?: string;
}

/** A variable of the run changed. */
export interface VariableChangeData {
  /** Which variable (not empty). */
  varName: string;
  /** What happened to it. */
  changeType: "create" | "update" | "delete";
  /** Its value now; null where there is none. */
  newValue?: unknown;
  /** Its value before; null where there was none. */
  oldValue?: unknown;
  /** Which step (not empty). */
  stepId?: string;
}

/** What one run of a workflow streams to those who watch it: the data of each event. */
export interface WorkflowEvents {
  "step_start": StepStartData;
  "step_complete": StepCompleteData;
  "step_log": StepLogData;
  "variable_change": VariableChangeData;
}

/** The events of each category. */
export const workflowCategories = {
  "run": ["step_start", "step_complete", "step_log", "variable_change"],
} as const;

export function isStepStart(event: AnyEvent): event is CatalogEvent<WorkflowEvents, "step_start"> {
  return event.event === "step_start";
}

/** Publishes `step_start`: a step begins. */
export function broadcastStepStart(publisher: Publisher, target: Target, data: StepStartData): Promise<void> {
  return publisher.publish(target, "run", "step_start", data);
}

export function isStepComplete(event: AnyEvent): event is CatalogEvent<WorkflowEvents, "step_complete"> {
  return event.event === "step_complete";
}

/** Publishes `step_complete`: a step ended. */
export function broadcastStepComplete(publisher: Publisher, target: Target, data: StepCompleteData): Promise<void> {
  return publisher.publish(target, "run", "step_complete", data);
}

export function isStepLog(event: AnyEvent): event is CatalogEvent<WorkflowEvents, "step_log"> {
  return event.event === "step_log";
}

/** Publishes `step_log`: a line of a step's log. */
export function broadcastStepLog(publisher: Publisher, target: Target, data: StepLogData): Promise<void> {
  return publisher.publish(target, "run", "step_log", data);
}

export function isVariableChange(event: AnyEvent): event is CatalogEvent<WorkflowEvents, "variable_change"> {
  return event.event === "variable_change";
}

/** Publishes `variable_change`: a variable of the run changed. */
export function broadcastVariableChange(publisher: Publisher, target: Target, data: VariableChangeData): Promise<void> {
  return publisher.publish(target, "run", "variable_change", data);
}
