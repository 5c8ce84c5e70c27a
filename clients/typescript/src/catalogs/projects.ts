// Made by `fanwire generate typescript` from the catalog `projects`: change that, not this.

import type { AnyEvent, CatalogEvent, Publisher, Target } from "../events.js";

/** Metadata or state of the project changed. */
export interface ProjectUpdatedData {
  /** Which project (not empty). */
  project_id: string;
  /** What changed: the new value of each field. */
  changes?: Record<string, unknown>;
  /** Its name. */
  project_name?: string;
  /** Its repository. */
  repository_url?: string | null;
  /** Its state. */
  status?: string;
  /** When, ISO 8601. */
  updated_at?: string;
  /** Who changed it. */
  updated_by?: string | null;
}

/** The project was deleted. */
export interface ProjectDeletedData {
  /** Which project (not empty). */
  project_id: string;
  /** When, ISO 8601. */
  deleted_at?: string;
  /** Who deleted it. */
  deleted_by?: string | null;
  /** Its name. */
  project_name?: string;
}

/** An agent's availability changed. */
export interface AgentStatusChangedData {
  /** Which agent (not empty). */
  agent_id: string;
  /** Its state now. */
  status: string;
  /** Its name. */
  agent_name?: string;
  /** When, ISO 8601. */
  changed_at?: string;
  /** What it is doing. */
  current_task?: string | null;
  /** Its state before. */
  previous_status?: string | null;
  /** The project that it works on. */
  project_id?: string | null;
}

/** An agent came online. */
export interface AgentConnectedData {
  /** Which agent (not empty). */
  agent_id: string;
  /** Its name. */
  agent_name?: string;
  /** What it can do. */
  capabilities?: string[];
  /** When, ISO 8601. */
  connected_at?: string;
  /** Its state. */
  status?: string;
}

/** An agent went offline. */
export interface AgentDisconnectedData {
  /** Which agent (not empty). */
  agent_id: string;
  /** Its name. */
  agent_name?: string;
  /** When, ISO 8601. */
  disconnected_at?: string;
  /** Why. */
  reason?: string | null;
}

/** A workflow started. */
export interface WorkflowStartedData {
  /** Which workflow (not empty). */
  workflow_id: string;
  /** Which project (not empty). */
  project_id?: string;
  /** When, ISO 8601. */
  started_at?: string;
  /** Who started it. */
  started_by?: string | null;
  /** Its state. */
  status?: string;
  /** How many steps it has (at least 0). */
  total_steps?: number;
  /** Its name. */
  workflow_name?: string;
}

/** How far a workflow has come. */
export interface WorkflowProgressData {
  /** Which workflow (not empty). */
  workflow_id: string;
  /** Percent done (0 to 100). */
  progress: number;
  /** What it is doing. */
  current_step?: string | number | null;
  /** A word about it. */
  message?: string | null;
  /** Which project (not empty). */
  project_id?: string;
  /** Its state. */
  status?: string;
  /** How many steps it has (at least 0). */
  total_steps?: number;
  /** Its name. */
  workflow_name?: string;
}

/** A workflow ended well. */
export interface WorkflowCompletedData {
  /** Which workflow (not empty). */
  workflow_id: string;
  /** When, ISO 8601. */
  completed_at?: string;
  /** How long it took, in seconds (at least 0). */
  duration_seconds?: number;
  /** Which project (not empty). */
  project_id?: string;
  /** What came of it. */
  result?: unknown;
  /** Its state. */
  status?: string;
  /** Its name. */
  workflow_name?: string;
}

/** A workflow failed. */
export interface WorkflowFailedData {
  /** Which workflow (not empty). */
  workflow_id: string;
  /** What went wrong: a message, or an object that holds one. */
  error?: string | Record<string, unknown>;
  /** When, ISO 8601. */
  failed_at?: string;
  /** The step that failed. */
  failed_step?: string | number | null;
  /** Which project (not empty). */
  project_id?: string;
  /** Its state. */
  status?: string;
  /** Its name. */
  workflow_name?: string;
}

