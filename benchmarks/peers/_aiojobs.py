"""`aiojobs`, which has neither IDs nor delays: a dict, and jobs that sleep until they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Self

from aiojobs import Scheduler
from aiojobs._job import Job

from ._peer import CannotDoError, Work

__all__ = ["Aiojobs"]


class Aiojobs:
    """Each ID is a job in a scheduler without a limit."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job[None]] = {}

    async def __aenter__(self) -> Self:
        self._scheduler = Scheduler(limit=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._scheduler.close()

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        spawn, jobs = self._scheduler.spawn, self._jobs
        for task_id in ids:
            jobs[task_id] = await spawn(self._run(task_id, work()))

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        spawn, jobs = self._scheduler.spawn, self._jobs
        for task_id in ids:
            jobs[task_id] = await spawn(self._sleep_and_run(delay, task_id, work()))

    async def cancel(self, ids: Iterable[int]) -> None:
        for task_id in ids:
            await self._jobs.pop(task_id).close()

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        spawn, jobs = self._scheduler.spawn, self._jobs
        for task_id in ids:
            await jobs.pop(task_id).close()
            jobs[task_id] = await spawn(self._sleep_and_run(delay, task_id, work()))

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError

    async def _run(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        finally:
            self._jobs.pop(task_id, None)

    async def _sleep_and_run(self, delay: float, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.sleep(delay)
            self._jobs.pop(task_id)
            await coroutine
        finally:
            coroutine.close()
