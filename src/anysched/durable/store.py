"""The protocol of stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .operations import Operation

__all__ = ["Store"]


class Store(Protocol):
    """Where a `DurableScheduler` keeps its tasks.

    All methods are called in worker threads, one at a time, not always in the same thread. They may take their time: the
    event loop is not held up.
    """

    def open(self) -> None:
        """Open the store, and become its only owner.

        The ownership must end with the process, also if that is killed.

        Raises:
            StoreInUseError: if another scheduler has it open.
            StoreError: if it cannot be opened. Nothing is left open.
        """
        ...

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        """Perform operations in their order, in one transaction, and return their results.

        When it returns, the changes will survive the end of the process.

        Raises:
            StoreError: if that is not possible. Nothing has changed.
        """
        ...

    def close(self) -> None:
        """Close the store, and end the ownership."""
        ...
