"""What can be done to a task from the page."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from anysched import ScheduledTask

from .index import TaskIndex
from .query import status_of

__all__ = ["ACTIONS", "act", "actions_for"]

ACTIONS = ("run", "postpone", "pause", "resume", "cancel")
MAX_POSTPONE = 366 * 86_400.0


def actions_for(task: ScheduledTask[Any], index: TaskIndex) -> list[str]:
    """Return what can be done to a task now."""
    scheduler = index.scheduler_of(task)
    if scheduler is None:
        return ["cancel"]
    status = status_of(task)
    can_pause = hasattr(scheduler, "pause")
    match status:
        case "pending":
            return ["run", "postpone", *(["pause"] if can_pause else []), "cancel"]
        case "paused":
            return ["resume", "cancel"]
        case _:
            return [*(["pause"] if can_pause else []), "cancel"]


def act(task: ScheduledTask[Any], index: TaskIndex, action: object, seconds: object) -> None:
    """Do something to a task.

    Args:
        task: The task.
        index: The index in which it is.
        action: One of `ACTIONS`.
        seconds: By how many seconds to postpone it.

    Raises:
        HTTPException: if that cannot be done (any more), or makes no sense.
    """
    if action not in ACTIONS:
        raise HTTPException(400, f"there is no such action; there are {', '.join(ACTIONS)}")
    if action not in actions_for(task, index):
        raise HTTPException(409, f"the task is {status_of(task)} now")
    scheduler: Any = index.scheduler_of(task)
    match action:
        case "cancel":
            task.cancel()
        case "run":
            scheduler.reschedule_later(0, task.task_id)
        case "postpone":
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_POSTPONE:
                raise HTTPException(400, "seconds must be a positive number, at most a year")
            (left,) = scheduler.seconds_until_due([task])
            scheduler.reschedule_later(max(left, 0) + seconds, task.task_id)
        case "pause":
            scheduler.pause(task.task_id)
        case _:
            scheduler.resume(task.task_id)
