"""A schedule as it runs: lines come in, commands are scheduled, started, replaced, cancelled, and end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from typing import final

import anyio

from anysched import ScheduledTask, Scheduler

from .closing import (
    EXIT_SIGNAL,
    EXIT_TROUBLE,
    EXIT_UNREADABLE,
    close,
    complain,
    ending_signals,
    hurry,
    summary,
)
from .entries import MalformedLineError, RunEntry, TaskId, parse_line
from .jobs import Ending, run_command
from .report import Event, Report, State, shown_id
from .source import Source

__all__ = ["Session"]


@final
class Job:
    """A command in the schedule.

    Args:
        line: The number of its line.
        entry: What the line says.
    """

    def __init__(self, line: int, entry: RunEntry) -> None:
        self.line = line
        self.entry = entry
        self._task: ScheduledTask[None] | None = None

    def attach(self, task: ScheduledTask[None]) -> None:
        """Take the handle of the task that runs the command."""
        self._task = task

    @property
    def due(self) -> datetime | None:
        """When it is due, or was when it was dropped; `None` once it has started."""
        assert self._task is not None
        return self._task.due

    def event(self, state: State, detail: str = "", output: tuple[str, ...] = ()) -> Event:
        """Return an event that tells of it."""
        return Event(self.line, self.entry.task_id, state, self.entry.command, self.due, detail, output)


@final
class Session:
    """Runs one schedule.

    Args:
        source: Where the lines come from.
        report: Who is told what happens.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
    """

    def __init__(self, source: Source, report: Report, grace: float) -> None:
        self._source = source
        self._report = report
        self._grace = grace
        self._scheduler = Scheduler("cli")
        # The jobs whose tasks hold an ID.
        self._jobs: dict[Hashable, Job] = {}
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
        with anyio.open_signal_receiver(*_ending_signals()) as signals, self._report:
            async with self._scheduler, anyio.create_task_group() as helpers:
                helpers.start_soon(self._report.animate)
                with anyio.CancelScope() as work:
                    helpers.start_soon(self._watch, signals, work)
                    await self._feed()
                    await self._scheduler.join()
                if self._signal is not None:
                    await self._close(self._signal)
                helpers.cancel_scope.cancel()
            self._report.note(self._summary())
        if self._signal is not None:
            return EXIT_SIGNAL + self._signal
        if self._unreadable:
            return EXIT_UNREADABLE
        return EXIT_TROUBLE if self._totals["failed"] or self._malformed else 0

    async def _watch(self, signals: AsyncIterator[signal.Signals], work: anyio.CancelScope) -> None:
        self._signal = await anext(signals)
        work.cancel()
        await hurry(signals, self._scheduler)

    async def _feed(self) -> None:
        try:
            await self._source(self._take)
        except OSError as error:
            self._unreadable = True
            complain(f"the schedule cannot be read after line {self._line}: {error.strerror}")

    def _take(self, line: bytes) -> None:
        """Do what a line says."""
        self._line += 1
        try:
            entry = parse_line(line)
        except MalformedLineError as error:
            self._malformed += 1
            complain(f"line {self._line} is malformed, skipped: {error}")
            return
        if isinstance(entry, RunEntry):
            self._schedule(Job(self._line, entry))
        elif entry is not None:
            self._cancel(entry.task_id)

    def _schedule(self, job: Job) -> None:
        entry = job.entry
        former = self._jobs.pop(entry.task_id, None)
        if former is not None:
            self._show_vacated(former, f"replaced by line {job.line}")
        if isinstance(entry.due, datetime):
            task = self._scheduler.schedule_at(entry.due, entry.task_id, self._run, job, on_conflict="replace")
        else:
            task = self._scheduler.schedule_later(entry.due, entry.task_id, self._run, job, on_conflict="replace")
        job.attach(task)
        self._jobs[entry.task_id] = job
        self._report.show(job.event("pending"))

    def _cancel(self, task_id: TaskId) -> None:
        job = self._jobs.pop(task_id, None)
        if job is None:
            self._report.note(f"line {self._line}: nothing to cancel, no task holds the ID {shown_id(task_id)}")
            return
        self._show_vacated(job, f"by line {self._line}")
        self._scheduler.cancel(task_id)

    def _show_vacated(self, job: Job, reason: str) -> None:
        """Tell that a job is about to lose its ID: a pending one ends with that, a running one a little later."""
        if job.due is None:
            self._report.show(job.event("cancelling", reason))
        else:
            self._totals["cancelled"] += 1
            self._report.show(job.event("cancelled", reason))

    async def _run(self, job: Job) -> None:
        # It does not raise: that a command failed is no error in this program, and not for its log.
        await run_command(
            job.entry.command,
            started=lambda pid: self._report.show(job.event("running", f"pid {pid}")),
            ended=lambda ending: self._ended(job, ending),
        )

    def _ended(self, job: Job, ending: Ending) -> None:
        if self._jobs.get(job.entry.task_id) is job:
            del self._jobs[job.entry.task_id]
        self._totals[ending.state] += 1
        self._report.show(job.event(ending.state, ending.detail, ending.output))

    async def _close(self, number: signal.Signals) -> None:
        """Close the scheduler, and list what did not finish."""
        for job in await close(self._scheduler, self._jobs, number, self._grace, self._report):
            self._totals["unfinished"] += 1
            self._totals["cancelled"] -= job.due is None  # counted once is enough
            self._report.show(job.event("unfinished", "pending" if job.due else "cancelled"))

    def _summary(self) -> str:
        malformed = f"{self._malformed} malformed line{'s' * (self._malformed > 1)} skipped"
        return summary(self._totals, [malformed] if self._malformed else [])


def _ending_signals() -> tuple[signal.Signals, ...]:
    # A SIGHUP that is ignored was ignored by `nohup`.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return ending_signals() if ignored else (*ending_signals(), signal.SIGHUP)
