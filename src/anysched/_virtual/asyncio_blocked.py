"""The blocked tasks of an asyncio event loop, and how to raise an error in one."""

from __future__ import annotations

import asyncio
from asyncio import base_events
from collections import deque
from collections.abc import MutableSet
from typing import Any, NoReturn, cast

from anyio._backends._asyncio import TestRunner

from .blocked import frames

__all__ = ["blocked_tasks", "raise_in"]

Task = asyncio.Task[Any]


def blocked_tasks(loop: asyncio.AbstractEventLoop) -> list[Task]:
    """Return the tasks of an idle event loop: first the one whose end ends the run, the others by their names.

    If anyio's plugin for pytest runs a test, the first is the task of the test. The plugin waits for it in another one,
    which is left out.
    """
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    main = next(filter(_ends_the_run, tasks), None)
    if main is not None:
        outermost = next(frames(main.get_coro()), None)
        if outermost is not None and outermost.f_code is TestRunner._call_in_runner_task.__code__:
            tasks.remove(main)
            main = cast("Task", vars(outermost.f_locals["self"])["_runner_task"])
        tasks.sort(key=lambda task: task is not main)
    return tasks


def _ends_the_run(task: Task) -> bool:
    callbacks: list[tuple[object, object]] | None = getattr(task, "_callbacks", None)
    ends_run = vars(base_events)["_run_until_complete_cb"]
    return any(callback is ends_run for callback, _ in callbacks or ())


def raise_in(task: Task, error: Exception, failed_groups: MutableSet[object]) -> bool:
    """Raise an error where a task is blocked.

    Args:
        task: The task.
        error: The error.
        failed_groups: The task groups in which an error has been raised.

    Returns:
        Whether this is possible.
    """
    waiter: Any = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        return raise_in(cast("Any", waiter), error, failed_groups)
    if not isinstance(waiter, asyncio.Future) or waiter.done():
        return False
    innermost = deque(frames(task.get_coro()), 1)
    group: Any = innermost[0].f_locals.get("self") if innermost else None
    if getattr(group, "_on_completed_fut", None) is not waiter:
        waiter.set_exception(error)
        return True
    # The task leaves a task group of anyio or asyncio and has to wait for its tasks. The error of one ends the others.
    if group in failed_groups:
        return False  # some of them do not end
    failed_groups.add(group)
    group.create_task(_fail(error))
    return True


async def _fail(error: Exception) -> NoReturn:
    raise error
