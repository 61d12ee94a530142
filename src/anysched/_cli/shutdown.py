"""Ending a schedule: the signals that end it, the grace for running commands, and the exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol, TypeVar

from anysched import Scheduler

from .reports.events import Event, Report, State

__all__ = [
    "EXIT_FAILURE",
    "EXIT_INTERRUPTED",
    "EXIT_SIGNAL",
    "EXIT_USAGE",
    "cancel_on_second_signal",
    "close",
    "ending_signals",
    "print_error",
    "summary",
]

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_SIGNAL: Final = 128


class Command(Protocol):
    """A command in a schedule."""

    @property
    def due(self) -> datetime | None:
        """The due time, also after the command was dropped; `None` once it has started."""
        ...

    def event(self, state: State, detail: str = "", /) -> Event:
        """Return an event about the command."""
        ...


S = TypeVar("S", bound=Command)


def print_error(text: str) -> None:
    """Write an error message."""
    with suppress(OSError):  # the standard error cannot be written
        print(f"anysched: {text}", file=sys.stderr, flush=True)


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end any schedule. SIGPIPE means that the reader of the report has closed it."""
    return signal.SIGINT, signal.SIGTERM, signal.SIGPIPE  # SIGPIPE does not exist on Windows


async def close(
    scheduler: Scheduler, jobs: Mapping[Hashable, S], number: signal.Signals, grace: float, report: Report
) -> list[S]:
    """Close a scheduler whose tasks run commands.

    Args:
        scheduler: The scheduler.
        jobs: The commands whose tasks hold an ID, by ID.
        number: The signal that ends the schedule.
        grace: How long running commands may take, in seconds.
        report: Where to report.

    Returns:
        The commands that did not finish.
    """
    jobs = dict(jobs)
    pending = sum(job.due is not None for job in jobs.values())
    report.note(f"{number.name}: {pending} pending dropped, {len(jobs) - pending} running may take {grace:g} s more")
    return [jobs[task.task_id] for task in await scheduler.close(grace)]


async def cancel_on_second_signal(signals: AsyncIterator[signal.Signals], scheduler: Scheduler) -> None:
    """Cancel all running commands at each further SIGINT or SIGTERM.

    SIGHUP does not count: a terminal that closes may send it twice.
    """
    async for number in signals:
        if number in (signal.SIGINT, signal.SIGTERM):
            for task in list(scheduler.tasks.values()):
                task.cancel()


def summary(totals: Mapping[State, int], others: Iterable[str] = ()) -> str:
    """Return a one-line summary of the outcomes.

    Args:
        totals: The number of commands by their last state.
        others: Further parts of the summary.
    """
    counts = [f"{count} {state}" for state, count in totals.items() if count > 0]
    return f"done: {', '.join([*counts, *others]) or 'nothing to do'}"
