# Made by `fanwire generate python` from the catalog `projects`: change that, not this.
"""A software project: its agents, workflows, pull requests, issues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, TypedDict, Union

from fanwire_events import Publisher, Target

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Required


class ProjectUpdatedData(TypedDict, total=False):
    """Metadata or state of the project changed."""

    project_id: Required[str]
    """Which project (not empty)."""
    changes: NotRequired[Dict[str, Any]]
    """What changed: the new value of each field."""
    project_name: NotRequired[str]
    """Its name."""
    repository_url: NotRequired[Optional[str]]
    """Its repository."""
    status: NotRequired[str]
    """Its state."""
    updated_at: NotRequired[str]
    """When, ISO 8601."""
    updated_by: NotRequired[Optional[str]]
    """Who changed it."""


class ProjectDeletedData(TypedDict, total=False):
    """The project was deleted."""

    project_id: Required[str]
    """Which project (not empty)."""
    deleted_at: NotRequired[str]
    """When, ISO 8601."""
    deleted_by: NotRequired[Optional[str]]
    """Who deleted it."""
    project_name: NotRequired[str]
    """Its name."""


class AgentStatusChangedData(TypedDict, total=False):
    """An agent's availability changed."""

    agent_id: Required[str]
    """Which agent (not empty)."""
    status: Required[str]
    """Its state now."""
    agent_name: NotRequired[str]
    """Its name."""
    changed_at: NotRequired[str]
    """When, ISO 8601."""
    current_task: NotRequired[Optional[str]]
    """What it is doing."""
    previous_status: NotRequired[Optional[str]]
    """Its state before."""
    project_id: NotRequired[Optional[str]]
    """The project that it works on."""


class AgentConnectedData(TypedDict, total=False):
    """An agent came online."""

    agent_id: Required[str]
    """Which agent (not empty)."""
    agent_name: NotRequired[str]
    """Its name."""
    capabilities: NotRequired[List[str]]
    """What it can do."""
    connected_at: NotRequired[str]
    """When, ISO 8601."""
    status: NotRequired[str]
    """Its state."""


class AgentDisconnectedData(TypedDict, total=False):
    """An agent went offline."""

    agent_id: Required[str]
    """Which agent (not empty)."""
    agent_name: NotRequired[str]
    """Its name."""
    disconnected_at: NotRequired[str]
    """When, ISO 8601."""
    reason: NotRequired[Optional[str]]
    """Why."""


class WorkflowStartedData(TypedDict, total=False):
    """A workflow started."""

    workflow_id: Required[str]
    """Which workflow (not empty)."""
    project_id: NotRequired[str]
    """Which project (not empty)."""
    started_at: NotRequired[str]
    """When, ISO 8601."""
    started_by: NotRequired[Optional[str]]
    """Who started it."""
    status: NotRequired[str]
    """Its state."""
    total_steps: NotRequired[int]
    """How many steps it has (at least 0)."""
    workflow_name: NotRequired[str]
    """Its name."""


class WorkflowProgressData(TypedDict, total=False):
    """How far a workflow has come."""

    workflow_id: Required[str]
    """Which workflow (not empty)."""
    progress: Required[float]
    """Percent done (0 to 100)."""
    current_step: NotRequired[Optional[Union[str, int]]]
    """What it is doing."""
    message: NotRequired[Optional[str]]
    """A word about it."""
    project_id: NotRequired[str]
    """Which project (not empty)."""
    status: NotRequired[str]
    """Its state."""
    total_steps: NotRequired[int]
    """How many steps it has (at least 0)."""
    workflow_name: NotRequired[str]
    """Its name."""


class WorkflowCompletedData(TypedDict, total=False):
    """A workflow ended well."""

    workflow_id: Required[str]
    """Which workflow (not empty)."""
    completed_at: NotRequired[str]
    """When, ISO 8601."""
    duration_seconds: NotRequired[float]
    """How long it took, in seconds (at least 0)."""
    project_id: NotRequired[str]
    """Which project (not empty)."""
    result: NotRequired[Any]
    """What came of it."""
    status: NotRequired[str]
    """Its state."""
    workflow_name: NotRequired[str]
    """Its name."""


class WorkflowFailedData(TypedDict, total=False):
    """A workflow failed."""

    workflow_id: Required[str]
    """Which workflow (not empty)."""
    error: NotRequired[Union[str, Dict[str, Any]]]
    """What went wrong: a message, or an object that holds one."""
    failed_at: NotRequired[str]
    """When, ISO 8601."""
    failed_step: NotRequired[Optional[Union[str, int]]]
    """The step that failed."""
    project_id: NotRequired[str]
    """Which project (not empty)."""
    status: NotRequired[str]
    """Its state."""
    workflow_name: NotRequired[str]
    """Its name."""


