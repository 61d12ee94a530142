"""Actions on tasks from the page."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from anysched import ScheduledTask

from .index import TaskIndex
from .query import status_of

__all__ = ["ACTIONS", "act", "actions_for"]

ACTIONS = ("run", "postpone", "pause", "resume", "cancel")
MAX_POSTPONE = 366 * 86_400.0


def actions_for(task: ScheduledTask[Any]) -> list[str]:
    """Return the actions that are currently possible for a task."""
    match status_of(task):
        case "pending":
            return ["run", "postpone", "pause", "cancel"]
        case "paused":
            return ["postpone", "resume", "cancel"]
        case _:
            return ["cancel"]


def act(task: ScheduledTask[Any], index: TaskIndex, action: object, seconds: object) -> None:
    """Perform an action on a task.

    Args:
        task: The task.
        index: The index that contains it.
        action: One of `ACTIONS`.
        seconds: By how many seconds to postpone it.

    Raises:
        HTTPException: if the action is invalid or not (or no longer) possible.
    """
    if action not in ACTIONS:
        raise HTTPException(400, f"unknown action; the actions are {', '.join(ACTIONS)}")
    if action not in actions_for(task):
        raise HTTPException(409, f"the task is {status_of(task)} now")
    match action:
        case "cancel":
            task.cancel()
        case "run":
            task.reschedule_later(0)
        case "postpone":
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_POSTPONE:
                raise HTTPException(400, "seconds must be a positive number, at most a year")
            (left,) = index.scheduler.seconds_until_due([task])
            task.reschedule_later(max(left or 0, 0) + seconds)
        case "pause":
            task.pause()
        case _:
            task.resume()