/** A pull request was opened. */
export interface PrCreatedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who wrote it. */
  author?: string;
  /** What its author says. */
  description?: string | null;
  /** Which pull request. */
  pr_id?: string | number;
  /** Its number in the repository (at least 1). */
  pr_number?: number;
  /** The branch with the changes. */
  source_branch?: string;
  /** Where they should go. */
  target_branch?: string;
  /** Its title. */
  title?: string;
  /** Where it is. */
  url?: string;
}

/** A pull request changed. */
export interface PrUpdatedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who wrote it. */
  author?: string;
  /** What changed: the new value of each field. */
  changes?: Record<string, unknown>;
  /** Which pull request. */
  pr_id?: string | number;
  /** Its number in the repository (at least 1). */
  pr_number?: number;
  /** Its state. */
  status?: string;
  /** Its title. */
  title?: string;
  /** Who changed it. */
  updated_by?: string | null;
  /** Where it is. */
  url?: string;
}

/** A pull request was closed or merged. */
export interface PrClosedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who wrote it. */
  author?: string;
  /** Who closed it. */
  closed_by?: string | null;
  /** Whether it was merged. */
  merged?: boolean;
  /** Which pull request. */
  pr_id?: string | number;
  /** Its number in the repository (at least 1). */
  pr_number?: number;
  /** Its title. */
  title?: string;
  /** Where it is. */
  url?: string;
}

/** An issue was opened. */
export interface IssueCreatedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who wrote it. */
  author?: string;
  /** What its author says. */
  description?: string | null;
  /** Which issue. */
  issue_id?: string | number;
  /** Its number in the repository (at least 1). */
  issue_number?: number;
  /** Its labels. */
  labels?: string[];
  /** Its state. */
  status?: string;
  /** Its title. */
  title?: string;
  /** Where it is. */
  url?: string;
}

/** An issue changed. */
export interface IssueUpdatedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who works on it. */
  assignee?: string | null;
  /** What changed: the new value of each field. */
  changes?: Record<string, unknown>;
  /** Which issue. */
  issue_id?: string | number;
  /** Its number in the repository (at least 1). */
  issue_number?: number;
  /** Its labels. */
  labels?: string[];
  /** Its state. */
  status?: string;
  /** Its title. */
  title?: string;
  /** Who changed it. */
  updated_by?: string | null;
  /** Where it is. */
  url?: string;
}

/** An issue was closed. */
export interface IssueClosedData {
  /** Which project (not empty). */
  project_id: string;
  /** Who closed it. */
  closed_by?: string | null;
  /** Which issue. */
  issue_id?: string | number;
  /** Its number in the repository (at least 1). */
  issue_number?: number;
  /** How it was resolved. */
  resolution?: string | null;
  /** Its state. */
  status?: string;
  /** Its title. */
  title?: string;
  /** Where it is. */
  url?: string;
}

/** A suggestion or recommendation. */
export interface AiSuggestionData {
  /** How sure the assistant is, from 0 to 1 (0 to 1). */
  confidence?: number;
  /** What led to it. */
  context?: Record<string, unknown>;
  /** The project that it is about. */
  project_id?: string | null;
  /** The suggestion itself. */
  suggestion?: string | Record<string, unknown>;
  /** Which suggestion (not empty). */
  suggestion_id?: string;
  /** In a few words. */
  title?: string;
  /** What kind it is. */
  type?: string;
  /** Who it is for. */
  user_id?: string | null;
}

/** An analysis finished. */
export interface AiAnalysisCompleteData {
  /** Which analysis (not empty). */
  analysis_id?: string;
  /** The project that it is about. */
  project_id?: string | null;
  /** What was found. */
  results?: unknown;
  /** In a few words. */
  summary?: string;
  /** What was analysed. */
  type?: string;
}

/** The client is connected. */
export interface ConnectionEstablishedData {
  /** Who it is. */
  userId: string;
  /** The session (not empty). */
  sid: string;
  /** The rooms that it is in. */
  rooms?: string[];
  /** When (date-time). */
  timestamp?: string;
}

/** The client was refused, or its token ran out. */
export interface ConnectionErrorData {
  /** What is wrong. */
  message: string;
  /** The same for programs. */
  code?: string | number;
  /** When (date-time). */
  timestamp?: string;
}

