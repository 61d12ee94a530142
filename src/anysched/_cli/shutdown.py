"""Ending a schedule: the signals that end it, the grace for running commands, and the exit status."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from anysched import ScheduledTask, Scheduler

from .reports.events import Event, Report, State
from .reports.formats import format_duration

__all__ = [
    "STATE_SIGNALS",
    "Actions",
    "Command",
    "cancel_on_second_signal",
    "close",
    "ending_signals",
    "first_ending_signal",
    "state_actions",
    "summary",
]

ENDING: Final = (
    "SIGINT", "SIGTERM", "SIGQUIT", "SIGPIPE", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGIO", "SIGPWR", "SIGSTKFLT",
)  # fmt: skip
"""The signals that end a process by default, apart from those of its own faults. Not all systems have all of them."""

STATE_SIGNALS: Final = (signal.SIGUSR1, signal.SIGTSTP)
"""The signals of `state_actions`."""

HURRY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

Actions: TypeAlias = Mapping[signal.Signals, Callable[[], bool]]
"""What signals do; each returns whether it ends the schedule."""


class Command(Protocol):
    """A command in a schedule."""

    @property
    def due(self) -> datetime | None:
        """The due time, also after the command was dropped; `None` once it has started."""
        ...

    @property
    def since(self) -> datetime | None:
        """When it started (aware UTC), if it runs."""
        ...

    def event(self, state: State, detail: str = "", /) -> Event:
        """Return an event about the command."""
        ...


C = TypeVar("C", bound=Command)


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end any schedule; SIGPIPE only by the action in `state_actions`."""
    return tuple(signal.Signals[name] for name in ENDING if name in signal.Signals.__members__)


def state_actions(report: Report, commands: Callable[[], Iterable[Command]]) -> Actions:
    """Return what signals do that do not always end the schedule.

    SIGUSR1 reports its state, and SIGTSTP stops the process. SIGPIPE ends the schedule if the reader of the report has
    closed it. The system also sends it when a browser closes its connection to the page.

    Args:
        report: Where to report.
        commands: Returns the commands that run or are pending.
    """

    def show_state() -> bool:
        events = [(command.event("running" if command.since else "pending"), command.since) for command in commands()]
        report.show_state(events)
        return False

    def stop() -> bool:
        report.suspend()
        # Stop by the default action, which does nothing where no shell could continue the process.
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        report.resume()
        return False

    return {signal.SIGUSR1: show_state, signal.SIGTSTP: stop, signal.SIGPIPE: lambda: report.is_broken}


async def first_ending_signal(signals: AsyncIterator[signal.Signals], actions: Actions) -> signal.Signals:
    """Do what signals ask for until one ends the schedule, and return that one."""
    while True:
        number = await anext(signals)
        if number not in actions or actions[number]():
            return number


async def close(
    scheduler: Scheduler,
    commands: Mapping[ScheduledTask[Any], C],
    number: signal.Signals,
    grace: float,
    report: Report,
) -> list[C]:
    """Close a scheduler whose tasks run commands.

    Args:
        scheduler: The scheduler.
        commands: The commands that run or are pending, by their tasks.
        number: The signal that ends the schedule.
        grace: How long running commands may take, in seconds.
        report: Where to report.

    Returns:
        The commands that did not finish.
    """
    commands = dict(commands)
    pending = sum(command.due is not None for command in commands.values())
    running = len(commands) - pending
    limit = "any time" if grace == float("inf") else f"{format_duration(grace)} more"
    outlook = f"may take {limit}" if grace else "terminated"
    parts = [
        *([f"{pending} pending dropped"] if pending else []),
        *([f"{running} running {outlook}"] if running else []),
    ]
    report.note(": ".join([number.name, *([", ".join(parts)] if parts else [])]))
    return [commands[task] for task in await scheduler.close(grace) if task in commands]


async def cancel_on_second_signal(
    signals: AsyncIterator[signal.Signals], tasks: Callable[[], Iterable[ScheduledTask[Any]]], actions: Actions
) -> None:
    """Cancel all running commands at each further SIGINT, SIGTERM or SIGQUIT.

    SIGHUP does not count: a terminal that closes may send it twice.

    Args:
        signals: The signals.
        tasks: Returns the tasks that run commands.
        actions: What other signals do.
    """
    async for number in signals:
        if number in actions:
            actions[number]()
        elif number in HURRY:
            for task in list(tasks()):
                task.cancel()


def summary(totals: Mapping[State, int], others: Iterable[str] = ()) -> str:
    """Return a one-line summary of the outcomes.

    Args:
        totals: The number of commands by their last state.
        others: Further parts of the summary.
    """
    counts = [f"{count} {state}" for state, count in totals.items() if count > 0]
    return f"done: {', '.join([*counts, *others]) or 'nothing to do'}"
