"""Waits of closing and leaving: whenever one has taken long, it is reported."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import final

import anyio

__all__ = ["HeldUpReports"]

INTERVAL = 10.0
"""The time before the first report and between reports, in seconds."""

MAX_REGULAR_REPORTS = 60
"""After this many reports, the time to the next one is doubled each time."""

MAX_INTERVAL = 86_400.0
"""When it would be longer than this, in seconds, nothing more is reported. In virtual time, a deadlock is found then."""


@final
class HeldUpReports:
    """Reports that something is held up, every ten seconds, then less and less often.

    Args:
        report: Makes a report.
    """

    __slots__ = ("_count", "_interval", "_report")

    def __init__(self, report: Callable[[], object]) -> None:
        self._report = report
        self._interval = INTERVAL
        self._count = 0

    @property
    def are_over(self) -> bool:
        """Whether nothing more is reported."""
        return self._interval > MAX_INTERVAL

    async def wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for something, or until the next report, and make that.

        Args:
            wait: Waits for it.
        """
        with anyio.move_on_after(math.inf if self.are_over else self._interval) as scope:
            await wait()
        if scope.cancelled_caught:
            self._report()
            self._count += 1
            if self._count >= MAX_REGULAR_REPORTS:
                self._interval *= 2
