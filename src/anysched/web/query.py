"""The table of tasks: search, filters, sorting and pages, for up to a million tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest, nsmallest
from typing import Any, Self, TypeAlias

from anysched import ScheduledTask
from anysched.history import History, RunRecord

from .durable import WaitingTask
from .index import TaskIndex
from .keys import Keys, text_of

__all__ = ["JSON", "Query", "describe_run", "find", "milliseconds", "status_of"]

JSON: TypeAlias = dict[str, Any]

PAGE_SIZE = 25
MAX_PAGES = 80
"""Further tasks can be found by searching."""

ENDED = ("finished", "failed", "cancelled")
STATUSES = ("", "pending", "paused", "running", "parked", "unknown", *ENDED)

_Task = ScheduledTask[Any]
_Found: TypeAlias = tuple[float, int, _Task | WaitingTask]


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a query.

    Attributes:
        search: A part of the text of the ID; case is ignored.
        status: A status, or an empty string for the tasks that have not ended.
        scheduler: The name of a scheduler, or an empty string for all.
        descending: Whether the tasks are sorted by descending due time.
        page: The number of the page, from 0.
    """

    search: str = ""
    status: str = ""
    scheduler: str = ""
    descending: bool = False
    page: int = 0

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """Parse the parameters of a URL. Invalid parameters are ignored."""
        status, page = parameters.get("status", ""), parameters.get("page", "")
        return cls(
            parameters.get("search", "")[:200].casefold(),
            status if status in STATUSES else "",
            parameters.get("scheduler", ""),
            parameters.get("order") == "descending",
            min(int(page), MAX_PAGES - 1) if page.isascii() and page.isdigit() and len(page) < 9 else 0,
        )


async def find(
    indexes: Iterable[TaskIndex], waiting: Iterable[WaitingTask], history: History, query: Query, keys: Keys
) -> JSON:
    """Return a page of the table, as JSON.

    Args:
        indexes: The tasks in memory.
        waiting: The tasks that are only in stores.
        history: The runs.
        query: The query.
        keys: The keys of the tasks.
    """
    if query.status in ENDED:
        return _find_ended(history, query, keys)
    first = query.page * PAGE_SIZE
    limit = first + PAGE_SIZE
    best: list[_Found] = []
    total = 0
    select: Callable[..., list[_Found]] = nlargest if query.descending else nsmallest
    for index in indexes:
        now = index.scheduler.now().timestamp()

        def look(tasks: list[_Task], index: TaskIndex = index, now: float = now) -> None:
            nonlocal best, total
            tasks = _matching(tasks, query)
            total += len(tasks)
            whens = zip(tasks, index.scheduler.seconds_until_due(tasks), strict=True)
            # Most tasks are excluded here, because with a million of them each step counts.
            least, most = -math.inf, math.inf
            if len(best) == limit:
                least, most = (best[-1][0], most) if query.descending else (least, best[-1][0])
            found = [(seconds, task) for task, seconds in whens if seconds is None or least <= seconds <= most]
            if found:
                best = select(
                    limit,
                    best
                    + [
                        (_running_due(index, task, now) if seconds is None else seconds, id(task), task)
                        for seconds, task in found
                    ],
                )

        await index.visit(look)
    others = [task for task in waiting if _matches(task, query)]
    if others:
        total += len(others)
        now = next(iter(indexes)).scheduler.now().timestamp()
        best = select(limit, best + [(task.task.due.timestamp() - now, id(task), task) for task in others])
    shown = best[first:limit]
    return {
        "rows": [_describe(task, indexes, keys) for _, _, task in shown],
        "total": total,
        "page": query.page,
        "pages": min(-(-total // PAGE_SIZE), MAX_PAGES),
    }


def _matching(tasks: list[_Task], query: Query) -> list[_Task]:
    """Return the tasks that match a query."""
    if query.scheduler:
        tasks = [task for task in tasks if task.scheduler_name == query.scheduler]
    if query.status:
        tasks = [task for task in tasks if status_of(task) == query.status]
    if query.search:
        tasks = [task for task in tasks if query.search in text_of(task.task_id).casefold()]
    return tasks


def _matches(task: WaitingTask, query: Query) -> bool:
    """Return whether a query asks for a task."""
    return (
        query.scheduler in ("", task.scheduler_name)
        and query.status in ("", task.status)
        and query.search in text_of(task.task.task_id).casefold()
    )


def status_of(task: _Task) -> str:
    """Return the status of a task that has not ended."""
    if task.status is ScheduledTask.Status.PENDING:
        return "paused" if task.paused else "pending"
    return task.status.value if task.status is not ScheduledTask.Status.CANCELLING else "running"


def _running_due(index: TaskIndex, task: _Task, now: float) -> float:
    run = index.running.get(task)
    return 0.0 if run is None else run.due.timestamp() - now


def _describe(task: _Task | WaitingTask, indexes: Iterable[TaskIndex], keys: Keys) -> JSON:
    if isinstance(task, WaitingTask):
        return {
            "key": keys.key(task.scheduler_name, task.task.task_id),
            "id": text_of(task.task.task_id),
            "scheduler": task.scheduler_name,
            "status": task.status,
            "due": milliseconds(task.task.due),
            "runs": task.task.run_count,
            "failure": task.task.problem,
        }
    run = next((index.running[task] for index in indexes if task in index.running), None)
    return {
        "key": keys.key(task.scheduler_name, task.task_id),
        "id": text_of(task.task_id),
        "scheduler": task.scheduler_name,
        "status": status_of(task),
        "due": milliseconds(task.due or (run.due if run is not None else None)),
        "runs": task.run_count,
        "failure": None,
    }


def _find_ended(history: History, query: Query, keys: Keys) -> JSON:
    source = history.failures if query.status == "failed" else history.runs
    runs = [
        run
        for run in source
        if run.status == query.status
        and (not query.scheduler or run.scheduler == query.scheduler)
        and query.search in text_of(run.task_id).casefold()
    ]
    runs.sort(key=lambda run: run.due, reverse=query.descending)
    first = query.page * PAGE_SIZE
    rows = [
        {**describe_run(run), "key": keys.key(run.scheduler, run.task_id), "runs": run.number}
        for run in runs[first : first + PAGE_SIZE]
    ]
    return {"rows": rows, "total": len(runs), "page": query.page, "pages": min(-(-len(runs) // PAGE_SIZE), MAX_PAGES)}


def describe_run(run: RunRecord) -> JSON:
    """Return a run as JSON, without its traceback."""
    return {
        "id": text_of(run.task_id),
        "scheduler": run.scheduler,
        "status": run.status,
        "number": run.number,
        "due": milliseconds(run.due),
        "started": milliseconds(run.started),
        "ended": milliseconds(run.ended),
        "seconds": run.seconds,
        "lateness": run.lateness,
        "failure": run.failure,
    }


def milliseconds(moment: datetime | None) -> int | None:
    """Return a moment as JavaScript represents it, in milliseconds since 1970."""
    return None if moment is None else round(moment.timestamp() * 1e3)
