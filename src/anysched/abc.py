"""What users implement: protocols that the library calls. Nothing needs to be subclassed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Where a scheduler reads time.

    In real time this is the event loop's clock and the machine's; in tests, `anysched.testing.VirtualClock`.
    """

    @property
    def monotonic(self) -> Callable[[], float]:
        """Reads the monotonic clock of the event loop, in seconds."""
        ...

    @property
    def time_ns(self) -> Callable[[], int]:
        """Reads the wall clock, in nanoseconds of UTC since 1970."""
        ...

    @property
    def recheck_interval(self) -> float:
        """The longest time between two readings of the wall clock while a task waits for it, in seconds."""
        ...

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Call ``stepped`` whenever the wall clock has been set, if this clock notices.

        It is called in the thread of the event loop, between the steps of its tasks or in one of them.

        Returns:
            A function that ends the subscription.
        """
        ...
