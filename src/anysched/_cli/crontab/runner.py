"""Running the lines of a crontab: each is a recurring task. No signals here, and no file."""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import count
from typing import final

from anysched import ScheduledTask, Scheduler
from anysched._cli.closing import close, summary
from anysched._cli.jobs import Ending, run_command
from anysched._cli.report import Event, Report, State, shown_command

from .account import job_environment
from .syntax import CronLine
from .times import REBOOT, run_times

__all__ = ["Runner"]


@final
class Job:
    """A line as it is run, again and again.

    Args:
        key: Its ID, another one for each line, also if the line stood in the file before.
        line: The line.

    Attributes:
        removed: Whether the line has gone from the file, while the job runs on.
        pid: The process ID, while it runs.
        served: Up to when its due times have been served.
    """

    def __init__(self, key: int, line: CronLine) -> None:
        self.key = key
        self.line = line
        self.removed = False
        self.pid: int | None = None
        self.served: datetime | None = None
        self._task: ScheduledTask[None] | None = None

    def attach(self, task: ScheduledTask[None]) -> None:
        """Take the handle of the task."""
        self._task = task
        self.served = task.due

    @property
    def name(self) -> str:
        """What it is called: by its line, of which there may be another one now."""
        return f"old-{self.line.name}" if self.removed else self.line.name

    @property
    def due(self) -> datetime | None:
        """When it is due, or was when it was dropped; `None` while it runs, and when it has ended."""
        return None if self._task is None else self._task.due

    def due_after(self, time: datetime) -> datetime | None:
        """Return when it is due for the first time after some time, in the zone of its line."""
        return next(self.times(time), None)

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield when it is due after some time."""
        return run_times(self.line.schedule, self.line.zone, after)

    def event(
        self,
        state: State,
        detail: str = "",
        *,
        next_due: datetime | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> Event:
        """Return an event that tells of it."""
        line = self.line
        known = {**self._facts(), "schedule": line.schedule, "command": line.command, **(facts or {})}
        return Event(self.key, self.name, state, line.command, self.due, detail, next_due=next_due, facts=known)

    def output(self, lines: tuple[str, ...]) -> Event:
        """Return an event that carries output."""
        return Event(self.key, self.name, "running", self.line.command, output=lines, facts=self._facts())

    def _facts(self) -> dict[str, object]:
        return {"line": self.line.number} if self.pid is None else {"line": self.line.number, "pid": self.pid}


@final
class Runner:
    """Runs lines on a scheduler.

    Args:
        scheduler: A scheduler of its own, which is running when lines are adopted.
        report: Who is told what happens.
    """

    def __init__(self, scheduler: Scheduler, report: Report) -> None:
        self._scheduler = scheduler
        self._report = report
        self._next_key: Callable[[], int] = count(1).__next__
        # The jobs of the lines that are in the file, and those that are not but run on.
        self._jobs: dict[int, Job] = {}
        self._totals: Counter[State] = Counter()
        self._closing = False

    def start(self, lines: Iterable[CronLine]) -> None:
        """Run lines, those for the start at once."""
        now = self._scheduler.now()
        for line in lines:
            self._add(line, now, at_start=True)

    def adopt(self, lines: Iterable[CronLine]) -> str:
        """Run these lines from now on, instead of those before. Those that are the same go on as they are.

        Returns:
            What has changed, in words.
        """
        former: dict[CronLine, deque[Job]] = {}
        for job in self._jobs.values():
            former.setdefault(job.line, deque()).append(job)
        kept: list[tuple[Job, CronLine]] = []
        new: list[CronLine] = []
        for line in lines:
            if former.get(line):
                kept.append((former[line].popleft(), line))
            else:
                new.append(line)
        gone = [job for jobs in former.values() for job in jobs if not job.removed]
        running = [job for job in gone if self._remove(job)]
        for job, line in kept:
            self._keep(job, line)
        now = self._scheduler.now()
        for line in new:
            self._add(line, now, at_start=False)
        run_on = f" ({len(running)} of them running, to its end)" if running else ""
        return f"{len(new)} new, {len(kept)} unchanged, {len(gone)} removed{run_on}"

    async def close(self, number: signal.Signals, grace: float) -> None:
        """Close the scheduler, and list what had to be stopped.

        Args:
            number: The signal that ends the schedule.
            grace: How long running commands may take, in seconds.
        """
        self._closing = True
        held: dict[Hashable, Job] = {key: job for key, job in self._jobs.items() if key in self._scheduler}
        for job in await close(self._scheduler, held, number, grace, self._report):
            if job.due is None:  # that a line of a crontab waits for its time is nothing unfinished
                self._totals["unfinished"] += 1
                self._totals["cancelled"] -= 1  # counted once is enough
                self._report.show(job.event("unfinished", "cancelled"))

    def summary(self) -> str:
        """Return what has come of all runs, in words."""
        return summary(self._totals)

    def _add(self, line: CronLine, now: datetime, *, at_start: bool) -> None:
        key = self._next_key()
        job = self._jobs[key] = Job(key, line)
        if line.schedule != REBOOT:
            task = self._scheduler.schedule_at_times(job.times(now), key, self._run, job)
        elif at_start:
            task = self._scheduler.schedule(key, self._run, job)
        else:
            return
        job.attach(task)
        if key in self._scheduler:
            self._report.show(job.event("pending"))
        else:
            self._report.note(f"{job.name} is never due: {shown_command(line.schedule)}")

    def _keep(self, job: Job, line: CronLine) -> None:
        """Go on with a job whose line is still there, or is there again."""
        name = job.name
        job.line = line
        job.removed = False
        if job.name != name and job.key in self._scheduler:
            self._report.show(job.event("pending" if job.due else "running", f"{name} until now"))

    def _remove(self, job: Job) -> bool:
        """End a job whose line has gone; return whether it runs, and goes on to its end."""
        if job.key in self._scheduler and job.due is None:
            name = job.name
            job.removed = True
            self._report.show(job.event("running", f"{name} until now, removed"))
            return True
        del self._jobs[job.key]
        if job.key in self._scheduler:
            self._scheduler.cancel(job.key)
            self._report.show(job.event("cancelled", "removed"))
        return False

    async def _run(self, job: Job) -> None:
        # It does not raise: that a command failed is no error in this program, and not for its log.
        now = self._scheduler.now()
        job.served = now if job.served is None else max(now, job.served)
        environment = job_environment(job.line.environment)
        try:
            await run_command(
                (environment["SHELL"], "-c", job.line.command),
                started=partial(self._started, job),
                ended=partial(self._ended, job),
                printed=partial(self._printed, job),
                stdin=os.fsencode(job.line.stdin),
                environment=environment,
                directory=environment["HOME"],
            )
        finally:
            job.pid = None
            if job.removed:
                del self._jobs[job.key]
                self._scheduler.cancel(job.key)  # from inside a run it ends with this run

    def _started(self, job: Job, pid: int) -> None:
        job.pid = pid
        self._report.show(job.event("running", f"pid {pid}: {shown_command(job.line.command)}"))

    def _printed(self, job: Job, lines: tuple[str, ...]) -> None:
        self._report.pass_on(job.output(lines))

    def _ended(self, job: Job, ending: Ending) -> None:
        self._totals[ending.state] += 1
        again: datetime | None = None
        if not job.removed and not self._closing:
            assert job.served is not None
            # As the scheduler will see it in a moment: at its next time, or if that has passed meanwhile, at once.
            again = job.due_after(job.served)
            again = again and max(again, self._scheduler.now())
            job.served = again or job.served
        self._report.show(job.event(ending.state, ending.detail, next_due=again, facts=ending.facts))
