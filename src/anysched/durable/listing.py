"""Iterating over the tasks in a store, a page at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self, final

from .operations import Entry, List
from .task import DurableTask

__all__ = ["TaskIterator"]

PAGE = 100
"""How many tasks are read at once."""


@final
class TaskIterator:
    """An async iterator over tasks.

    It is not a generator: one that is not iterated to its end, as on trio, leaves nothing to be closed.

    Args:
        ranges: The ranges of encoded IDs, each from the first to before the second.
        read: Reads a page.
        handle: Makes a handle.
    """

    def __init__(
        self,
        ranges: list[tuple[str, str]],
        read: Callable[[List], Awaitable[list[Entry]]],
        handle: Callable[[Entry], DurableTask],
    ) -> None:
        self._pages = deque(List(low, high, after=False, limit=PAGE) for low, high in ranges)
        self._read = read
        self._handle = handle
        self._entries: deque[Entry] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DurableTask:
        while not self._entries:
            if not self._pages:
                raise StopAsyncIteration
            page = self._pages.popleft()
            entries = await self._read(page)
            self._entries.extend(entries)
            if len(entries) == page.limit:
                following = List(entries[-1].task_id, page.high, after=True, limit=PAGE)
                self._pages.appendleft(following)
        return self._handle(self._entries.popleft())
