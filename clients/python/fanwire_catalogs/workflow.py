# Made by `fanwire generate python` from the catalog `workflow`: change that, not this.
"""What one run of a workflow streams to those who watch it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Literal, Optional, Tuple, TypedDict

from fanwire_events import Publisher, Target

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Required


class StepStartData(TypedDict, total=False):
    """A step begins."""

    stepId: Required[str]
    """Which step (not empty)."""
    stepName: NotRequired[str]
    """Its name."""


class StepCompleteData(TypedDict, total=False):
    """A step ended."""

    stepId: Required[str]
    """Which step (not empty)."""
    status: Required[str]
    """How it ended, such as success (not empty)."""
    duration: NotRequired[float]
    """How long it took, in milliseconds (at least 0)."""
    error: NotRequired[Optional[str]]
    """What went wrong, where it failed."""
    stepName: NotRequired[str]
    """Its name."""


class StepLogData(TypedDict, total=False):
    """A line of a step's log."""

    stepId: Required[str]
    """Which step (not empty)."""
    level: Required[Literal["debug", "info", "warn", "error"]]
    """How grave it is."""
    message: Required[str]
    """The line."""
    timestamp: NotRequired[str]
    """When it was written (date-time)."""


class VariableChangeData(TypedDict, total=False):
    """A variable of the run changed."""

    varName: Required[str]
    """Which variable (not empty)."""
    changeType: Required[Literal["create", "update", "delete"]]
    """What happened to it."""
    newValue: NotRequired[Any]
    """Its value now; null where there is none."""
    oldValue: NotRequired[Any]
    """Its value before; null where there was none."""
    stepId: NotRequired[str]
    """Which step (not empty)."""


CATEGORIES: Dict[str, Tuple[str, ...]] = {
    "run": ("step_start", "step_complete", "step_log", "variable_change",),
}
"""The events of each category."""


def broadcast_step_start(publisher: Publisher, target: Target, data: StepStartData) -> None:
    """Publishes `step_start`: A step begins."""
    publisher.publish(target, "run", "step_start", data)


def broadcast_step_complete(publisher: Publisher, target: Target, data: StepCompleteData) -> None:
    """Publishes `step_complete`: A step ended."""
    publisher.publish(target, "run", "step_complete", data)


def broadcast_step_log(publisher: Publisher, target: Target, data: StepLogData) -> None:
    """Publishes `step_log`: A line of a step's log."""
    publisher.publish(target, "run", "step_log", data)


def broadcast_variable_change(publisher: Publisher, target: Target, data: VariableChangeData) -> None:
    """Publishes `variable_change`: A variable of the run changed."""
    publisher.publish(target, "run", "variable_change", data)
