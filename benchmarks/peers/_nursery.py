"""A bare trio nursery: tasks that sleep until they are due, and a dict of their cancel scopes."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Self

import trio

from ._peer import CannotDoError, Work

__all__ = ["Nursery"]


class Nursery:
    """Each ID is a task with a cancel scope."""

    def __init__(self) -> None:
        self._scopes: dict[int, trio.CancelScope] = {}

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        scopes, start_soon = self._scopes, self._nursery.start_soon
        for task_id in ids:
            scopes[task_id] = trio.CancelScope()
            start_soon(self._run, task_id, work())

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scopes, start_soon = self._scopes, self._nursery.start_soon
        for task_id in ids:
            scope = scopes[task_id] = trio.CancelScope()
            start_soon(self._sleep_and_run, delay, task_id, work(), scope)

    async def cancel(self, ids: Iterable[int]) -> None:
        for task_id in ids:
            self._scopes.pop(task_id).cancel()

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        scopes, start_soon = self._scopes, self._nursery.start_soon
        for task_id in ids:
            scopes.pop(task_id).cancel()
            scope = scopes[task_id] = trio.CancelScope()
            start_soon(self._sleep_and_run, delay, task_id, work(), scope)

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        raise CannotDoError

    async def _run(self, task_id: int, coroutine: Coroutine[Any, Any, None]) -> None:
        with self._scopes[task_id]:
            try:
                await coroutine
            finally:
                self._scopes.pop(task_id, None)

    async def _sleep_and_run(
        self, delay: float, task_id: int, coroutine: Coroutine[Any, Any, None], scope: trio.CancelScope
    ) -> None:
        with scope:
            try:
                await trio.sleep(delay)
                self._scopes.pop(task_id)
                await coroutine
            finally:
                coroutine.close()
