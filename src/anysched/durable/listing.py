"""Iterating over the tasks in a store, a page at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Self, final

from .operations import Entry, List, Status
from .task import DurableTask

__all__ = ["Pages", "TaskIterator"]

PAGE = 100
"""How many tasks are read at once."""


@final
class Pages:
    """Asks for entries a page at a time.

    Args:
        ranges: The ranges of encoded IDs, each from the first to before the second.
        status: The status of the entries, if not all are asked for.
    """

    def __init__(self, ranges: list[tuple[str, str]], status: Status | None = None) -> None:
        self._pages = deque(List(low, high, after=False, limit=PAGE, status=status) for low, high in ranges)

    def next(self) -> List | None:
        """Return the operation that reads the next page, or `None` if there is none. `add` must be called with its result."""
        return self._pages[0] if self._pages else None

    def add(self, entries: list[Entry]) -> None:
        """Called with the entries of a page."""
        page = self._pages.popleft()
        if len(entries) == page.limit:
            self._pages.appendleft(replace(page, low=entries[-1].task_id, after=True))


@final
class TaskIterator:
    """An async iterator over tasks.

    It is not a generator: one that is not iterated to its end, as on trio, leaves nothing to be closed.

    Args:
        pages: Which entries to read.
        read: Reads a page.
        handle: Makes a handle.
    """

    def __init__(
        self, pages: Pages, read: Callable[[List], Awaitable[list[Entry]]], handle: Callable[[Entry], DurableTask]
    ) -> None:
        self._pages = pages
        self._read = read
        self._handle = handle
        self._entries: deque[Entry] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DurableTask:
        while not self._entries:
            page = self._pages.next()
            if page is None:
                raise StopAsyncIteration
            entries = await self._read(page)
            self._pages.add(entries)
            self._entries.extend(entries)
        return self._handle(self._entries.popleft())
