# Made by `fanwire generate python` from the catalog `runs`: change that, not this.
"""Runs of a pipeline: their stages, artifacts and approvals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, TypedDict, Union

from fanwire_events import Publisher, Target

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Required


class RunCreatedData(TypedDict, total=False):
    """A run was created."""

    runId: Required[str]
    """Which run (not empty)."""
    config: NotRequired[Dict[str, Any]]
    """What it was asked to do."""
    createdAt: NotRequired[str]
    """When (date-time)."""
    name: NotRequired[str]
    """The run's name."""
    projectId: NotRequired[str]
    """The project of the run (not empty)."""
    status: NotRequired[str]
    """Its state."""
    userId: NotRequired[str]
    """Who started the run (not empty)."""


class RunStartedData(TypedDict, total=False):
    """A run started."""

    runId: Required[str]
    """Which run (not empty)."""
    projectId: NotRequired[str]
    """The project of the run (not empty)."""
    startedAt: NotRequired[str]
    """When (date-time)."""
    totalStages: NotRequired[int]
    """How many stages it has (at least 0)."""
    userId: NotRequired[str]
    """Who started the run (not empty)."""


class RunCompletedData(TypedDict, total=False):
    """A run ended well."""

    runId: Required[str]
    """Which run (not empty)."""
    completedAt: NotRequired[str]
    """When (date-time)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    projectId: NotRequired[str]
    """The project of the run (not empty)."""
    result: NotRequired[Any]
    """What came of it."""
    status: NotRequired[str]
    """How it ended."""


class RunFailedData(TypedDict, total=False):
    """A run failed."""

    runId: Required[str]
    """Which run (not empty)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    error: NotRequired[Union[str, Dict[str, Any]]]
    """What went wrong: a message, or an object that holds one."""
    failedAt: NotRequired[str]
    """When (date-time)."""
    projectId: NotRequired[str]
    """The project of the run (not empty)."""
    stageId: NotRequired[str]
    """The stage that failed (not empty)."""


class StageStartedData(TypedDict, total=False):
    """A stage started."""

    runId: Required[str]
    """Which run (not empty)."""
    stageId: Required[str]
    """Which stage of the run (not empty)."""
    stageIndex: NotRequired[int]
    """Its place in the run, from 0 (at least 0)."""
    stageName: NotRequired[str]
    """The stage's name."""
    startedAt: NotRequired[str]
    """When (date-time)."""
    totalStages: NotRequired[int]
    """How many stages there are (at least 0)."""


class StageProgressData(TypedDict, total=False):
    """How far a stage has come."""

    runId: Required[str]
    """Which run (not empty)."""
    stageId: Required[str]
    """Which stage of the run (not empty)."""
    progress: Required[float]
    """Percent done (0 to 100)."""
    itemsDone: NotRequired[int]
    """Items done (at least 0)."""
    itemsTotal: NotRequired[int]
    """Items in all (at least 0)."""
    message: NotRequired[str]
    """What it is doing."""
    stageName: NotRequired[str]
    """The stage's name."""


class StageCompletedData(TypedDict, total=False):
    """A stage ended well."""

    runId: Required[str]
    """Which run (not empty)."""
    stageId: Required[str]
    """Which stage of the run (not empty)."""
    completedAt: NotRequired[str]
    """When (date-time)."""
    durationMs: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    output: NotRequired[Any]
    """What came of it."""
    stageName: NotRequired[str]
    """The stage's name."""


class StageFailedData(TypedDict, total=False):
    """A stage failed."""

    runId: Required[str]
    """Which run (not empty)."""
    stageId: Required[str]
    """Which stage of the run (not empty)."""
    error: NotRequired[Union[str, Dict[str, Any]]]
    """What went wrong: a message, or an object that holds one."""
    failedAt: NotRequired[str]
    """When (date-time)."""
    retryable: NotRequired[bool]
    """Whether another attempt may succeed."""
    stageName: NotRequired[str]
    """The stage's name."""


class ArtifactCreatedData(TypedDict, total=False):
    """An artifact was created."""

    runId: Required[str]
    """Which run (not empty)."""
    artifactId: Required[str]
    """Which artifact (not empty)."""
    createdAt: NotRequired[str]
    """When (date-time)."""
    name: NotRequired[str]
    """Its name."""
    sizeBytes: NotRequired[int]
    """Its size, in bytes (at least 0)."""
    stageId: NotRequired[str]
    """Which stage of the run (not empty)."""
    type: NotRequired[str]
    """What it is."""
    url: NotRequired[str]
    """Where it is."""


