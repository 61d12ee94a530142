"""`pydis_core.utils.scheduling`, out of which `anysched` grew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydis_core.utils.scheduling import Scheduler

from ._peer import CannotDoError, Work

__all__ = ["PydisCore"]


class PydisCore:
    """Each ID is an asyncio task, which sleeps until it is due."""

    def __init__(self) -> None:
        self._scheduler = Scheduler("bench")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._scheduler.cancel_all()

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule(task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule_later(delay, task_id, work())

    async def cancel(self, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)
            scheduler.schedule_later(delay, task_id, work())

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError
