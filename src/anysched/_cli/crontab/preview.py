"""Printing when the lines of a crontab will run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import takewhile

from anysched._cli.reports.formats import format_command
from anysched._cli.reports.json_lines import json_line, json_time

from .syntax import CronLine
from .times import REBOOT, run_times

__all__ = ["Run", "json_run", "preview", "text_run"]

Run = tuple[datetime | None, CronLine]
"""The time of a run, in the zone of its line, and the line; `None` is the start of the program."""


def preview(lines: Iterable[CronLine], after: datetime, until: datetime) -> Iterator[Run]:
    """Yield the runs of all lines in due order.

    Args:
        lines: The lines.
        after: When the schedule starts (aware).
        until: The last time of interest (aware).
    """
    lines = list(lines)
    for line in lines:
        if line.schedule == REBOOT:
            yield None, line
    runs = merge(*(_runs(line, after, until) for line in lines), key=lambda run: (run[0], run[2].number))
    for _, time, line in runs:
        yield time, line


def text_run(run: Run) -> str:
    """Return a run as a line for people."""
    time, line = run
    when = "at the start" if time is None else time.isoformat(timespec="minutes")
    return f"{when:<22}  {line.name:<10}  {format_command(line.command)}"


def json_run(run: Run) -> str:
    """Return a run as a line of JSON."""
    time, line = run
    when = None if time is None else json_time(time)
    fields = {"time": when, "job": line.name, "line": line.number, "schedule": line.schedule, "command": line.command}
    return json_line(fields)


def _runs(line: CronLine, after: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, CronLine]]:
    """Yield the runs of a line, each with its time in UTC: two times of one zone would compare by wall clock."""
    runs = ((time.astimezone(UTC), time, line) for time in run_times(line.schedule, line.zone, after))
    return takewhile(lambda run: run[0] <= until, runs)
