// The page that browser.mjs opens: components with the hook, told from outside what to be, which keep what they see.
import { StrictMode, useEffect, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import type { GapData } from "fanwire-client";
import type { RunsEvents } from "fanwire-client/catalogs/runs";
import { ConnectionState, useRunEvents, type UseRunEventsOptions, type UseRunEventsReturn } from "fanwire-client/react";

/** The sockets that were made, for a test that speaks in the node's place. */
const sockets: WebSocket[] = [];

class Tapped extends WebSocket {
  constructor(url: string) {
    super(url);
    sockets.push(this);
  }
}

interface Props {
  name: string;
  options: UseRunEventsOptions;
  /** Event names and categories to have handlers for. */
  events?: Parameters<UseRunEventsReturn["subscribe"]>[0][];
  categories?: Parameters<UseRunEventsReturn["subscribe_category"]>[0][];
  throwing?: boolean;
  /** Whether it calls `reconnect()` as soon as it is disconnected, and throws then. */
  insisting?: boolean;
  /** To have a typed handler for everything of this run instead. */
  readsRun?: string;
}

/** What a component has seen since it was first told to be. */
class Seen {
  hook!: UseRunEventsReturn;
  renders = 0;
  states: string[] = [];
  calls: string[] = [];
  errors: string[] = [];
  gaps: GapData[] = [];
  events: unknown[] = [];
  categories: unknown[] = [];
  /** The sets of functions that were returned; there is to be one. */
  functions = new Set<unknown>();
}

const seen: Record<string, Seen> = {};

function Watcher({ name, options, events = [], categories = [], throwing = false, insisting = false }: Props): ReactNode {
  const mine = (seen[name] ??= new Seen());
  // Made anew at each render, as careless components do.
  const hook = useRunEvents({
    WebSocket: Tapped,
    reconnectDelay: 50,
    maxReconnectDelay: 200,
    onConnect: () => mine.calls.push("connect"),
    onDisconnect: () => mine.calls.push("disconnect"),
    onStateChange: (state) => {
      mine.states.push(state);
      if (!insisting || state !== ConnectionState.DISCONNECTED) return;
      mine.hook.reconnect();
      throw new Error("no");
    },
    onError: (error) => mine.errors.push(`${error.kind}: ${error.message}`),
    onGap: (gap) => mine.gaps.push(gap),
    ...options,
  });
  mine.renders += 1;
  mine.hook = hook;
  for (const it of Object.values(hook)) if (typeof it === "function") mine.functions.add(it);

  const { subscribe, subscribe_category } = hook;
  useEffect(() => {
    const ends = [
      ...(throwing ? [subscribe("stage-progress", () => { throw new Error("a bug in the page"); })] : []),
      ...events.map((event) => subscribe(event, (it) => mine.events.push(it))),
      ...categories.map((category) => subscribe_category(category, (it) => mine.categories.push(it))),
    ];
    return () => ends.forEach((end) => end());
  }, [subscribe, subscribe_category, throwing, events.join(), categories.join()]);

  return (
    <li id={name} data-state={hook.connectionState} data-connected={hook.isConnected} data-error={hook.error?.message ?? ""} />
  );
}

type Name = keyof RunsEvents;

/** Reads the data of each event as its type says, member by member. */
const read: { [N in Name]: (data: RunsEvents[N]) => { [K in keyof Required<RunsEvents[N]>]: RunsEvents[N][K] } } = {
  "run-created": (data) => ({ runId: data.runId, config: data.config, createdAt: data.createdAt, name: data.name, projectId: data.projectId, status: data.status, userId: data.userId }),
  "run-started": (data) => ({ runId: data.runId, projectId: data.projectId, startedAt: data.startedAt, totalStages: data.totalStages, userId: data.userId }),
  "run-completed": (data) => ({ runId: data.runId, completedAt: data.completedAt, durationMs: data.durationMs, projectId: data.projectId, result: data.result, status: data.status }),
  "run-failed": (data) => ({ runId: data.runId, durationMs: data.durationMs, error: data.error, failedAt: data.failedAt, projectId: data.projectId, stageId: data.stageId }),
  "stage-started": (data) => ({ runId: data.runId, stageId: data.stageId, stageIndex: data.stageIndex, stageName: data.stageName, startedAt: data.startedAt, totalStages: data.totalStages }),
  "stage-progress": (data) => ({ runId: data.runId, stageId: data.stageId, progress: data.progress, itemsDone: data.itemsDone, itemsTotal: data.itemsTotal, message: data.message, stageName: data.stageName }),
  "stage-completed": (data) => ({ runId: data.runId, stageId: data.stageId, completedAt: data.completedAt, durationMs: data.durationMs, output: data.output, stageName: data.stageName }),
  "stage-failed": (data) => ({ runId: data.runId, stageId: data.stageId, error: data.error, failedAt: data.failedAt, retryable: data.retryable, stageName: data.stageName }),
  "artifact-created": (data) => ({ runId: data.runId, artifactId: data.artifactId, createdAt: data.createdAt, name: data.name, sizeBytes: data.sizeBytes, stageId: data.stageId, type: data.type, url: data.url }),
  "governance-required": (data) => ({ runId: data.runId, approvalId: data.approvalId, expiresAt: data.expiresAt, policy: data.policy, reason: data.reason, requestedAt: data.requestedAt, requiredRole: data.requiredRole, stageId: data.stageId }),
  "approval-granted": (data) => ({ runId: data.runId, approvalId: data.approvalId, approvedAt: data.approvedAt, approvedBy: data.approvedBy, comment: data.comment, stageId: data.stageId }),
  "approval-denied": (data) => ({ runId: data.runId, approvalId: data.approvalId, deniedAt: data.deniedAt, deniedBy: data.deniedBy, reason: data.reason, stageId: data.stageId }),
};

/** Has a typed handler for each event of the catalog. */
function Reader({ name, runId }: { name: string; runId: string }): ReactNode {
  const mine = (seen[name] ??= new Seen());
  const { subscribe, connectionState } = useRunEvents({ runId });
  useEffect(() => {
    const listen = <N extends Name>(event: N): (() => void) =>
      subscribe(event, (it) => mine.events.push({ event: it.event, category: it.category, data: read[event](it.data) }));
    const ends = (Object.keys(read) as Name[]).map((event) => listen(event));
    return () => ends.forEach((end) => end());
  }, [subscribe]);
  return <li id={name} data-state={connectionState} />;
}

const root = createRoot(document.getElementById("root")!);

/** Renders these, each with its own hook, and nothing else. */
function show(watchers: Props[]): void {
  root.render(
    <StrictMode>
      <ul id="watchers" data-shown={watchers.map(({ name }) => name).join(" ")}>
        {watchers.map((props) =>
          props.readsRun
            ? <Reader key={props.name} name={props.name} runId={props.readsRun} />
            : <Watcher key={props.name} {...props} />,
        )}
      </ul>
    </StrictMode>,
  );
}

Object.assign(window, { show, seen, sockets });
