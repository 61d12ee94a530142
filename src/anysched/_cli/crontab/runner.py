"""Running the lines of a crontab as recurring tasks. Signals and the file are handled elsewhere."""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Final, final

from anysched import ScheduledTask, Scheduler
from anysched._cli.buffers import StreamName
from anysched._cli.page import CommandFailedError
from anysched._cli.reports.events import Event, Report, State
from anysched._cli.reports.formats import format_command
from anysched._cli.shutdown import close, summary
from anysched._cli.subprocesses import CommandResult, run_command

from .environment import job_environment, working_directory
from .syntax import CronLine
from .times import REBOOT, run_times

__all__ = ["CronJob", "Runner"]

ROUNDING: Final = timedelta(milliseconds=100)


@final
class JobKey(int):
    """A number whose `repr` is the command of the job, because the page shows IDs."""

    command = ""

    def __repr__(self) -> str:
        return self.command


@final
class CronJob:
    """The recurring job of a line.

    Args:
        key: Its number, unique among all lines, including those of earlier versions of the file.
        line: The line.
        predecessor: A job of an earlier version of the file that is still running the same command; this one waits for
            its end.

    Attributes:
        task_id: The ID of its task, which is that of its predecessor, if it has one.
        since: When its command started (aware UTC), while it runs.
        removed: Whether the line was removed from the file while the job was running.
        failure: How its command has failed, if it has.
        pid: The process ID, while it runs.
        covered_until: Due times up to this one are covered by a run.
    """

    def __init__(self, key: int, line: CronLine, predecessor: CronJob | None = None) -> None:
        self.key = key
        self.line = line
        self.task_id: int = key if predecessor is None else predecessor.task_id
        self.since: datetime | None = None
        self.removed = False
        self.failure: str | None = None
        self.pid: int | None = None
        self.covered_until: datetime | None = None
        self._task: ScheduledTask[None] | None = None

    def attach(self, task: ScheduledTask[None]) -> None:
        """Set the handle of the task."""
        self._task = task
        self.covered_until = task.due

    @property
    def task(self) -> ScheduledTask[None] | None:
        """The task; `None` if the line is not due in this schedule."""
        return self._task

    @property
    def name(self) -> str:
        """Its name, after its line; ``old-`` if the line was removed, since another may have its number."""
        return f"old-{self.line.name}" if self.removed else self.line.name

    @property
    def due(self) -> datetime | None:
        """The due time, also after it was dropped; `None` while it runs and after its end."""
        return None if self._task is None else self._task.due

    def due_after(self, time: datetime) -> datetime | None:
        """Return the first due time after a time, in the zone of its line; `None` if there is none."""
        return next(self.times(time), None)

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the due times after a time."""
        return run_times(self.line.schedule, self.line.zone, after)

    def event(
        self,
        state: State,
        detail: str = "",
        *,
        next_due: datetime | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Event:
        """Return an event about the job."""
        line = self.line
        all_fields = {**self._fields(), "schedule": line.schedule, "command": line.command, **(fields or {})}
        return Event(self.key, self.name, state, line.command, self.due, detail, next_due=next_due, fields=all_fields)

    def output(self, lines: tuple[str, ...], stream: StreamName) -> Event:
        """Return an event with output."""
        fields = {**self._fields(), "stream": stream}
        return Event(self.key, self.name, "running", self.line.command, output=lines, fields=fields)

    def _fields(self) -> dict[str, object]:
        return {"line": self.line.number} if self.pid is None else {"line": self.line.number, "pid": self.pid}


@final
class Runner:
    """Runs lines on a scheduler.

    Args:
        scheduler: A scheduler for the jobs alone, running before lines are added.
        report: Where to report.
        fails: Whether the run of a job fails if its command does.
    """

    def __init__(self, scheduler: Scheduler, report: Report, *, fails: bool = False) -> None:
        self._scheduler = scheduler
        self._fails = fails
        self._report = report
        self._next_key: Callable[[], int] = count(1).__next__
        # The jobs of the lines in the file, and those whose line was removed while they were running.
        self._jobs: dict[int, CronJob] = {}
        self._totals: Counter[State] = Counter()
        self._closing = False

    @property
    def jobs(self) -> list[CronJob]:
        """The jobs that run or are pending."""
        return [job for job in self._jobs.values() if job.since or self._holds(job)]

    @property
    def tasks(self) -> dict[ScheduledTask[None], CronJob]:
        """Their tasks."""
        return {job.task: job for job in self.jobs if job.task is not None}

    def start(self, lines: Iterable[CronLine]) -> None:
        """Add the lines of the file at the start; ``@reboot`` lines run at once."""
        now = self._scheduler.now()
        for line in lines:
            self._add(line, now, at_start=True)

    def reload(self, lines: Iterable[CronLine]) -> str:
        """Replace the lines. Jobs whose line is unchanged are kept.

        A command of a line that was removed or has changed runs to its end. If a new line has the same command, its job
        waits for that end: a command does not run twice at once because something above it was changed.

        Returns:
            A summary of the changes.
        """
        known: dict[CronLine, deque[CronJob]] = {}
        for job in self._jobs.values():
            if not job.removed or self._holds(job):  # otherwise another job will run under its ID
                known.setdefault(job.line, deque()).append(job)
        kept: list[tuple[CronJob, CronLine]] = []
        new: list[CronLine] = []
        for line in lines:
            if known.get(line):
                kept.append((known[line].popleft(), line))
            else:
                new.append(line)
        gone = [job for jobs in known.values() for job in jobs if not job.removed]
        running = [job for job in gone if self._remove(job)]
        for job, line in kept:
            self._keep(job, line)
        now = self._scheduler.now()
        removed = [job for job in self._jobs.values() if job.removed]
        for line in new:
            same = next((job for job in removed if job.line.runs_same(line)), None)
            if same is not None:
                removed.remove(same)
            self._add(line, now, at_start=False, predecessor=same)
        run_on = f" ({len(running)} of them running, to its end)" if running else ""
        return f"{len(new)} new, {len(kept)} unchanged, {len(gone)} removed{run_on}"

    async def close(self, number: signal.Signals, grace: float) -> None:
        """Close the scheduler and report the commands that had to be stopped.

        Args:
            number: The signal that ends the schedule.
            grace: How long running commands may take, in seconds.
        """
        self._closing = True
        for job in await close(self._scheduler, self.tasks, number, grace, self._report):
            if job.due is None:  # a pending line of a crontab is not unfinished work
                self._totals["unfinished"] += 1
                self._totals["cancelled"] -= 1  # it must be counted only once
                self._report.show(job.event("unfinished", "cancelled"))

    def summary(self) -> str:
        """Return a one-line summary of all runs."""
        return summary(self._totals)

    def _holds(self, job: CronJob) -> bool:
        """Return whether the task of a job holds its ID: it runs, and may run again, or is pending."""
        return job.task is not None and self._scheduler.tasks.get(job.task_id) is job.task

    def _add(self, line: CronLine, now: datetime, *, at_start: bool, predecessor: CronJob | None = None) -> None:
        key = JobKey(self._next_key())
        key.command = line.command
        job = self._jobs[key] = CronJob(key, line, predecessor)
        if line.schedule != REBOOT:
            task = self._scheduler.schedule_at_times(job.times, job.task_id, self._run, job, on_conflict="follow")
        elif at_start:
            task = self._scheduler.schedule(job.task_id, self._run, job)
        else:
            return
        job.attach(task)
        if not self._holds(job):
            self._report.note(f"{job.name} is never due: {format_command(line.schedule)}", level="warning")
            return
        detail = "" if predecessor is None else f"after the end of {predecessor.name}"
        self._report.show(job.event("pending", detail))

    def _keep(self, job: CronJob, line: CronLine) -> None:
        """Keep a job whose line is still, or again, in the file."""
        name = job.name
        job.line = line
        job.removed = False
        if job.name != name and self._holds(job):
            self._report.show(job.event("running" if job.since else "pending", f"{name} until now"))

    def _remove(self, job: CronJob) -> bool:
        """Remove a job whose line was removed; return whether it still runs to its end."""
        if job.since:
            name = job.name
            job.removed = True
            self._report.show(job.event("running", f"{name} until now, removed"))
            return True
        del self._jobs[job.key]
        if self._holds(job):
            self._scheduler.cancel(job.task_id)
            self._report.show(job.event("cancelled", "removed"))
        return False

    async def _run(self, job: CronJob) -> None:
        # A failed command is not an error of this program.
        job.since = now = self._scheduler.now()
        covered = job.covered_until
        # Rounding may make a start a little early. If the clock is further behind, it was or is wrong.
        job.covered_until = covered if covered and now < covered < now + ROUNDING else now
        environment = job_environment(job.line.environment)
        directory, problem = working_directory(environment["HOME"])
        if problem:
            self._report.note(f"{job.name}: {problem}", level="warning")
        try:
            await run_command(
                (environment["SHELL"], "-c", job.line.command),
                started=partial(self._started, job),
                ended=partial(self._ended, job),
                printed=partial(self._printed, job),
                separate=self._report.separates_streams,
                stdin=os.fsencode(job.line.stdin),
                environment=environment,
                directory=directory,
            )
        finally:
            job.since = job.pid = None
            if job.removed:
                del self._jobs[job.key]
                if self._holds(job):
                    self._scheduler.cancel(job.task_id)  # called from inside a run, so the task ends with this run
        if self._fails and job.failure is not None:
            raise CommandFailedError(job.failure)

    def _started(self, job: CronJob, pid: int) -> None:
        job.pid = pid
        self._report.show(job.event("running", f"pid {pid}: {format_command(job.line.command)}"))

    def _printed(self, job: CronJob, lines: tuple[str, ...], stream: StreamName) -> None:
        self._report.pass_on(job.output(lines, stream))

    def _ended(self, job: CronJob, result: CommandResult) -> None:
        self._totals[result.state] += 1
        job.failure = result.detail if result.state == "failed" else None
        again: datetime | None = None
        if not job.removed and not self._closing:
            assert job.covered_until is not None
            # As the scheduler will calculate it: the next due time, or now if that has passed.
            again = job.due_after(job.covered_until)
            again = again and max(again, self._scheduler.now())
            job.covered_until = again or job.covered_until
        self._report.show(job.event(result.state, result.detail, next_due=again, fields=result.fields))
