"""Running a schedule: commands are scheduled, replaced and cancelled as lines come in."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from typing import final

import anyio

from anysched import ScheduledTask, Scheduler

from .entries import MalformedLineError, RunEntry, TaskId, parse_line
from .exit_statuses import EXIT_FAILURE, EXIT_SIGNAL, EXIT_USAGE
from .lines import LINE_LIMIT
from .logs import logs_to
from .orphans import reap_orphans
from .page import Address, CommandFailedError, start_page
from .reports.events import Event, Report, State
from .reports.formats import format_id
from .shutdown import (
    STATE_SIGNALS,
    cancel_on_second_signal,
    close,
    ending_signals,
    first_ending_signal,
    state_actions,
    summary,
)
from .source import Source
from .subprocesses import CommandResult, run_command

__all__ = ["Session"]


@final
class ScheduledCommand:
    """A command in the schedule.

    Args:
        line: The number of its line.
        entry: The parsed line.

    Attributes:
        since: When it started (aware UTC), while it runs.
        failure: How it has failed, if it has.
    """

    def __init__(self, line: int, entry: RunEntry) -> None:
        self.line = line
        self.entry = entry
        self.since: datetime | None = None
        self.failure: str | None = None
        self._task: ScheduledTask[None] | None = None

    def attach(self, task: ScheduledTask[None]) -> None:
        """Set the handle of the task that runs the command."""
        self._task = task

    @property
    def task(self) -> ScheduledTask[None]:
        """The task that runs the command."""
        assert self._task is not None
        return self._task

    @property
    def due(self) -> datetime | None:
        """The due time, also after the command was dropped; `None` once it has started."""
        return self.task.due

    def event(self, state: State, detail: str = "", output: tuple[str, ...] = ()) -> Event:
        """Return an event about the command."""
        return Event(self.line, self.entry.task_id, state, self.entry.command, self.due, detail, output)


@final
class Session:
    """Runs one schedule.

    Args:
        source: The source of the lines.
        report: The report.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
        web: The host and the port of the page, if requested.
    """

    def __init__(self, source: Source, report: Report, grace: float, web: Address | None = None) -> None:
        self._source = source
        self._report = report
        self._grace = grace
        self._web = web
        self._scheduler = Scheduler("cli")
        # The commands whose tasks hold an ID.
        self._commands: dict[Hashable, ScheduledCommand] = {}
        self._line = 0
        self._malformed = 0
        self._unreadable = False
        self._signal: signal.Signals | None = None
        self._totals: Counter[State] = Counter()

    async def run(self) -> int:
        """Run the schedule to its end, or until a signal ends it.

        Returns:
            The exit status for the process.
        """
        with anyio.open_signal_receiver(*_signals()) as signals, self._report, logs_to(self._report.error):
            async with self._scheduler, anyio.create_task_group() as helpers:
                helpers.start_soon(self._report.refresh)
                helpers.start_soon(reap_orphans)
                with anyio.CancelScope() as work:
                    helpers.start_soon(self._watch, signals, work)
                    if await start_page(helpers, self._scheduler, self._web, self._report):
                        await self._feed()
                        await self._scheduler.join()
                    else:
                        self._unreadable = True
                if self._signal is not None:
                    await self._close(self._signal)
                helpers.cancel_scope.cancel()
            self._report.note(self._summary())
        if self._signal is not None:
            return EXIT_SIGNAL + self._signal
        if self._unreadable:
            return EXIT_USAGE
        return EXIT_FAILURE if self._totals["failed"] or self._malformed else 0

    async def _watch(self, signals: AsyncIterator[signal.Signals], work: anyio.CancelScope) -> None:
        actions = state_actions(self._report, self._commands.values)
        self._signal = await first_ending_signal(signals, actions)
        work.cancel()
        await cancel_on_second_signal(signals, self._scheduler.tasks.values, actions)

    async def _feed(self) -> None:
        try:
            await self._source(self._take)
        except OSError as error:
            self._unreadable = True
            self._report.error(f"the schedule cannot be read after line {self._line}: {error.strerror}")

    def _take(self, line: bytes | None) -> None:
        """Handle one line; `None` is one that is too long."""
        self._line += 1
        try:
            if line is None:
                raise MalformedLineError(f"longer than {LINE_LIMIT:,} bytes")
            entry = parse_line(line)
        except MalformedLineError as error:
            self._malformed += 1
            self._report.error(f"line {self._line} is malformed, skipped: {error}")
            return
        if isinstance(entry, RunEntry):
            self._schedule(ScheduledCommand(self._line, entry))
        elif entry is not None:
            self._cancel(entry.task_id)

    def _schedule(self, command: ScheduledCommand) -> None:
        entry = command.entry
        predecessor = self._commands.pop(entry.task_id, None)
        if predecessor is not None:
            self._show_released(predecessor, f"replaced by line {command.line}")
        if isinstance(entry.due, datetime):
            task = self._scheduler.schedule_at(entry.due, entry.task_id, self._run, command, on_conflict="replace")
        else:
            task = self._scheduler.schedule_later(entry.due, entry.task_id, self._run, command, on_conflict="replace")
        command.attach(task)
        self._commands[entry.task_id] = command
        self._report.show(command.event("pending"))

    def _cancel(self, task_id: TaskId) -> None:
        command = self._commands.pop(task_id, None)
        if command is None:
            self._report.note(f"line {self._line}: nothing to cancel, no task holds the ID {format_id(task_id)}")
            return
        self._show_released(command, f"by line {self._line}")
        self._scheduler.cancel(task_id)

    def _show_released(self, command: ScheduledCommand, reason: str) -> None:
        """Report that a command has lost its ID. A pending command has ended; a running one is being cancelled."""
        if command.due is None:
            self._report.show(command.event("cancelling", reason))
        else:
            self._totals["cancelled"] += 1
            self._report.show(command.event("cancelled", reason))

    async def _run(self, command: ScheduledCommand) -> None:
        # A failed command is not an error of this program.
        await run_command(
            command.entry.command,
            started=lambda pid: self._started(command, pid),
            ended=lambda result: self._ended(command, result),
        )
        if self._web is not None and command.failure is not None:
            raise CommandFailedError(command.failure)

    def _started(self, command: ScheduledCommand, pid: int) -> None:
        command.since = self._scheduler.now()
        self._report.show(command.event("running", f"pid {pid}"))

    def _ended(self, command: ScheduledCommand, result: CommandResult) -> None:
        command.since = None
        command.failure = result.detail if result.state == "failed" else None
        if self._commands.get(command.entry.task_id) is command:
            del self._commands[command.entry.task_id]
        self._totals[result.state] += 1
        self._report.show(command.event(result.state, result.detail, result.output))

    async def _close(self, number: signal.Signals) -> None:
        """Close the scheduler and report the commands that did not finish."""
        held = {command.task: command for command in self._commands.values()}
        for command in await close(self._scheduler, held, number, self._grace, self._report):
            self._totals["unfinished"] += 1
            self._totals["cancelled"] -= command.due is None  # it must be counted only once
            self._report.show(command.event("unfinished", "pending" if command.due else "cancelled"))

    def _summary(self) -> str:
        malformed = f"{self._malformed} malformed line{'s' * (self._malformed > 1)} skipped"
        return summary(self._totals, [malformed] if self._malformed else [])


def _signals() -> tuple[signal.Signals, ...]:
    # `nohup` ignores SIGHUP for its command. SIGUSR2 has no meaning here, and so ends the schedule.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (*ending_signals(), *STATE_SIGNALS, signal.SIGUSR2, *(() if ignored else (signal.SIGHUP,)))
