// Made by `fanwire generate typescript` from the catalog `runs`: change that, not this.

import type { AnyEvent, CatalogEvent, Publisher, Target } from "../events.js";

/** A run was created. */
export interface RunCreatedData {
  /** Which run (not empty). */
  runId: string;
  /** What it was asked to do. */
  config?: Record<string, unknown>;
  /** When (date-time). */
  createdAt?: string;
  /** The run's name. */
  name?: string;
  /** The project of the run (not empty). */
  projectId?: string;
  /** Its state. */
  status?: string;
  /** Who started the run (not empty). */
  userId?: string;
}

/** A run started. */
export interface RunStartedData {
  /** Which run (not empty). */
  runId: string;
  /** The project of the run (not empty). */
  projectId?: string;
  /** When (date-time). */
  startedAt?: string;
  /** How many stages it has (at least 0). */
  totalStages?: number;
  /** Who started the run (not empty). */
  userId?: string;
}

/** A run ended well. */
export interface RunCompletedData {
  /** Which run (not empty). */
  runId: string;
  /** When (date-time). */
  completedAt?: string;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** The project of the run (not empty). */
  projectId?: string;
  /** What came of it. */
  result?: unknown;
  /** How it ended. */
  status?: string;
}

/** A run failed. */
export interface RunFailedData {
  /** Which run (not empty). */
  runId: string;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** What went wrong: a message, or an object that holds one. */
  error?: string | Record<string, unknown>;
  /** When (date-time). */
  failedAt?: string;
  /** The project of the run (not empty). */
  projectId?: string;
  /** The stage that failed (not empty). */
  stageId?: string;
}

/** A stage started. */
export interface StageStartedData {
  /** Which run (not empty). */
  runId: string;
  /** Which stage of the run (not empty). */
  stageId: string;
  /** Its place in the run, from 0 (at least 0). */
  stageIndex?: number;
  /** The stage's name. */
  stageName?: string;
  /** When (date-time). */
  startedAt?: string;
  /** How many stages there are (at least 0). */
  totalStages?: number;
}

/** How far a stage has come. */
export interface StageProgressData {
  /** Which run (not empty). */
  runId: string;
  /** Which stage of the run (not empty). */
  stageId: string;
  /** Percent done (0 to 100). */
  progress: number;
  /** Items done (at least 0). */
  itemsDone?: number;
  /** Items in all (at least 0). */
  itemsTotal?: number;
  /** What it is doing. */
  message?: string;
  /** The stage's name. */
  stageName?: string;
}

/** A stage ended well. */
export interface StageCompletedData {
  /** Which run (not empty). */
  runId: string;
  /** Which stage of the run (not empty). */
  stageId: string;
  /** When (date-time). */
  completedAt?: string;
  /** How long it took, in milliseconds (at least 0). */
  durationMs?: number;
  /** What came of it. */
  output?: unknown;
  /** The stage's name. */
  stageName?: string;
}

/** A stage failed. */
export interface StageFailedData {
  /** Which run (not empty). */
  runId: string;
  /** Which stage of the run (not empty). */
  stageId: string;
  /** What went wrong: a message, or an object that holds one. */
  error?: string | Record<string, unknown>;
  /** When (date-time). */
  failedAt?: string;
  /** Whether another attempt may succeed. */
  retryable?: boolean;
  /** The stage's name. */
  stageName?: string;
}

/** An artifact was created. */
export interface ArtifactCreatedData {
  /** Which run (not empty). */
  runId: string;
  /** Which artifact (not empty). */
  artifactId: string;
  /** When (date-time). */
  createdAt?: string;
  /** Its name. */
  name?: string;
  /** Its size, in bytes (at least 0). */
  sizeBytes?: number;
  /** Which stage of the run (not empty). */
  stageId?: string;
  /** What it is. */
  type?: string;
  /** Where it is. */
  url?: string;
}

/** A run waits for an approval. */
export interface GovernanceRequiredData {
  /** Which run (not empty). */
  runId: string;
  /** Which approval (not empty). */
  approvalId?: string;
  /** Until when it may be given (date-time). */
  expiresAt?: string | null;
  /** The policy that asks for it. */
  policy?: string;
  /** Why it is needed. */
  reason?: string;
  /** When it was asked for (date-time). */
  requestedAt?: string;
  /** Who may give it. */
  requiredRole?: string;
  /** Which stage of the run (not empty). */
  stageId?: string;
}

/** An approval was given. */
export interface ApprovalGrantedData {
  /** Which run (not empty). */
  runId: string;
  /** Which approval (not empty). */
  approvalId?: string;
  /** When (date-time). */
  approvedAt?: string;
  /** Who gave it. */
  approvedBy?: string;
  /** What they said. */
  comment?: string;
  /** Which stage of the run (not empty). */
  stageId?: string;
}

/** An approval was denied. */
export interface ApprovalDeniedData {
  /** Which run (not empty). */
  runId: string;
  /** Which approval (not empty). */
  approvalId?: string;
  /** When (date-time). */
  deniedAt?: string;
  /** Who denied it. */
  deniedBy?: string;
  /** Why. */
  reason?: string;
  /** Which stage of the run (not empty). */
  stageId?: string;
}

