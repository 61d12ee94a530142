"""The asyncio event loop by hand: ``call_later``, ``create_task``, and dicts. No log, no supervision."""

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
            self._schedule(task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        for task_id in ids:
            self._schedule_later(delay, task_id, work())

    async def cancel(self, ids: Iterable[int]) -> None:
        for task_id in ids:
            self._cancel(task_id)

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        for task_id in ids:
            self._cancel(task_id)
            self._schedule_later(delay, task_id, work())

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError

    # What one would write in a program: an ID is held once, and may be cancelled before it runs and while it does.

    def _schedule(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        if task_id in self._pending or task_id in self._running:
            coroutine.close()
        else:
            self._start(task_id, coroutine)

    def _schedule_later(self, delay: float, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        if task_id in self._pending or task_id in self._running:
            coroutine.close()
        else:
            self._pending[task_id] = self._loop.call_later(delay, self._due, task_id), coroutine

    def _cancel(self, task_id: int) -> None:
        pending = self._pending.pop(task_id, None)
        if pending is not None:
            handle, coroutine = pending
            handle.cancel()
            coroutine.close()
        else:
            self._running[task_id].cancel()

    def _due(self, task_id: int) -> None:
        _, coroutine = self._pending.pop(task_id)
        self._start(task_id, coroutine)

    def _start(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._running[task_id] = self._loop.create_task(coroutine)
        task.add_done_callback(partial(self._done, task_id))

    def _done(self, task_id: int, _task: asyncio.Task[None]) -> None:
        del self._running[task_id]
