"""The asyncio event loop by hand: ``call_later``, ``create_task``, and dicts. No checks, no log, no supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, Self

from ._peer import CannotDoError, Work

__all__ = ["Loop"]


class Loop:
    """Each pending ID is a timer handle and a coroutine, each running one a task."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[asyncio.TimerHandle, Coroutine[Any, Any, None]]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel(list(self._pending))

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        for task_id in ids:
            self._start(task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        pending, call_later, due = self._pending, self._loop.call_later, self._due
        for task_id in ids:
            coroutine = work()
            pending[task_id] = call_later(delay, due, task_id), coroutine

    async def cancel(self, ids: Iterable[int]) -> None:
        pending = self._pending
        for task_id in ids:
            handle, coroutine = pending.pop(task_id)
            handle.cancel()
            coroutine.close()

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        pending, call_later, due = self._pending, self._loop.call_later, self._due
        for task_id in ids:
            handle, coroutine = pending.pop(task_id)
            handle.cancel()
            coroutine.close()
            coroutine = work()
            pending[task_id] = call_later(delay, due, task_id), coroutine

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError

    def _due(self, task_id: int) -> None:
        self._start(task_id, self._pending.pop(task_id)[1])

    def _start(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._running[task_id] = self._loop.create_task(coroutine)
        task.add_done_callback(partial(self._done, task_id))

    def _done(self, task_id: int, _task: asyncio.Task[None]) -> None:
        del self._running[task_id]
