# Made by `fanwire generate python` from the catalog `conductor`: change that, not this.
"""Error recovery, schedules, webhooks and dead letters of a workflow service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, TypedDict

from fanwire_events import Publisher, Target

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Required


class RetryStartedData(TypedDict, total=False):
    """A retry attempt was initiated."""

    retryId: Required[str]
    """Which retry (not empty)."""
    attemptNumber: Required[int]
    """Which attempt (at least 0)."""
    errorMessage: NotRequired[str]
    """What went wrong before."""
    maxAttempts: NotRequired[int]
    """After how many attempts it gives up (at least 0)."""
    nextRetryAt: NotRequired[Optional[str]]
    """When the next attempt is due, if there is to be one (date-time)."""


class RetryCompletedData(TypedDict, total=False):
    """A retry attempt was completed."""

    retryId: Required[str]
    """Which retry (not empty)."""
    attemptNumber: NotRequired[int]
    """Which attempt (at least 0)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    errorMessage: NotRequired[Optional[str]]
    """What went wrong, where it failed."""
    success: NotRequired[bool]
    """Whether it succeeded."""


class ErrorResolvedData(TypedDict, total=False):
    """An error has been resolved."""

    errorId: Required[str]
    """Which error (not empty)."""
    resolution: NotRequired[str]
    """How it was resolved."""
    resolvedAt: NotRequired[str]
    """When (date-time)."""
    resolvedBy: NotRequired[str]
    """Who or what resolved it."""
    retryId: NotRequired[str]
    """The retry that resolved it (not empty)."""


class CircuitBreakerStateChangedData(TypedDict, total=False):
    """A circuit breaker changed its state."""

    newState: Required[str]
    """The state now: closed, open or half-open (not empty)."""
    circuitBreakerId: NotRequired[str]
    """Which breaker (not empty)."""
    failureCount: NotRequired[int]
    """Failures that it has counted (at least 0)."""
    nextAttemptAt: NotRequired[Optional[str]]
    """When an open breaker lets a call through again (date-time)."""
    previousState: NotRequired[str]
    """The state before: closed, open or half-open."""
    service: NotRequired[str]
    """What the breaker protects (not empty)."""


class ScheduleExecutedData(TypedDict, total=False):
    """The execution of a schedule started."""

    scheduleId: Required[str]
    """Which schedule (not empty)."""
    executedAt: NotRequired[str]
    """When it started (date-time)."""
    executionId: NotRequired[str]
    """Which execution (not empty)."""
    nextRunAt: NotRequired[Optional[str]]
    """When the schedule is due again (date-time)."""


class ExecutionCompletedData(TypedDict, total=False):
    """An execution finished."""

    executionId: Required[str]
    """Which execution (not empty)."""
    completedAt: NotRequired[str]
    """When it ended (date-time)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    errorMessage: NotRequired[Optional[str]]
    """What went wrong, where it failed."""
    scheduleId: NotRequired[str]
    """The schedule that it belongs to (not empty)."""
    status: NotRequired[str]
    """How it ended."""
    success: NotRequired[bool]
    """Whether it succeeded."""


class ScheduleCreatedData(TypedDict, total=False):
    """A new schedule was created."""

    scheduleId: Required[str]
    """Which schedule (not empty)."""
    createdBy: NotRequired[str]
    """Who made it."""
    cronExpression: NotRequired[str]
    """When it is due."""
    enabled: NotRequired[bool]
    """Whether it runs."""
    name: NotRequired[str]
    """Its name."""
    nextRunAt: NotRequired[Optional[str]]
    """When it is first due (date-time)."""
    timezone: NotRequired[str]
    """The time zone of that."""


class ScheduleDeletedData(TypedDict, total=False):
    """A schedule was removed."""

    scheduleId: Required[str]
    """Which schedule (not empty)."""
    deletedBy: NotRequired[str]
    """Who removed it."""
    reason: NotRequired[str]
    """Why."""


class WebhookDeliveredData(TypedDict, total=False):
    """A delivery succeeded."""

    webhookId: Required[str]
    """Which webhook (not empty)."""
    attemptNumber: NotRequired[int]
    """Which attempt (at least 0)."""
    deliveryId: NotRequired[str]
    """Which delivery (not empty)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    statusCode: NotRequired[int]
    """The HTTP status of the answer (100 to 599)."""
    url: NotRequired[str]
    """Where it went."""


class WebhookFailedData(TypedDict, total=False):
    """A delivery failed."""

    webhookId: Required[str]
    """Which webhook (not empty)."""
    attemptNumber: NotRequired[int]
    """Which attempt (at least 0)."""
    deliveryId: NotRequired[str]
    """Which delivery (not empty)."""
    errorMessage: NotRequired[str]
    """What went wrong."""
    nextRetryAt: NotRequired[Optional[str]]
    """When the next attempt is due, if there is to be one (date-time)."""
    statusCode: NotRequired[Optional[int]]
    """The HTTP status of the answer, if there was one (100 to 599)."""
    url: NotRequired[str]
    """Where it should have gone."""


class WebhookRegisteredData(TypedDict, total=False):
    """A new webhook was registered."""

    webhookId: Required[str]
    """Which webhook (not empty)."""
    active: NotRequired[bool]
    """Whether it is called."""
    events: NotRequired[List[str]]
    """What it is called for."""
    url: NotRequired[str]
    """Where it delivers to."""