/** Runs of a pipeline: their stages, artifacts and approvals: the data of each event. */
export interface RunsEvents {
  "run-created": RunCreatedData;
  "run-started": RunStartedData;
  "run-completed": RunCompletedData;
  "run-failed": RunFailedData;
  "stage-started": StageStartedData;
  "stage-progress": StageProgressData;
  "stage-completed": StageCompletedData;
  "stage-failed": StageFailedData;
  "artifact-created": ArtifactCreatedData;
  "governance-required": GovernanceRequiredData;
  "approval-granted": ApprovalGrantedData;
  "approval-denied": ApprovalDeniedData;
}

/** The events of each category. */
export const runsCategories = {
  "run": ["run-created", "run-started", "run-completed", "run-failed"],
  "stage": ["stage-started", "stage-progress", "stage-completed", "stage-failed"],
  "artifact": ["artifact-created"],
  "governance": ["governance-required", "approval-granted", "approval-denied"],
} as const;

export function isRunCreated(event: AnyEvent): event is CatalogEvent<RunsEvents, "run-created"> {
  return event.event === "run-created";
}

/** Publishes `run-created`: a run was created. */
export function broadcastRunCreated(publisher: Publisher, target: Target, data: RunCreatedData): Promise<void> {
  return publisher.publish(target, "run", "run-created", data);
}

export function isRunStarted(event: AnyEvent): event is CatalogEvent<RunsEvents, "run-started"> {
  return event.event === "run-started";
}

/** Publishes `run-started`: a run started. */
export function broadcastRunStarted(publisher: Publisher, target: Target, data: RunStartedData): Promise<void> {
  return publisher.publish(target, "run", "run-started", data);
}

export function isRunCompleted(event: AnyEvent): event is CatalogEvent<RunsEvents, "run-completed"> {
  return event.event === "run-completed";
}

/** Publishes `run-completed`: a run ended well. */
export function broadcastRunCompleted(publisher: Publisher, target: Target, data: RunCompletedData): Promise<void> {
  return publisher.publish(target, "run", "run-completed", data);
}

export function isRunFailed(event: AnyEvent): event is CatalogEvent<RunsEvents, "run-failed"> {
  return event.event === "run-failed";
}

/** Publishes `run-failed`: a run failed. */
export function broadcastRunFailed(publisher: Publisher, target: Target, data: RunFailedData): Promise<void> {
  return publisher.publish(target, "run", "run-failed", data);
}

export function isStageStarted(event: AnyEvent): event is CatalogEvent<RunsEvents, "stage-started"> {
  return event.event === "stage-started";
}

/** Publishes `stage-started`: a stage started. */
export function broadcastStageStarted(publisher: Publisher, target: Target, data: StageStartedData): Promise<void> {
  return publisher.publish(target, "stage", "stage-started", data);
}

export function isStageProgress(event: AnyEvent): event is CatalogEvent<RunsEvents, "stage-progress"> {
  return event.event === "stage-progress";
}

/** Publishes `stage-progress`: how far a stage has come. */
export function broadcastStageProgress(publisher: Publisher, target: Target, data: StageProgressData): Promise<void> {
  return publisher.publish(target, "stage", "stage-progress", data);
}

export function isStageCompleted(event: AnyEvent): event is CatalogEvent<RunsEvents, "stage-completed"> {
  return event.event === "stage-completed";
}

/** Publishes `stage-completed`: a stage ended well. */
export function broadcastStageCompleted(publisher: Publisher, target: Target, data: StageCompletedData): Promise<void> {
  return publisher.publish(target, "stage", "stage-completed", data);
}

export function isStageFailed(event: AnyEvent): event is CatalogEvent<RunsEvents, "stage-failed"> {
  return event.event === "stage-failed";
}

/** Publishes `stage-failed`: a stage failed. */
export function broadcastStageFailed(publisher: Publisher, target: Target, data: StageFailedData): Promise<void> {
  return publisher.publish(target, "stage", "stage-failed", data);
}

export function isArtifactCreated(event: AnyEvent): event is CatalogEvent<RunsEvents, "artifact-created"> {
  return event.event === "artifact-created";
}

/** Publishes `artifact-created`: an artifact was created. */
export function broadcastArtifactCreated(publisher: Publisher, target: Target, data: ArtifactCreatedData): Promise<void> {
  return publisher.publish(target, "artifact", "artifact-created", data);
}

export function isGovernanceRequired(event: AnyEvent): event is CatalogEvent<RunsEvents, "governance-required"> {
  return event.event === "governance-required";
}

/** Publishes `governance-required`: a run waits for an approval. */
export function broadcastGovernanceRequired(publisher: Publisher, target: Target, data: GovernanceRequiredData): Promise<void> {
  return publisher.publish(target, "governance", "governance-required", data);
}

export function isApprovalGranted(event: AnyEvent): event is CatalogEvent<RunsEvents, "approval-granted"> {
  return event.event === "approval-granted";
}

/** Publishes `approval-granted`: an approval was given. */
export function broadcastApprovalGranted(publisher: Publisher, target: Target, data: ApprovalGrantedData): Promise<void> {
  return publisher.publish(target, "governance", "approval-granted", data);
}

export function isApprovalDenied(event: AnyEvent): event is CatalogEvent<RunsEvents, "approval-denied"> {
  return event.event === "approval-denied";
}

/** Publishes `approval-denied`: an approval was denied. */
export function broadcastApprovalDenied(publisher: Publisher, target: Target, data: ApprovalDeniedData): Promise<void> {
  return publisher.publish(target, "governance", "approval-denied", data);
}