/** A software project: its agents, workflows, pull requests, issues: the data of each event. */
export interface ProjectsEvents {
  "project.updated": ProjectUpdatedData;
  "project.deleted": ProjectDeletedData;
  "agent.status_changed": AgentStatusChangedData;
  "agent.connected": AgentConnectedData;
  "agent.disconnected": AgentDisconnectedData;
  "workflow.started": WorkflowStartedData;
  "workflow.progress": WorkflowProgressData;
  "workflow.completed": WorkflowCompletedData;
  "workflow.failed": WorkflowFailedData;
  "pr.created": PrCreatedData;
  "pr.updated": PrUpdatedData;
  "pr.closed": PrClosedData;
  "issue.created": IssueCreatedData;
  "issue.updated": IssueUpdatedData;
  "issue.closed": IssueClosedData;
  "ai.suggestion": AiSuggestionData;
  "ai.analysis_complete": AiAnalysisCompleteData;
  "connection.established": ConnectionEstablishedData;
  "connection.error": ConnectionErrorData;
}

/** The events of each category. */
export const projectsCategories = {
  "project": ["project.updated", "project.deleted"],
  "agent": ["agent.status_changed", "agent.connected", "agent.disconnected"],
  "workflow": ["workflow.started", "workflow.progress", "workflow.completed", "workflow.failed"],
  "pr": ["pr.created", "pr.updated", "pr.closed"],
  "issue": ["issue.created", "issue.updated", "issue.closed"],
  "ai": ["ai.suggestion", "ai.analysis_complete"],
  "connection": ["connection.established", "connection.error"],
} as const;