class EntryAddedData(TypedDict, total=False):
    """A message was added to the queue."""

    entryId: Required[str]
    """Which entry (not empty)."""
    attempts: NotRequired[int]
    """How often it was tried (at least 0)."""
    errorMessage: NotRequired[str]
    """What went wrong."""
    payload: NotRequired[Any]
    """The message itself."""
    queue: NotRequired[str]
    """The queue that it came from."""
    source: NotRequired[str]
    """What failed with it."""


class EntryResolvedData(TypedDict, total=False):
    """An entry was resolved."""

    entryId: Required[str]
    """Which entry (not empty)."""
    resolution: NotRequired[str]
    """How it was resolved."""
    resolvedAt: NotRequired[str]
    """When (date-time)."""
    resolvedBy: NotRequired[str]
    """Who resolved it."""


class EntryResubmittedData(TypedDict, total=False):
    """An entry was submitted again."""

    entryId: Required[str]
    """Which entry (not empty)."""
    newJobId: NotRequired[str]
    """What it became (not empty)."""
    resubmittedAt: NotRequired[str]
    """When (date-time)."""
    resubmittedBy: NotRequired[str]
    """Who submitted it."""


CATEGORIES: Dict[str, Tuple[str, ...]] = {
    "error-recovery": ("retry-started", "retry-completed", "error-resolved", "circuit-breaker-state-changed",),
    "scheduler": ("schedule-executed", "execution-completed", "schedule-created", "schedule-deleted",),
    "webhook": ("webhook-delivered", "webhook-failed", "webhook-registered",),
    "dlq": ("entry-added", "entry-resolved", "entry-resubmitted",),
}
"""The events of each category."""


def broadcast_retry_started(publisher: Publisher, target: Target, data: RetryStartedData) -> None:
    """Publishes `retry-started`: A retry attempt was initiated."""
    publisher.publish(target, "error-recovery", "retry-started", data)


def broadcast_retry_completed(publisher: Publisher, target: Target, data: RetryCompletedData) -> None:
    """Publishes `retry-completed`: A retry attempt was completed."""
    publisher.publish(target, "error-recovery", "retry-completed", data)


def broadcast_error_resolved(publisher: Publisher, target: Target, data: ErrorResolvedData) -> None:
    """Publishes `error-resolved`: An error has been resolved."""
    publisher.publish(target, "error-recovery", "error-resolved", data)


def broadcast_circuit_breaker_state_changed(publisher: Publisher, target: Target, data: CircuitBreakerStateChangedData) -> None:
    """Publishes `circuit-breaker-state-changed`: A circuit breaker changed its state."""
    publisher.publish(target, "error-recovery", "circuit-breaker-state-changed", data)


def broadcast_schedule_executed(publisher: Publisher, target: Target, data: ScheduleExecutedData) -> None:
    """Publishes `schedule-executed`: The execution of a schedule started."""
    publisher.publish(target, "scheduler", "schedule-executed", data)


def broadcast_execution_completed(publisher: Publisher, target: Target, data: ExecutionCompletedData) -> None:
    """Publishes `execution-completed`: An execution finished."""
    publisher.publish(target, "scheduler", "execution-completed", data)


def broadcast_schedule_created(publisher: Publisher, target: Target, data: ScheduleCreatedData) -> None:
    """Publishes `schedule-created`: A new schedule was created."""
    publisher.publish(target, "scheduler", "schedule-created", data)


def broadcast_schedule_deleted(publisher: Publisher, target: Target, data: ScheduleDeletedData) -> None:
    """Publishes `schedule-deleted`: A schedule was removed."""
    publisher.publish(target, "scheduler", "schedule-deleted", data)


def broadcast_webhook_delivered(publisher: Publisher, target: Target, data: WebhookDeliveredData) -> None:
    """Publishes `webhook-delivered`: A delivery succeeded."""
    publisher.publish(target, "webhook", "webhook-delivered", data)


def broadcast_webhook_failed(publisher: Publisher, target: Target, data: WebhookFailedData) -> None:
    """Publishes `webhook-failed`: A delivery failed."""
    publisher.publish(target, "webhook", "webhook-failed", data)


def broadcast_webhook_registered(publisher: Publisher, target: Target, data: WebhookRegisteredData) -> None:
    """Publishes `webhook-registered`: A new webhook was registered."""
    publisher.publish(target, "webhook", "webhook-registered", data)


def broadcast_entry_added(publisher: Publisher, target: Target, data: EntryAddedData) -> None:
    """Publishes `entry-added`: A message was added to the queue."""
    publisher.publish(target, "dlq", "entry-added", data)


def broadcast_entry_resolved(publisher: Publisher, target: Target, data: EntryResolvedData) -> None:
    """Publishes `entry-resolved`: An entry was resolved."""
    publisher.publish(target, "dlq", "entry-resolved", data)


def broadcast_entry_resubmitted(publisher: Publisher, target: Target, data: EntryResubmittedData) -> None:
    """Publishes `entry-resubmitted`: An entry was submitted again."""
    publisher.publish(target, "dlq", "entry-resubmitted", data)
