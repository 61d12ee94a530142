"""What every peer can be asked to do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

__all__ = ["CannotDoError", "Peer", "Work"]

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class CannotDoError(NotImplementedError):
    """The peer has nothing for this work: a dash in the table."""


class Peer(AbstractAsyncContextManager["Peer"], Protocol):
    """A scheduler, or the way in which one would do without.

    Each method works through many IDs, so that the loop over them costs every peer the same, and a call of the adapter
    is not measured for each ID.
    """

    async def soon(self, ids: Iterable[int], work: Work) -> None:
        """Start ``work`` soon, once under each ID."""
        ...

    async def later(self, delay: float, ids: Iterable[int], work: Work) -> None:
        """Start ``work`` after ``delay`` seconds, once under each ID."""
        ...

    async def cancel(self, ids: Iterable[int]) -> None:
        """Cancel what waits under each ID."""
        ...

    async def again(self, delay: float, ids: Iterable[int], work: Work) -> None:
        """Cancel what waits under each ID, and schedule it anew: debounce."""
        ...

    async def postpone(self, delay: float, ids: Iterable[int]) -> None:
        """Make what waits under each ID due after ``delay`` seconds from now.

        Raises:
            CannotDoError: if there is nothing but to cancel it and schedule it anew.
        """
        ...
