"""A small program with a durable scheduler, which tests start repeatedly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from anysched.durable import DurableScheduler, Store, current_run
from anysched.testing import VirtualClock

START = datetime(2025, 1, 1, tzinfo=UTC)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, in real time."""
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


def seconds(time: datetime) -> float:
    """Return a time as seconds since virtual time began."""
    return (time - START) / timedelta(seconds=1)


class Program:
    """Makes schedulers on one store, with the same handlers, which keep a journal.

    Attributes:
        store: The store.
        journal: What the handlers did: the time in seconds, a word, and the text that they were given.
        keys: The attempts and keys of the runs, as they began.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal: list[tuple[float, str, str]] = []
        self.keys: list[tuple[int, str]] = []
        self.scheduler: DurableScheduler

    @property
    def began(self) -> list[tuple[float, str]]:
        """The events and when they began."""
        return [(time, text) for time, word, text in self.journal if word == "begin"]

    def note(self, word: str, text: str) -> None:
        self.journal.append((round(seconds(VirtualClock.current().now()), 6), word, text))

    def start(self, **options: Any) -> DurableScheduler:
        """Make a scheduler."""
        self.scheduler = scheduler = DurableScheduler("test", self.store, **options)
        for name in ("quick", "slow", "fail", "stubborn"):
            scheduler.handler(name)(getattr(self, name))
        return scheduler

    def begin(self, text: str) -> None:
        run = current_run()
        self.keys.append((run.attempt, run.key))
        self.note("begin", text)

    async def quick(self, text: str) -> None:
        """Do it at once."""
        self.begin(text)

    async def slow(self, text: str, duration: float = 10) -> None:
        """Take some time."""
        self.begin(text)
        try:
            await anyio.sleep(duration)
            self.note("end", text)
        except anyio.get_cancelled_exc_class():
            self.note("cancelled", text)
            raise

    async def stubborn(self, text: str) -> None:
        """Take some time, and some more when cancelled."""
        self.begin(text)
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            self.note("end", text)

    async def fail(self, text: str) -> None:
        """Fail."""
        self.begin(text)
        raise ZeroDivisionError(text)
