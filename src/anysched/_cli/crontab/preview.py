"""When the lines of a crontab will run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import takewhile

from anysched._cli.json_lines import json_time
from anysched._cli.report import shown_command

from .syntax import CronLine
from .times import REBOOT, run_times

__all__ = ["Run", "json_run", "preview", "text_run"]

Run = tuple[datetime | None, CronLine]
"""When a line runs, in its zone; `None` is at the start."""


def preview(lines: Iterable[CronLine], after: datetime, until: datetime) -> Iterator[Run]:
    """Yield the runs of all lines, in the order in which they are due.

    Args:
        lines: The lines.
        after: When it starts (aware).
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
    return f"{when:<22}  {line.name:<10}  {shown_command(line.command)}"


def json_run(run: Run) -> str:
    """Return a run as a line of JSON."""
    time, line = run
    when = None if time is None else json_time(time)
    fields = {"time": when, "job": line.name, "line": line.number, "schedule": line.schedule, "command": line.command}
    return json.dumps(fields)


def _runs(line: CronLine, after: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, CronLine]]:
    """Yield the runs of a line, each with its instant in UTC: within one zone two times compare by their clock."""
    runs = ((time.astimezone(UTC), time, line) for time in run_times(line.schedule, line.zone, after))
    return takewhile(lambda run: run[0] <= until, runs)
