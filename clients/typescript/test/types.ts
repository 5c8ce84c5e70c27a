// Checked by `npm run check`, never run. A line below a `@ts-expect-error` has to be wrong: where it is not, the check fails.
import { WebSocket as WsWebSocket } from "ws";
import { connect, httpPublisher, isEvent, isGap, type AnyEvent, type Publisher, type Receipt, type Target } from "fanwire-client";
import { broadcastStageProgress, isStageProgress, runsCategories, type RunsEvents } from "fanwire-client/catalogs/runs";
import samples from "./samples.json" with { type: "json" };
import { ConnectionState, createEventHook, useRunEvents } from "fanwire-client/react";

/** Exactly this type, neither wider nor narrower. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function exactly<A, B>(_same: Same<A, B>): void {}

export function Hook(): null {
  const events = useRunEvents({ runId: "42", onGap: (gap) => exactly<typeof gap.dropped, number>(true) });
  exactly<typeof events.isConnected, boolean>(true);
  exactly<typeof events.connectionState, ConnectionState>(true);
  exactly<typeof events.error, Error | null>(true);

  const off = events.subscribe("stage-progress", (event) => {
    exactly<typeof event.data.progress, number>(true);
    exactly<typeof event.event, "stage-progress">(true);
    // @ts-expect-error no such member
    event.data.progres;
  });
  exactly<typeof off, () => void>(true);
  // @ts-expect-error no event of this catalog
  events.subscribe("stage-progres", () => {});
  // @ts-expect-error a handler of another event
  events.subscribe("run-failed", (event: { data: { progress: number } }) => event.data.progress);
  // A handler of any event takes this one as well.
  const any = (event: AnyEvent): void => void event.category;
  events.unsubscribe("run-failed", any);
  events.unsubscribe_category("stage", any);

  events.subscribe_category("governance", (event) => {
    exactly<typeof event.event, "governance-required" | "approval-granted" | "approval-denied">(true);
    // The name tells which data it is.
    if (event.event === "approval-granted") exactly<typeof event.data, RunsEvents["approval-granted"]>(true);
  });
  // @ts-expect-error no category of this catalog
  events.subscribe_category("stages", () => {});
  exactly<ReturnType<typeof events.reconnect>, void>(true);
  exactly<ReturnType<typeof events.disconnect>, void>(true);
  // @ts-expect-error a number is no run
  useRunEvents({ runId: 42 });
  // What may not be known yet can be passed on.
  const projectId: string | undefined = undefined;
  useRunEvents({ projectId, maxReconnectAttempts: 5, reconnectDelay: 1000, maxReconnectDelay: 30_000, autoConnect: false });
  useRunEvents();
  return null;
}

interface Mine {
  moved: { x: number };
  said: string;
}
const useMine = createEventHook<Mine, { readonly moves: readonly ["moved"] }>({ moves: ["moved"] });
// @ts-expect-error the catalog has no such event
createEventHook<Mine, { readonly moves: readonly ["removed"] }>({ moves: ["removed"] });

export function Other(): null {
  const { subscribe, subscribe_category } = useMine();
  subscribe("said", (event) => exactly<typeof event.data, string>(true));
  subscribe_category("moves", (event) => exactly<typeof event.data, { x: number }>(true));
  return null;
}

const client = connect<RunsEvents>({ url: "ws://127.0.0.1:8080/ws", WebSocket: WsWebSocket });
client.on("stage-progress", (event) => exactly<typeof event.data.progress, number>(true));
// @ts-expect-error no event of this catalog
client.on("x", () => {});
client.onEvent((event) => {
  exactly<typeof event.data, unknown>(true);
  if (isStageProgress(event)) exactly<typeof event.data.progress, number>(true);
});
// Without a catalog every name goes, and nothing is known of the data.
connect({ WebSocket: globalThis.WebSocket }).on("x", (event) => exactly<typeof event.data, unknown>(true));
// @ts-expect-error no such policy
client.subscribe("a", { policy: "drop-all" });

exactly<(typeof runsCategories.run)[number], "run-created" | "run-started" | "run-completed" | "run-failed">(true);

// The samples that the tests publish have every member there is, each of its type.
samples satisfies { [N in keyof RunsEvents]: Required<RunsEvents[N]> };

export function guards(message: unknown): void {
  if (isEvent(message)) exactly<typeof message, AnyEvent>(true);
  else if (isGap(message)) exactly<typeof message.data.dropped, number>(true);
}

export async function publish(publisher: Publisher, target: Target): Promise<void> {
  const data: RunsEvents["stage-progress"] = { runId: "42", stageId: "fetch", progress: 50 };
  await broadcastStageProgress(publisher, target, data);
  await broadcastStageProgress(httpPublisher({ url: "http://127.0.0.1:8080" }), { run: "42" }, data);
  // @ts-expect-error not the data of this event
  await broadcastStageProgress(publisher, "all", { ...data, progress: "half" });
  const http = httpPublisher({ url: "http://127.0.0.1:8080" });
  const told = await http.publish(target, "stage", "x", data, { receipt: true, idempotencyKey: "k" });
  exactly<typeof told.receipt, Receipt | undefined>(true);
  // @ts-expect-error no such option
  await http.publish(target, "stage", "x", data, { key: "k" });
  // @ts-expect-error neither "all" nor a target
  await broadcastStageProgress(publisher, "everyone", data);
}
