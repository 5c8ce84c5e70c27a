import type { AnyEvent, CatalogEvent, Publisher, Target } from "../events.js";

export interface StageProgressData {
  runId: string;
  stageName: string;
  progress: number;
}

export interface RunsEvents {
  "run-created": { runId: string };
  "run-started": { runId: string };
  "run-completed": { runId: string };
  "run-failed": { runId: string; error: string };
  "stage-started": { runId: string };
  "stage-progress": StageProgressData;
  "stage-completed": { runId: string };
  "stage-failed": { runId: string };
  "artifact-created": { runId: string };
  "governance-required": { runId: string };
  "approval-granted": { runId: string };
  "approval-denied": { runId: string };
}

export const runsCategories = {
  run: ["run-created", "run-started", "run-completed", "run-failed"],
  stage: ["stage-started", "stage-progress", "stage-completed", "stage-failed"],
  artifact: ["artifact-created"],
  governance: ["governance-required", "approval-granted", "approval-denied"],
} as const;

export function isStageProgress(event: AnyEvent): event is CatalogEvent<RunsEvents, "stage-progress"> {
  return event.event === "stage-progress";
}

export function broadcastStageProgress(publisher: Publisher, target: Target, data: StageProgressData): Promise<void> {
  return publisher.publish(target, "stage", "stage-progress", data);
}
