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
        ranges: The ranges of encoded IDs, each a pair of start (inclusive) and end (exclusive).
        status: The status of the entries to read; `None` for all entries.
    """

    def __init__(self, ranges: list[tuple[str, str]], status: Status | None = None) -> None:
        self._pages = deque(List(low, high, after=False, limit=PAGE, status=status) for low, high in ranges)

    def next(self) -> List | None:
        """Return the operation that reads the next page, or `None` at the end. Pass its result to `add`."""
        return self._pages[0] if self._pages else None

    def add(self, entries: list[Entry]) -> None:
        """Add the entries of a page that was read."""
        page = self._pages.popleft()
        if len(entries) == page.limit:
            self._pages.appendleft(replace(page, low=entries[-1].task_id, after=True))


@final
class TaskIterator:
    """An async iterator over tasks.

    It is not an async generator, so nothing needs to be closed if the iteration stops early.

    Args:
        pages: Which entries to read.
        read: Reads a page.
        handle: Creates a handle from an entry.
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