class GovernanceRequiredData(TypedDict, total=False):
    """A run waits for an approval."""

    runId: Required[str]
    """Which run (not empty)."""
    approvalId: NotRequired[str]
    """Which approval (not empty)."""
    expiresAt: NotRequired[Optional[str]]
    """Until when it may be given (date-time)."""
    policy: NotRequired[str]
    """The policy that asks for it."""
    reason: NotRequired[str]
    """Why it is needed."""
    requestedAt: NotRequired[str]
    """When it was asked for (date-time)."""
    requiredRole: NotRequired[str]
    """Who may give it."""
    stageId: NotRequired[str]
    """Which stage of the run (not empty)."""


class ApprovalGrantedData(TypedDict, total=False):
    """An approval was given."""

    runId: Required[str]
    """Which run (not empty)."""
    approvalId: NotRequired[str]
    """Which approval (not empty)."""
    approvedAt: NotRequired[str]
    """When (date-time)."""
    approvedBy: NotRequired[str]
    """Who gave it."""
    comment: NotRequired[str]
    """What they said."""
    stageId: NotRequired[str]
    """Which stage of the run (not empty)."""


class ApprovalDeniedData(TypedDict, total=False):
    """An approval was denied."""

    runId: Required[str]
    """Which run (not empty)."""
    approvalId: NotRequired[str]
    """Which approval (not empty)."""
    deniedAt: NotRequired[str]
    """When (date-time)."""
    deniedBy: NotRequired[str]
    """Who denied it."""
    reason: NotRequired[str]
    """Why."""
    stageId: NotRequired[str]
    """Which stage of the run (not empty)."""


CATEGORIES: Dict[str, Tuple[str, ...]] = {
    "run": ("run-created", "run-started", "run-completed", "run-failed",),
    "stage": ("stage-started", "stage-progress", "stage-completed", "stage-failed",),
    "artifact": ("artifact-created",),
    "governance": ("governance-required", "approval-granted", "approval-denied",),
}
"""The events of each category."""


def broadcast_run_created(publisher: Publisher, target: Target, data: RunCreatedData) -> None:
    """Publishes `run-created`: A run was created."""
    publisher.publish(target, "run", "run-created", data)


def broadcast_run_started(publisher: Publisher, target: Target, data: RunStartedData) -> None:
    """Publishes `run-started`: A run started."""
    publisher.publish(target, "run", "run-started", data)


def broadcast_run_completed(publisher: Publisher, target: Target, data: RunCompletedData) -> None:
    """Publishes `run-completed`: A run ended well."""
    publisher.publish(target, "run", "run-completed", data)


def broadcast_run_failed(publisher: Publisher, target: Target, data: RunFailedData) -> None:
    """Publishes `run-failed`: A run failed."""
    publisher.publish(target, "run", "run-failed", data)


def broadcast_stage_started(publisher: Publisher, target: Target, data: StageStartedData) -> None:
    """Publishes `stage-started`: A stage started."""
    publisher.publish(target, "stage", "stage-started", data)


def broadcast_stage_progress(publisher: Publisher, target: Target, data: StageProgressData) -> None:
    """Publishes `stage-progress`: How far a stage has come."""
    publisher.publish(target, "stage", "stage-progress", data)


def broadcast_stage_completed(publisher: Publisher, target: Target, data: StageCompletedData) -> None:
    """Publishes `stage-completed`: A stage ended well."""
    publisher.publish(target, "stage", "stage-completed", data)


def broadcast_stage_failed(publisher: Publisher, target: Target, data: StageFailedData) -> None:
    """Publishes `stage-failed`: A stage failed."""
    publisher.publish(target, "stage", "stage-failed", data)


def broadcast_artifact_created(publisher: Publisher, target: Target, data: ArtifactCreatedData) -> None:
    """Publishes `artifact-created`: An artifact was created."""
    publisher.publish(target, "artifact", "artifact-created", data)


def broadcast_governance_required(publisher: Publisher, target: Target, data: GovernanceRequiredData) -> None:
    """Publishes `governance-required`: A run waits for an approval."""
    publisher.publish(target, "governance", "governance-required", data)


def broadcast_approval_granted(publisher: Publisher, target: Target, data: ApprovalGrantedData) -> None:
    """Publishes `approval-granted`: An approval was given."""
    publisher.publish(target, "governance", "approval-granted", data)


def broadcast_approval_denied(publisher: Publisher, target: Target, data: ApprovalDeniedData) -> None:
    """Publishes `approval-denied`: An approval was denied."""
    publisher.publish(target, "governance", "approval-denied", data)
