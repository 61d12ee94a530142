"""anyio's bare task group, on asyncio and on trio: tasks that sleep until they are due, and a dict of their handles."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Self

import anyio

from ._peer import CannotDoError, Work

__all__ = ["AnyioGroup"]


class AnyioGroup:
    """Each ID is a task."""

    def __init__(self) -> None:
        self._handles: dict[int, anyio.TaskHandle[None]] = {}

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        handles, create_task = self._handles, self._group.create_task
        for task_id in ids:
            handles[task_id] = create_task(self._run(task_id, work()))

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        handles, create_task = self._handles, self._group.create_task
        for task_id in ids:
            handles[task_id] = create_task(self._sleep_and_run(delay, task_id, work()))

    async def cancel(self, ids: Iterable[int]) -> None:
        for task_id in ids:
            self._handles.pop(task_id).cancel()

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        handles, create_task = self._handles, self._group.create_task
        for task_id in ids:
            handles.pop(task_id).cancel()
            handles[task_id] = create_task(self._sleep_and_run(delay, task_id, work()))

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError

    async def _run(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        finally:
            self._handles.pop(task_id, None)

    async def _sleep_and_run(self, delay: float, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await anyio.sleep(delay)
            self._handles.pop(task_id)
            await coroutine
        finally:
            coroutine.close()
