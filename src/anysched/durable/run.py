"""What a handler can ask about the run that it is in."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from .values import TaskId

__all__ = ["DurableRun", "current_run", "running"]


class Owner(Protocol):
    """What has started a run."""

    def was_cancelled(self, generation: int) -> bool:
        """Return whether a call has taken a running task out of the store."""
        ...


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
        cancelled: While the run is in progress: whether a call has cancelled or replaced the task, so that there is no other
            attempt. A run that gets a cancellation without it is interrupted, as by closing, and is run again: work that it has
            handed to others may then go on, for the next attempt to find by the key.
    """

    task_id: TaskId
    due: datetime
    attempt: int
    key: str
    generation: int
    owner: Owner = field(repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether a call has cancelled or replaced the task."""
        return self.owner.was_cancelled(self.generation)


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
