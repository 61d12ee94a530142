"""What a handler can ask about the run that it is in."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from .values import TaskId

__all__ = ["DurableRun", "current_run", "running"]


@dataclass(frozen=True, slots=True)
class DurableRun:
    """A run of a durable task; see `current_run`.

    Attributes:
        task_id: The ID of the task.
        due: When the run was due (aware UTC).
        attempt: 1 at first, and one more each time that the run was interrupted and is run again.
        key: A text that is the same for every attempt at this run, and for no other run of any store. Pass it on to
            where a second attempt must be recognised: as an idempotency key, a nonce, a unique column.
        generation: The number of the task in the store.
    """

    task_id: TaskId
    due: datetime
    attempt: int
    key: str
    generation: int
    owner: object = field(repr=False, compare=False)


running: ContextVar[DurableRun] = ContextVar("anysched_durable_run")


def current_run() -> DurableRun:
    """Return the run of the durable task in which the caller is.

    It is found through the context, so that it is also found in the handler's child tasks.

    Raises:
        RuntimeError: if the caller is not in a handler of a durable task.
    """
    try:
        return running.get()
    except LookupError:
        raise RuntimeError("current_run() was called outside of a handler of a durable task") from None
