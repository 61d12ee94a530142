"""The errors of the durable tier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

__all__ = [
    "ContendedError",
    "OwnershipLostError",
    "StoreError",
    "StoreInUseError",
    "UncertainCommitError",
    "UnknownHandlerError",
]


class StoreError(RuntimeError):
    """Raised when the store cannot be read or written, as when the disk is full, the file is locked or the server is down.

    The call that raised it changed nothing, unless it is an `UncertainCommitError`.
    """


class UncertainCommitError(StoreError):
    """Raised when the connection was lost while a change was being committed: it may or may not be stored.

    Once the store can be read again, `DurableScheduler.get` shows which.
    """


class ContendedError(StoreError):
    """Raised when a change would have to wait for an open transaction of another connection. Nothing has changed."""


class OwnershipLostError(StoreError):
    """Raised when the store is no longer owned by this process: its session has ended. Nothing has changed."""


@final
class StoreInUseError(StoreError):
    """Raised when another scheduler, of this process or another one, has the store open.

    Attributes:
        store: The store, as text.
        owner: The process that has it open, as text; `None` if unknown.
    """

    def __init__(self, store: str, owner: str | None) -> None:
        super().__init__(store, owner)
        self.store = store
        self.owner = owner

    def __str__(self) -> str:
        return (
            f"the store {self.store} is in use by {self.owner or 'another process'}; a store has one scheduler at a time: "
            "close the other one first, or open another store"
        )


@final
class UnknownHandlerError(LookupError):
    """Raised when a task names a handler that is not registered.

    Attributes:
        scheduler: The name of the scheduler.
        handlers: The names of the handlers, or the ``repr()`` of what was passed as a handler.
    """

    def __init__(self, scheduler: str, handlers: Iterable[str]) -> None:
        names = tuple(handlers)
        super().__init__(scheduler, names)
        self.scheduler = scheduler
        self.handlers = names

    def __str__(self) -> str:
        return (
            f"scheduler {self.scheduler!r} has no handler {', '.join(self.handlers)}; "
            'register it with @scheduler.handler("name") before it is used'
        )
