"""Actions on tasks from the page."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from anysched import ScheduledTask
from anysched.durable import DurableTask

from .durable import DurableView
from .durable import status_of as status_of_stored
from .index import TaskIndex
from .query import status_of

__all__ = ["ACTIONS", "act", "act_on_stored", "actions_for", "actions_for_stored"]

ACTIONS = ("run", "postpone", "pause", "resume", "retry", "cancel")
MAX_POSTPONE = 366 * 86_400.0


def actions_for(task: ScheduledTask[Any]) -> list[str]:
    """Return the actions that are currently possible for a task."""
    return _actions_for(status_of(task))


def actions_for_stored(task: DurableTask) -> list[str]:
    """Return the actions that are currently possible for a task in a store."""
    return _actions_for(status_of_stored(task))


def _actions_for(status: str) -> list[str]:
    match status:
        case "pending":
            return ["run", "postpone", "pause", "cancel"]
        case "paused":
            return ["postpone", "resume", "cancel"]
        case "parked":
            return ["retry", "cancel"]
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
    delay = _checked(action, status_of(task), seconds)
    match action:
        case "cancel":
            task.cancel()
        case "run":
            task.reschedule_later(0)
        case "postpone":
            (left,) = index.scheduler.seconds_until_due([task])
            task.reschedule_later(max(left or 0, 0) + delay)
        case "pause":
            task.pause()
        case _:
            task.resume()


async def act_on_stored(task: DurableTask, view: DurableView, action: object, seconds: object) -> None:
    """Do something to a task in a store; see `act`.

    Raises:
        HTTPException: as `act`, and if the store fails.
    """
    delay = _checked(action, status_of_stored(task), seconds)
    try:
        done = await view.act(task, str(action), delay)
    except RuntimeError as error:  # the store fails, or the scheduler has been closed
        raise HTTPException(503, str(error)) from None
    if not done:
        raise HTTPException(409, "the task is no longer in that state")


def _checked(action: object, status: str, seconds: object) -> float:
    """Check an action and return by how many seconds it postpones."""
    if action not in ACTIONS:
        raise HTTPException(400, f"unknown action; the actions are {', '.join(ACTIONS)}")
    if action not in _actions_for(status):
        raise HTTPException(409, f"the task is {status} now")
    if action != "postpone":
        return 0
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_POSTPONE:
        raise HTTPException(400, "seconds must be a positive number, at most a year")
    return seconds
