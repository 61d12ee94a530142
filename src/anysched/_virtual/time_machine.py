"""The bridge to time-machine: ``datetime.now()`` and ``time.time()`` show virtual time. The only user of that package."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import time_machine

from .timeline import Timeline

__all__ = ["travel_along"]


@contextmanager
def travel_along(timeline: Timeline) -> Generator[None]:
    """Show the wall clock of a timeline to the process while the context is active."""
    shown_ns = 0
    # An integer has no time zone. The time zone of a `datetime` would become the time zone of the process.
    with time_machine.travel(shown_ns, tick=False) as traveller:

        def follow() -> None:
            nonlocal shown_ns
            now_ns = timeline.time_ns()
            # Exact, and cheaper than `move_to`.
            traveller.shift(timedelta(microseconds=(now_ns - shown_ns) // 1_000))
            shown_ns = now_ns

        follow()
        timeline.listeners.append(follow)
        try:
            yield
        finally:
            timeline.listeners.remove(follow)
