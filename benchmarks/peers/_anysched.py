"""`anysched`, given coroutine objects, as pydis_core is; and given functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from anysched import Scheduler

from ._peer import Work

__all__ = ["Coroutines", "Functions"]


class _Anysched:
    def __init__(self) -> None:
        self._scheduler = Scheduler("bench")

    async def __aenter__(self) -> Self:
        await self._scheduler.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._scheduler.__aexit__(None, None, None)

    async def cancel(self, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.reschedule_later(delay, task_id)


class Coroutines(_Anysched):
    """A coroutine object is handed over."""

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule(task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule_later(delay, task_id, work())

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)
            scheduler.schedule_later(delay, task_id, work())


class Functions(_Anysched):
    """A coroutine function is handed over: the coroutine is made when the task starts."""

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule(task_id, work)

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.schedule_later(delay, task_id, work)

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scheduler = self._scheduler
        for task_id in ids:
            scheduler.cancel(task_id)
            scheduler.schedule_later(delay, task_id, work)
