"""The protocol of stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .operations import Operation

__all__ = ["Store"]


class Store(Protocol):
    """The protocol of the stores in which a `DurableScheduler` keeps its tasks.

    All methods are called in worker threads, one call at a time, and not always in the same thread. They may block,
    because the event loop keeps running in the meantime.
    """

    def open(self) -> None:
        """Open the store and become its only owner.

        The ownership must end when the process ends, even if it is killed.

        Raises:
            StoreInUseError: if another scheduler has it open.
            StoreError: if it cannot be opened. In this case, nothing is left open.
        """
        ...

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        """Perform operations in the given order, in one transaction, and return their results.

        After it has returned, the changes survive the end of the process.

        Raises:
            StoreError: if the transaction fails. In this case, nothing has changed.
        """
        ...

    def close(self) -> None:
        """Close the store and end the ownership."""
        ...
