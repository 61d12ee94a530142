"""Typical programs of users, and their mistakes, as type checkers see them; checked but not run."""

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, assert_type

import anyio

from anysched import DuplicateTaskError, ScheduledTask, Scheduler, create_task, current_scheduled_task


class Page:
    pass


async def fetch(url: str, *, retries: int = 0) -> Page:
    raise NotImplementedError


def plain(number: int) -> str:
    return str(number)


class Reminders:
    """A component with a child of a hosted scheduler."""

    def __init__(self, root: Scheduler) -> None:
        self.scheduler = root.child(type(self).__name__, max_running=10)

    async def send(self, text: str) -> int:
        return len(text)

    def remind(self, delay: timedelta, text: str) -> ScheduledTask[int]:
        return self.scheduler.schedule_later(delay, ("reminder", text), self.send, text, on_conflict="replace")

    async def close(self) -> list[tuple[Hashable, datetime | None]]:
        return [(task.task_id, task.due) for task in await self.scheduler.close(grace=5)]


async def use(scheduler: Scheduler, reminders: Reminders) -> None:
    assert_type(await scheduler.schedule("url", fetch, "url"), Page)
    assert_type(await scheduler.schedule("url", partial(fetch, "url", retries=3)), Page)
    assert_type(await scheduler.schedule("url", lambda: fetch("url", retries=3)), Page)
    assert_type(await scheduler.schedule("text", anyio.to_thread.run_sync, plain, 5), str)  # odd: ty
    assert_type(await reminders.remind(timedelta(days=1), "text"), int)
    task = scheduler.tasks["url"]
    assert_type(task, ScheduledTask[Any])
    waiting: Callable[[], Awaitable[None]] = task.wait
    if task.status == anyio.TaskHandle.Status.PENDING:
        await waiting()
    assert_type(task.status is ScheduledTask.Status.RUNNING, bool)
    me = current_scheduled_task()
    if me is not None:
        assert_type(me.task_id, Hashable)
    try:
        scheduler.schedule("url", fetch, "url", on_conflict="error")
    except DuplicateTaskError as error:
        assert_type(error.scheduler, str)
        assert_type(error.task_id, Hashable)


async def slips(scheduler: Scheduler, coroutine: Coroutine[Any, Any, Page]) -> None:
    text: str = await scheduler.schedule("k", fetch, "url")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    scheduler.schedule("k", coroutine, "url")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    scheduler.schedule("k", fetch, url="url")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    scheduler.schedule("k", Reminders.send, "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # unseen: ty
    scheduler.schedule("k")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    scheduler.schedule_later(5, coroutine)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    scheduler.schedule_later(datetime.now(UTC), "k", coroutine)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule_at(timedelta(days=1), "k", coroutine)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule_at(date(2030, 1, 1), "k", coroutine)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule("k", coroutine, context={})  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.reschedule_at(5, "k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.statistics().pending = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    scheduler.join()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await scheduler.close(grace="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await scheduler.cancel("k")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    with Scheduler("k"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    Scheduler(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Scheduler("k", 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Scheduler("k", max_running="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    create_task(coroutine, suppressed_exceptions=ValueError)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    del text


class Mine(Scheduler):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    pass
