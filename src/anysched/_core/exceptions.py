"""The exceptions of this package."""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

from .texts import format_value

__all__ = ["DuplicateTaskError"]


@final
class DuplicateTaskError(ValueError):
    """Raised with ``on_conflict="error"`` if the ID is already held; the new coroutine was closed.

    Attributes:
        scheduler: The name of the scheduler.
        task_id: The ID that is held.
    """

    def __init__(self, scheduler: str, task_id: Hashable) -> None:
        super().__init__(scheduler, task_id)
        self.scheduler = scheduler
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"scheduler {self.scheduler!r} already holds a task with the ID {format_value(self.task_id)}; cancel it first, "
            f'or pass on_conflict="replace", "follow" or "keep"'
        )
