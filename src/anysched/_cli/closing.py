"""The end of a schedule: by which signals, with what grace, and what there is to say of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol, TypeVar

from anysched import Scheduler

from .report import Event, Report, State

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_SIGNAL",
    "EXIT_TROUBLE",
    "EXIT_UNREADABLE",
    "close",
    "complain",
    "ending_signals",
    "hurry",
    "summary",
]

EXIT_TROUBLE: Final = 1
EXIT_UNREADABLE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_SIGNAL: Final = 128


class Scheduled(Protocol):
    """A command in a schedule."""

    @property
    def due(self) -> datetime | None:
        """When it is due, or was when it was dropped; `None` once it has started."""
        ...

    def event(self, state: State, detail: str = "", /) -> Event:
        """Return an event that tells of it."""
        ...


S = TypeVar("S", bound=Scheduled)


def complain(text: str) -> None:
    """Write an error message."""
    with suppress(OSError):  # nobody listens
        print(f"anysched: {text}", file=sys.stderr, flush=True)


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end any schedule. SIGPIPE comes when nobody reads the report any more."""
    return signal.SIGINT, signal.SIGTERM, signal.SIGPIPE  # the last one is not there on Windows


async def close(
    scheduler: Scheduler, jobs: Mapping[Hashable, S], number: signal.Signals, grace: float, report: Report
) -> list[S]:
    """Close a scheduler whose tasks run commands.

    Args:
        scheduler: The scheduler.
        jobs: The commands whose tasks hold an ID, by ID.
        number: The signal that ends the schedule.
        grace: How long running commands may take, in seconds.
        report: Who is told.

    Returns:
        The commands that did not finish.
    """
    jobs = dict(jobs)
    pending = sum(job.due is not None for job in jobs.values())
    report.note(f"{number.name}: {pending} pending dropped, {len(jobs) - pending} running may take {grace:g} s more")
    return [jobs[task.task_id] for task in await scheduler.close(grace)]


async def hurry(signals: AsyncIterator[signal.Signals], scheduler: Scheduler) -> None:
    """Cancel what still runs whenever another signal says that the user is in a hurry.

    The others are no sign of that: a terminal that closes may send SIGHUP twice.
    """
    async for number in signals:
        if number in (signal.SIGINT, signal.SIGTERM):
            for task in list(scheduler.tasks.values()):
                task.cancel()


def summary(totals: Mapping[State, int], others: Iterable[str] = ()) -> str:
    """Return, in words, what has come of the commands.

    Args:
        totals: How many have come to which state.
        others: What else there is to tell.
    """
    counts = [f"{count} {state}" for state, count in totals.items() if count > 0]
    return f"done: {', '.join([*counts, *others]) or 'nothing to do'}"