class PrCreatedData(TypedDict, total=False):
    """A pull request was opened."""

    project_id: Required[str]
    """Which project (not empty)."""
    author: NotRequired[str]
    """Who wrote it."""
    description: NotRequired[Optional[str]]
    """What its author says."""
    pr_id: NotRequired[Union[str, int]]
    """Which pull request."""
    pr_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    source_branch: NotRequired[str]
    """The branch with the changes."""
    target_branch: NotRequired[str]
    """Where they should go."""
    title: NotRequired[str]
    """Its title."""
    url: NotRequired[str]
    """Where it is."""


class PrUpdatedData(TypedDict, total=False):
    """A pull request changed."""

    project_id: Required[str]
    """Which project (not empty)."""
    author: NotRequired[str]
    """Who wrote it."""
    changes: NotRequired[Dict[str, Any]]
    """What changed: the new value of each field."""
    pr_id: NotRequired[Union[str, int]]
    """Which pull request."""
    pr_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    status: NotRequired[str]
    """Its state."""
    title: NotRequired[str]
    """Its title."""
    updated_by: NotRequired[Optional[str]]
    """Who changed it."""
    url: NotRequired[str]
    """Where it is."""


class PrClosedData(TypedDict, total=False):
    """A pull request was closed or merged."""

    project_id: Required[str]
    """Which project (not empty)."""
    author: NotRequired[str]
    """Who wrote it."""
    closed_by: NotRequired[Optional[str]]
    """Who closed it."""
    merged: NotRequired[bool]
    """Whether it was merged."""
    pr_id: NotRequired[Union[str, int]]
    """Which pull request."""
    pr_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    title: NotRequired[str]
    """Its title."""
    url: NotRequired[str]
    """Where it is."""


class IssueCreatedData(TypedDict, total=False):
    """An issue was opened."""

    project_id: Required[str]
    """Which project (not empty)."""
    author: NotRequired[str]
    """Who wrote it."""
    description: NotRequired[Optional[str]]
    """What its author says."""
    issue_id: NotRequired[Union[str, int]]
    """Which issue."""
    issue_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    labels: NotRequired[List[str]]
    """Its labels."""
    status: NotRequired[str]
    """Its state."""
    title: NotRequired[str]
    """Its title."""
    url: NotRequired[str]
    """Where it is."""


class IssueUpdatedData(TypedDict, total=False):
    """An issue changed."""

    project_id: Required[str]
    """Which project (not empty)."""
    assignee: NotRequired[Optional[str]]
    """Who works on it."""
    changes: NotRequired[Dict[str, Any]]
    """What changed: the new value of each field."""
    issue_id: NotRequired[Union[str, int]]
    """Which issue."""
    issue_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    labels: NotRequired[List[str]]
    """Its labels."""
    status: NotRequired[str]
    """Its state."""
    title: NotRequired[str]
    """Its title."""
    updated_by: NotRequired[Optional[str]]
    """Who changed it."""
    url: NotRequired[str]
    """Where it is."""


class IssueClosedData(TypedDict, total=False):
    """An issue was closed."""

    project_id: Required[str]
    """Which project (not empty)."""
    closed_by: NotRequired[Optional[str]]
    """Who closed it."""
    issue_id: NotRequired[Union[str, int]]
    """Which issue."""
    issue_number: NotRequired[int]
    """Its number in the repository (at least 1)."""
    resolution: NotRequired[Optional[str]]
    """How it was resolved."""
    status: NotRequired[str]
    """Its state."""
    title: NotRequired[str]
    """Its title."""
    url: NotRequired[str]
    """Where it is."""


class AiSuggestionData(TypedDict, total=False):
    """A suggestion or recommendation."""

    confidence: NotRequired[float]
    """How sure the assistant is, from 0 to 1 (0 to 1)."""
    context: NotRequired[Dict[str, Any]]
    """What led to it."""
    project_id: NotRequired[Optional[str]]
    """The project that it is about."""
    suggestion: NotRequired[Union[str, Dict[str, Any]]]
    """The suggestion itself."""
    suggestion_id: NotRequired[str]
    """Which suggestion (not empty)."""
    title: NotRequired[str]
    """In a few words."""
    type: NotRequired[str]
    """What kind it is."""
    user_id: NotRequired[Optional[str]]
    """Who it is for."""


class AiAnalysisCompleteData(TypedDict, total=False):
    """An analysis finished."""

    analysis_id: NotRequired[str]
    """Which analysis (not empty)."""
    project_id: NotRequired[Optional[str]]
    """The project that it is about."""
    results: NotRequired[Any]
    """What was found."""
    summary: NotRequired[str]
    """In a few words."""
    type: NotRequired[str]
    """What was analysed."""


class ConnectionEstablishedData(TypedDict, total=False):
    """The client is connected."""

    userId: Required[str]
    """Who it is."""
    sid: Required[str]
    """The session (not empty)."""
    rooms: NotRequired[List[str]]
    """The rooms that it is in."""
    timestamp: NotRequired[str]
    """When (date-time)."""


class ConnectionErrorData(TypedDict, total=False):
    """The client was refused, or its token ran out."""

    message: Required[str]
    """What is wrong."""
    code: NotRequired[Union[str, int]]
    """The same for programs."""
    timestamp: NotRequired[str]
    """When (date-time)."""