export function isProjectUpdated(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "project.updated"> {
  return event.event === "project.updated";
}

/** Publishes `project.updated`: metadata or state of the project changed. */
export function broadcastProjectUpdated(publisher: Publisher, target: Target, data: ProjectUpdatedData): Promise<void> {
  return publisher.publish(target, "project", "project.updated", data);
}

export function isProjectDeleted(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "project.deleted"> {
  return event.event === "project.deleted";
}

/** Publishes `project.deleted`: the project was deleted. */
export function broadcastProjectDeleted(publisher: Publisher, target: Target, data: ProjectDeletedData): Promise<void> {
  return publisher.publish(target, "project", "project.deleted", data);
}

export function isAgentStatusChanged(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "agent.status_changed"> {
  return event.event === "agent.status_changed";
}

/** Publishes `agent.status_changed`: an agent's availability changed. */
export function broadcastAgentStatusChanged(publisher: Publisher, target: Target, data: AgentStatusChangedData): Promise<void> {
  return publisher.publish(target, "agent", "agent.status_changed", data);
}

export function isAgentConnected(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "agent.connected"> {
  return event.event === "agent.connected";
}

/** Publishes `agent.connected`: an agent came online. */
export function broadcastAgentConnected(publisher: Publisher, target: Target, data: AgentConnectedData): Promise<void> {
  return publisher.publish(target, "agent", "agent.connected", data);
}

export function isAgentDisconnected(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "agent.disconnected"> {
  return event.event === "agent.disconnected";
}

/** Publishes `agent.disconnected`: an agent went offline. */
export function broadcastAgentDisconnected(publisher: Publisher, target: Target, data: AgentDisconnectedData): Promise<void> {
  return publisher.publish(target, "agent", "agent.disconnected", data);
}

export function isWorkflowStarted(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "workflow.started"> {
  return event.event === "workflow.started";
}

/** Publishes `workflow.started`: a workflow started. */
export function broadcastWorkflowStarted(publisher: Publisher, target: Target, data: WorkflowStartedData): Promise<void> {
  return publisher.publish(target, "workflow", "workflow.started", data);
}

export function isWorkflowProgress(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "workflow.progress"> {
  return event.event === "workflow.progress";
}

/** Publishes `workflow.progress`: how far a workflow has come. */
export function broadcastWorkflowProgress(publisher: Publisher, target: Target, data: WorkflowProgressData): Promise<void> {
  return publisher.publish(target, "workflow", "workflow.progress", data);
}

export function isWorkflowCompleted(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "workflow.completed"> {
  return event.event === "workflow.completed";
}

/** Publishes `workflow.completed`: a workflow ended well. */
export function broadcastWorkflowCompleted(publisher: Publisher, target: Target, data: WorkflowCompletedData): Promise<void> {
  return publisher.publish(target, "workflow", "workflow.completed", data);
}

export function isWorkflowFailed(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "workflow.failed"> {
  return event.event === "workflow.failed";
}

/** Publishes `workflow.failed`: a workflow failed. */
export function broadcastWorkflowFailed(publisher: Publisher, target: Target, data: WorkflowFailedData): Promise<void> {
  return publisher.publish(target, "workflow", "workflow.failed", data);
}

export function isPrCreated(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "pr.created"> {
  return event.event === "pr.created";
}

/** Publishes `pr.created`: a pull request was opened. */
export function broadcastPrCreated(publisher: Publisher, target: Target, data: PrCreatedData): Promise<void> {
  return publisher.publish(target, "pr", "pr.created", data);
}

export function isPrUpdated(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "pr.updated"> {
  return event.event === "pr.updated";
}

/** Publishes `pr.updated`: a pull request changed. */
export function broadcastPrUpdated(publisher: Publisher, target: Target, data: PrUpdatedData): Promise<void> {
  return publisher.publish(target, "pr", "pr.updated", data);
}

export function isPrClosed(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "pr.closed"> {
  return event.event === "pr.closed";
}

/** Publishes `pr.closed`: a pull request was closed or merged. */
export function broadcastPrClosed(publisher: Publisher, target: Target, data: PrClosedData): Promise<void> {
  return publisher.publish(target, "pr", "pr.closed", data);
}

export function isIssueCreated(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "issue.created"> {
  return event.event === "issue.created";
}

/** Publishes `issue.created`: an issue was opened. */
export function broadcastIssueCreated(publisher: Publisher, target: Target, data: IssueCreatedData): Promise<void> {
  return publisher.publish(target, "issue", "issue.created", data);
}

export function isIssueUpdated(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "issue.updated"> {
  return event.event === "issue.updated";
}

/** Publishes `issue.updated`: an issue changed. */
export function broadcastIssueUpdated(publisher: Publisher, target: Target, data: IssueUpdatedData): Promise<void> {
  return publisher.publish(target, "issue", "issue.updated", data);
}

export function isIssueClosed(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "issue.closed"> {
  return event.event === "issue.closed";
}

/** Publishes `issue.closed`: an issue was closed. */
export function broadcastIssueClosed(publisher: Publisher, target: Target, data: IssueClosedData): Promise<void> {
  return publisher.publish(target, "issue", "issue.closed", data);
}

export function isAiSuggestion(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "ai.suggestion"> {
  return event.event === "ai.suggestion";
}

/** Publishes `ai.suggestion`: a suggestion or recommendation. */
export function broadcastAiSuggestion(publisher: Publisher, target: Target, data: AiSuggestionData): Promise<void> {
  return publisher.publish(target, "ai", "ai.suggestion", data);
}

export function isAiAnalysisComplete(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "ai.analysis_complete"> {
  return event.event === "ai.analysis_complete";
}

/** Publishes `ai.analysis_complete`: an analysis finished. */
export function broadcastAiAnalysisComplete(publisher: Publisher, target: Target, data: AiAnalysisCompleteData): Promise<void> {
  return publisher.publish(target, "ai", "ai.analysis_complete", data);
}

export function isConnectionEstablished(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "connection.established"> {
  return event.event === "connection.established";
}

/** Publishes `connection.established`: the client is connected. */
export function broadcastConnectionEstablished(publisher: Publisher, target: Target, data: ConnectionEstablishedData): Promise<void> {
  return publisher.publish(target, "connection", "connection.established", data);
}

export function isConnectionError(event: AnyEvent): event is CatalogEvent<ProjectsEvents, "connection.error"> {
  return event.event === "connection.error";
}

/** Publishes `connection.error`: the client was refused, or its token ran out. */
export function broadcastConnectionError(publisher: Publisher, target: Target, data: ConnectionErrorData): Promise<void> {
  return publisher.publish(target, "connection", "connection.error", data);
}
