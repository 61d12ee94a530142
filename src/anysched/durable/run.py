"""Information for a handler about the current run."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from .values import TaskId

__all__ = ["DurableRun", "current_run", "running"]


class Owner(Protocol):
    """The engine that started a run."""

    def was_cancelled(self, generation: int) -> bool:
        """Return whether a call has removed a running task from the store."""
        ...


@dataclass(frozen=True, slots=True)
class DurableRun:
    """A run of a durable task; see `current_run`.

    Attributes:
        task_id: The ID of the task.
        due: When the run was due (aware UTC).
        attempt: The number of the attempt, counted from 1. Each interruption of the run adds one.
        key: A text that is the same for every attempt at this run, and different for all other runs of any store. Pass
            it on as an idempotency key, a nonce or a unique column where a second attempt must be recognised.
        generation: The number of the task in the store.
        cancelled: While the run is in progress: whether a call has cancelled or replaced the task, so that there are no
            further attempts. If the run is cancelled and this is false, it was interrupted, as by closing, and it will
            run again. Then external work that it has started may continue, and the next attempt can find it by the key.
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
    """Return the run of the durable task in which the caller runs.

    It is looked up in the context, so it is also found in the handler's child tasks.

    Raises:
        RuntimeError: if the caller is not in a handler of a durable task.
    """
    try:
        return running.get()
    except LookupError:
        raise RuntimeError("current_run() was called outside of a handler of a durable task") from None