CATEGORIES: Dict[str, Tuple[str, ...]] = {
    "project": ("project.updated", "project.deleted",),
    "agent": ("agent.status_changed", "agent.connected", "agent.disconnected",),
    "workflow": ("workflow.started", "workflow.progress", "workflow.completed", "workflow.failed",),
    "pr": ("pr.created", "pr.updated", "pr.closed",),
    "issue": ("issue.created", "issue.updated", "issue.closed",),
    "ai": ("ai.suggestion", "ai.analysis_complete",),
    "connection": ("connection.established", "connection.error",),
}
"""The events of each category."""


def broadcast_project_updated(publisher: Publisher, target: Target, data: ProjectUpdatedData) -> None:
    """Publishes `project.updated`: Metadata or state of the project changed."""
    publisher.publish(target, "project", "project.updated", data)


def broadcast_project_deleted(publisher: Publisher, target: Target, data: ProjectDeletedData) -> None:
    """Publishes `project.deleted`: The project was deleted."""
    publisher.publish(target, "project", "project.deleted", data)


def broadcast_agent_status_changed(publisher: Publisher, target: Target, data: AgentStatusChangedData) -> None:
    """Publishes `agent.status_changed`: An agent's availability changed."""
    publisher.publish(target, "agent", "agent.status_changed", data)


def broadcast_agent_connected(publisher: Publisher, target: Target, data: AgentConnectedData) -> None:
    """Publishes `agent.connected`: An agent came online."""
    publisher.publish(target, "agent", "agent.connected", data)


def broadcast_agent_disconnected(publisher: Publisher, target: Target, data: AgentDisconnectedData) -> None:
    """Publishes `agent.disconnected`: An agent went offline."""
    publisher.publish(target, "agent", "agent.disconnected", data)


def broadcast_workflow_started(publisher: Publisher, target: Target, data: WorkflowStartedData) -> None:
    """Publishes `workflow.started`: A workflow started."""
    publisher.publish(target, "workflow", "workflow.started", data)


def broadcast_workflow_progress(publisher: Publisher, target: Target, data: WorkflowProgressData) -> None:
    """Publishes `workflow.progress`: How far a workflow has come."""
    publisher.publish(target, "workflow", "workflow.progress", data)


def broadcast_workflow_completed(publisher: Publisher, target: Target, data: WorkflowCompletedData) -> None:
    """Publishes `workflow.completed`: A workflow ended well."""
    publisher.publish(target, "workflow", "workflow.completed", data)


def broadcast_workflow_failed(publisher: Publisher, target: Target, data: WorkflowFailedData) -> None:
    """Publishes `workflow.failed`: A workflow failed."""
    publisher.publish(target, "workflow", "workflow.failed", data)


def broadcast_pr_created(publisher: Publisher, target: Target, data: PrCreatedData) -> None:
    """Publishes `pr.created`: A pull request was opened."""
    publisher.publish(target, "pr", "pr.created", data)


def broadcast_pr_updated(publisher: Publisher, target: Target, data: PrUpdatedData) -> None:
    """Publishes `pr.updated`: A pull request changed."""
    publisher.publish(target, "pr", "pr.updated", data)


def broadcast_pr_closed(publisher: Publisher, target: Target, data: PrClosedData) -> None:
    """Publishes `pr.closed`: A pull request was closed or merged."""
    publisher.publish(target, "pr", "pr.closed", data)


def broadcast_issue_created(publisher: Publisher, target: Target, data: IssueCreatedData) -> None:
    """Publishes `issue.created`: An issue was opened."""
    publisher.publish(target, "issue", "issue.created", data)


def broadcast_issue_updated(publisher: Publisher, target: Target, data: IssueUpdatedData) -> None:
    """Publishes `issue.updated`: An issue changed."""
    publisher.publish(target, "issue", "issue.updated", data)


def broadcast_issue_closed(publisher: Publisher, target: Target, data: IssueClosedData) -> None:
    """Publishes `issue.closed`: An issue was closed."""
    publisher.publish(target, "issue", "issue.closed", data)


def broadcast_ai_suggestion(publisher: Publisher, target: Target, data: AiSuggestionData) -> None:
    """Publishes `ai.suggestion`: A suggestion or recommendation."""
    publisher.publish(target, "ai", "ai.suggestion", data)


def broadcast_ai_analysis_complete(publisher: Publisher, target: Target, data: AiAnalysisCompleteData) -> None:
    """Publishes `ai.analysis_complete`: An analysis finished."""
    publisher.publish(target, "ai", "ai.analysis_complete", data)


def broadcast_connection_established(publisher: Publisher, target: Target, data: ConnectionEstablishedData) -> None:
    """Publishes `connection.established`: The client is connected."""
    publisher.publish(target, "connection", "connection.established", data)


def broadcast_connection_error(publisher: Publisher, target: Target, data: ConnectionErrorData) -> None:
    """Publishes `connection.error`: The client was refused, or its token ran out."""
    publisher.publish(target, "connection", "connection.error", data)
