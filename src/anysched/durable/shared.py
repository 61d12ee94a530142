"""Stores that several processes have open at the same time: one owns it and runs the tasks, the others stand by."""

from __future__ import annotations

from dataclasses import dataclass
from socket import socket
from typing import Protocol, TypeVar, runtime_checkable

from .operations import Operation, Placed
from .store import Store

__all__ = ["Beat", "News", "Notices", "SharedStore", "TakeNotices", "TransactionalStore", "Watch"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Notices:
    """Changes by processes other than the owner.

    Attributes:
        removed: The generations of the removed entries.
        placed: The due times of the entries with the changed IDs.
        all: Whether any entry may have been removed.
    """

    removed: tuple[int, ...]
    placed: tuple[Placed, ...]
    all: bool


@dataclass(frozen=True, slots=True)
class TakeNotices(Operation[Notices]):
    """Return the changes by processes other than the owner, and delete the notices. Only the owner may do this."""


@dataclass(frozen=True, slots=True)
class Beat(Operation[None]):
    """Store that the owner is alive. Only the owner may."""


@dataclass(frozen=True, slots=True)
class Watch(Operation[bool]):
    """Make the store announce the removal of an entry (`News.removed`), and return whether the entry exists."""

    generation: int


@dataclass(frozen=True, slots=True)
class News:
    """Announced changes.

    Attributes:
        changed: Whether there are notices for the owner.
        removed: The generations of the watched entries that were removed.
    """

    changed: bool
    removed: frozenset[int]


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that several processes have open at the same time.

    It is opened with `join` instead of `Store.open`. At first, `Store.commit` performs only the operations of calls. After
    `contend` or `acquire` has made this process the owner, it performs all operations. When the ownership is lost, it
    fails once with `OwnershipLostError` or `UncertainCommitError`, and then again performs only the operations of
    calls.

    The methods are called in worker threads, with one call at a time in each of three groups: the methods of `Store`
    and `check`, the other methods for the ownership, and the methods for news. Long waits take place on the event
    loop, by sockets, so that they hold up neither threads nor virtual time.
    """

    @property
    def failover_after(self) -> float | None:
        """After how many seconds without a sign of life the owner is deposed; `None` if never."""
        ...

    def join(self, scheduler: str) -> None:
        """Open the store for the scheduler of this name, without owning it.

        Raises:
            StoreError: if it cannot be opened. In this case, nothing is left open.
        """
        ...

    def contend(self) -> bool:
        """Ask for the ownership, and return whether it was acquired at once.

        If not, call `acquire` when `ownership_socket` is readable, and now and then in between.

        Raises:
            StoreError: if this is not possible now.
        """
        ...

    def acquire(self) -> bool:
        """Return whether the ownership has been acquired.

        Raises:
            StoreError: if `contend` must be called again.
        """
        ...

    def check(self) -> None:
        """Check that the ownership has not been lost. Called when `ownership_socket` is readable.

        Raises:
            OwnershipLostError: if it has been lost.
        """
        ...

    def resign(self) -> None:
        """End the ownership or the wait for it."""
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

    def depose(self) -> bool:
        """End the session of an owner that has given no sign of life; return whether there was one.

        Called when no other method for the news is.

        Raises:
            StoreError: if that is not possible now.
        """
        ...

    def receive(self) -> News:
        """Return the changes that were announced since the last call.

        Raises:
            StoreError: if the connection is lost. Call `listen` again; changes may have been missed.
        """
        ...

    def news_socket(self) -> socket:
        """Return a socket that becomes readable when news arrive. It is closed by `listen` and `Store.close`."""
        ...


@runtime_checkable
class TransactionalStore(Protocol):
    """A store that can take part in a transaction of the user."""

    async def perform_in(self, connection: object, operation: Operation[R]) -> R:
        """Perform the operation of a call in the transaction of a connection, without committing it.

        Raises:
            TypeError: if it is not a connection that the store can use.
            RuntimeError: if it has no transaction.
            StoreError: if it is connected to another database.
        """
        ...
