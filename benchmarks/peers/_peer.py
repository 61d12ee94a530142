"""The interface of the peers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

__all__ = ["CannotDoError", "Peer", "Work"]

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class CannotDoError(NotImplementedError):
    """The peer does not support this work, which is shown as a dash in the table."""


class Peer(AbstractAsyncContextManager["Peer"], Protocol):
    """A scheduler, or what a program would do without one.

    Each method processes many IDs, so that the loop over them costs every peer the same and the measurement does not
    include a call of the adapter for each ID.
    """

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        """Start ``work`` soon, once under each ID."""
        ...

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        """Start ``work`` after ``delay`` seconds, once under each ID."""
        ...

    async def cancel(self, ids: Iterable[int]) -> None:
        """Cancel the pending task with each ID."""
        ...

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        """Cancel the pending task with each ID and schedule a new one, as for a debounce."""
        ...

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        """Make the pending task with each ID due after ``delay`` seconds from now.

        Raises:
            CannotDoError: if the peer can only cancel it and schedule it again.
        """
        ...
