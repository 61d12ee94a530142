"""The overview: numbers, the timeline and the chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Any

from anysched import ScheduledTask
from anysched.durable import DurableStatistics
from anysched.history import History

from .index import TaskIndex
from .keys import Keys, Name, text_of
from .query import JSON, milliseconds

__all__ = ["WINDOWS", "chart", "numbers", "timeline"]

WINDOWS = (600, 3_600, 86_400)
"""The lengths that a timeline may have, in seconds; half of it is in the past."""

MAX_ROWS = 12
MAX_BARS = 200
MAX_SCHEDULERS = 200
CHART_MINUTES = 60
LATENESS_MINUTES = 10

_Task = ScheduledTask[Any]


def numbers(
    indexes: Iterable[TaskIndex], stored: Mapping[TaskIndex, DurableStatistics], history: History, now: datetime
) -> JSON:
    """Return the numbers at the top of the page, in constant time however many tasks there are.

    Args:
        indexes: The tasks in memory.
        stored: The statistics of the durable schedulers.
        history: The runs.
        now: The current time.
    """
    in_memory = [index for index in indexes if index not in stored]
    count = sum(index.count for index in in_memory)
    running = sum(index.running_count for index in in_memory)
    statistics = stored.values()
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = history.minutes
    recent = [minute for minute in minutes if minute.start > now - timedelta(minutes=LATENESS_MINUTES)]
    today = [minute for minute in minutes if minute.start >= midnight]
    names = sorted({name for index in indexes for name in [index.scheduler.name, *index.counts]})
    return {
        "now": milliseconds(now),
        "pending": max(count - running, 0) + sum(each.pending + each.paused for each in statistics),
        "running": running + sum(each.running for each in statistics),
        # They are shown where there can be any.
        "parked": sum(each.parked for each in statistics) if stored else None,
        "unknown": sum(each.unknown for each in statistics) if stored else None,
        "failed": sum(minute.failed for minute in today),
        "finished": sum(minute.finished for minute in today),
        "lateness": max((minute.max_lateness for minute in recent), default=None),
        "schedulers": names[:MAX_SCHEDULERS],
        "state": ", ".join(sorted({index.scheduler.state for index in indexes})),
    }


def chart(history: History, now: datetime) -> list[JSON]:
    """Return the counts of each minute of the last hour in which something happened."""
    start = now - timedelta(minutes=CHART_MINUTES)
    return [
        {
            "start": milliseconds(minute.start),
            "started": minute.started,
            "failed": minute.failed,
            "lateness": minute.max_lateness,
        }
        for minute in history.minutes
        if minute.start > start
    ]


async def timeline(indexes: Iterable[TaskIndex], history: History, keys: Keys, now: datetime, window: int) -> JSON:
    """Return the tasks that ran last, that are running and that are due next, each with its runs.

    Args:
        indexes: The tasks that have not ended.
        history: The runs.
        keys: The keys of the tasks.
        now: The current time.
        window: The length of the timeline in seconds; half of it is in the past.
    """
    half = timedelta(seconds=window / 2)
    start = now - half
    bars: dict[Name, list[JSON]] = {}
    past = [run for run in history.runs if run.ended is not None and run.ended >= start]
    for run in [*past, *history.running][: -MAX_BARS - 1 : -1]:
        bars.setdefault((run.scheduler, run.task_id), []).append(
            {"start": milliseconds(run.started), "end": milliseconds(run.ended), "status": run.status}
        )
    coming: list[tuple[float, int, _Task]] = []
    for index in indexes:

        def look(tasks: list[_Task], index: TaskIndex = index) -> None:
            nonlocal coming
            limit = min(window / 2, coming[-1][0]) if len(coming) == MAX_ROWS else window / 2
            found = [
                (seconds, id(task), task)
                for task, seconds in zip(tasks, index.scheduler.seconds_until_due(tasks), strict=True)
                if seconds is not None and seconds <= limit
            ]
            if found:
                coming = nsmallest(MAX_ROWS, coming + found)

        await index.visit(look)
    due = {(task.scheduler_name, task.task_id): milliseconds(task.due) for _, _, task in coming}
    # Half of the rows are for tasks that are due next, if there are that many.
    names: dict[Name, None] = dict.fromkeys(name for name in bars if any(bar["end"] is None for bar in bars[name]))
    names |= dict.fromkeys([*due][: MAX_ROWS // 2])
    names |= dict.fromkeys([*bars, *due])
    return {
        "start": milliseconds(start),
        "end": milliseconds(now + half),
        "now": milliseconds(now),
        "rows": [
            {
                "key": keys.key(*name),
                "id": text_of(name[1]),
                "scheduler": name[0],
                "bars": bars.get(name, []),
                "due": due.get(name),
            }
            for name in [*names][:MAX_ROWS]
        ],
    }
