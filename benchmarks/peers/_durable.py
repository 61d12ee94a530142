"""`anysched.durable`: each ID is a row in an SQLite file, and each call returns when that is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Self

import anyio

from anysched.durable import DurableScheduler, SQLiteStore

from ._peer import Work

__all__ = ["Durable"]

CALLERS = 256
"""How many calls wait for their commit at once, like the requests of a busy server."""


class Durable:
    """With commits that wait for the disk, the default. The runner removes the file."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="anysched-bench-"))
        self._scheduler = DurableScheduler("bench", SQLiteStore(folder / "store.db"))
        self._scheduler.handler("work")(self._handle)

    async def __aenter__(self) -> Self:
        await self._scheduler.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._scheduler.__aexit__(None, None, None)

    async def _handle(self) -> None:
        await self._work()

    async def _for_each(self, ids: Iterable[int], call: Callable[[int], Awaitable[object]]) -> None:
        left = iter(ids)

        async def caller() -> None:
            for task_id in left:
                await call(task_id)

        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(caller)

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        self._work = work
        await self._for_each(ids, lambda task_id: self._scheduler.schedule(task_id, self._handle))

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        self._work = work
        await self._for_each(ids, lambda task_id: self._scheduler.schedule_later(delay, task_id, self._handle))

    async def cancel(self, ids: Iterable[int]) -> None:
        await self._for_each(ids, self._scheduler.cancel)

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        async def call(task_id: int) -> None:
            await self._scheduler.cancel(task_id)
            await self._scheduler.schedule_later(delay, task_id, self._handle)

        self._work = work
        await self._for_each(ids, call)

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        await self._for_each(ids, lambda task_id: self._scheduler.reschedule_later(delay, task_id))
