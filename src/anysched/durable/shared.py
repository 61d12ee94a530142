"""Stores that several processes have open at the same time: one owns it and runs the tasks, the others stand by."""

from __future__ import annotations

from dataclasses import dataclass
from socket import socket
from typing import Protocol, TypeVar, runtime_checkable

from .operations import Operation, Placed
from .store import Store

__all__ = ["Existing", "News", "Notices", "SharedStore", "TakeNotices", "TransactionalStore", "Watch"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Notices:
    """What others than the owner have changed.

    Attributes:
        removed: The generations of entries that were removed.
        placed: Where the entries are due whose IDs were concerned.
        all: Whether any entry may have been removed.
    """

    removed: tuple[int, ...]
    placed: tuple[Placed, ...]
    all: bool


@dataclass(frozen=True, slots=True)
class TakeNotices(Operation[Notices]):
    """Return what others than the owner have changed, and forget it. Only the owner may."""


@dataclass(frozen=True, slots=True)
class Existing(Operation[frozenset[int]]):
    """Return which of these entries exist."""

    generations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Watch(Operation[bool]):
    """Have the removal of an entry announced (`News.removed`); return whether the entry exists."""

    generation: int


@dataclass(frozen=True, slots=True)
class News:
    """What has been announced.

    Attributes:
        changed: Whether there are notices for the owner.
        removed: Which entries that are watched have been removed.
    """

    changed: bool
    removed: frozenset[int]


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that several processes have open at the same time.

    It is opened with `join` instead of `open`. Then `commit` performs the operations of verbs, until `contend` or
    `acquire` has made this process the owner. From then on it performs all operations. When the ownership is lost, it
    fails once with `OwnershipLostError` or `UncertainCommitError`, and again performs those of verbs only.

    The methods are called in worker threads: those of `Store` and `check` one at a time, the others for the ownership
    one at a time, and those for the news. What may take long is waited for on the event loop, by sockets, so that it
    holds up neither threads nor virtual time.
    """

    def join(self, scheduler: str) -> None:
        """Open the store for the scheduler of this name, without owning it.

        Raises:
            StoreError: if it cannot be opened. Nothing is left open.
        """
        ...

    def contend(self) -> bool:
        """Ask for the ownership; return whether it has been acquired at once.

        If not, `acquire` must be called when `ownership_socket` is readable.

        Raises:
            StoreError: if that is not possible now.
        """
        ...

    def acquire(self) -> bool:
        """Return whether the ownership has been acquired.

        Raises:
            StoreError: if it must be asked for again.
        """
        ...

    def check(self) -> None:
        """Check that the ownership is not lost, when `ownership_socket` is readable.

        Raises:
            OwnershipLostError: if it is lost.
        """
        ...

    def resign(self) -> None:
        """End the ownership, or the wait for it."""
        ...

    def ownership_socket(self) -> socket:
        """Return a socket that becomes readable when the ownership is acquired or lost. It is closed by `resign`."""
        ...

    def listen(self) -> None:
        """Listen for news.

        Raises:
            StoreError: if that is not possible now.
        """
        ...

    def receive(self) -> News:
        """Return what has been announced since the last call.

        Raises:
            StoreError: if the connection is lost. `listen` must be called again, and something may have been missed.
        """
        ...

    def news_socket(self) -> socket:
        """Return a socket that becomes readable when there are news. It is closed by `listen` and `close`."""
        ...


@runtime_checkable
class TransactionalStore(Protocol):
    """A store that can take part in a transaction of the user's."""

    async def perform_in(self, connection: object, operation: Operation[R]) -> R:
        """Perform the operation of a verb in the transaction of a connection, without committing it.

        Raises:
            TypeError: if it is not a connection that the store can use.
            RuntimeError: if it has no transaction.
            StoreError: if it is connected to another database.
        """
        ...
