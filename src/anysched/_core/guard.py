"""Calls that come in the middle of an operation, from signal handlers and finalizers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, final

__all__ = ["Guard"]


@final
class Guard:
    """Defers calls that come while the tables and queues of a scheduler are being changed.

    Python may call signal handlers and finalizers between any two instructions of the event loop's thread. A method of
    the scheduler that is called there checks its arguments and decides by the current holders of the IDs; its changes
    are made when the interrupted operation has ended, before anything else can happen.

    An operation sets `held`, and resets it before it calls code of the user. These lines are inlined where
    each call counts; elsewhere they are `release`.

    Attributes:
        held: Whether an operation is in progress, or deferred calls remain that come before others.
        deferred: The remaining steps of the calls that came in the meantime.
        holders: The tasks that will hold an ID, or `None` if it will be free, by registry and ID: the results of
            deferred calls, for those that come after them.
    """

    __slots__ = ("_completing", "deferred", "held", "holders")

    def __init__(self) -> None:
        self.held: bool = False
        self.deferred: deque[Callable[[], object]] = deque()
        self.holders: dict[tuple[object, Hashable], Any] = {}
        self._completing = False

    def release(self) -> None:
        """End an operation."""
        self.held = False
        if self.deferred:
            self.complete()

    def complete(self) -> None:
        """Complete the deferred calls, in their order. Called after an operation if there are any."""
        if self._completing:
            self.held = True  # a step has ended, and calls of the code that it calls must come after the other steps
            return
        self._completing = True
        try:
            while self.deferred:
                step = self.deferred.popleft()
                self.held = False
                step()
            self.holders.clear()
        finally:
            self.held = self._completing = False

    def reset(self) -> None:
        """Called when no operation is in progress: a `KeyboardInterrupt` may have ended one too early."""
        self._completing = False
        self.release()
