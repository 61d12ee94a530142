"""The types as users see them. Checked by mypy and pyright but not run; the ignored lines must be errors."""

import asyncio
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import anyio
from anyio.abc import TaskGroup

from anysched import (
    ConflictPolicy,
    MissedPolicy,
    ScheduledTask,
    Scheduler,
    SchedulerStatistics,
    create_task,
    current_scheduled_task,
)


class Page:
    pass


async def fetch(url: str, retries: int = 0) -> Page:
    raise NotImplementedError


async def nothing() -> None: ...


def plain() -> int:
    return 1


async def scheduling(scheduler: Scheduler, policy: ConflictPolicy) -> None:
    now = datetime.now(UTC)
    assert_type(scheduler.schedule("k", fetch("u")), ScheduledTask[Page])
    assert_type(scheduler.schedule("k", nothing), ScheduledTask[None])
    assert_type(scheduler.schedule_later(5, "k", fetch("u")), ScheduledTask[Page])
    assert_type(scheduler.schedule_later(timedelta(days=1), ("a", 1), nothing), ScheduledTask[None])
    assert_type(scheduler.schedule_at(now, "k", fetch("u")), ScheduledTask[Page])
    page: ScheduledTask[Page] = scheduler.schedule("k", fetch, "u", 3, on_conflict=policy)
    page = scheduler.schedule_later(1.5, "k", fetch, "u", 3, on_conflict="replace")
    page = scheduler.schedule_at(now, "k", fetch, "u", 3, on_conflict="follow")
    page = scheduler.schedule(task_id="k", coroutine=fetch("u"))
    page = scheduler.schedule("k", lambda: fetch("u", retries=1))
    wider: ScheduledTask[object] = page
    assert_type(await page, Page)
    assert_type(page.return_value, Page)
    assert_type(page.exception, BaseException | None)
    assert_type(page.due, datetime | None)
    assert_type(page.task_id, Hashable)
    assert_type(page.name, str)
    assert_type(page.cancel(), None)
    assert page.status is not ScheduledTask.Status.PENDING
    await wider.wait()

    scheduler.schedule("k", fetch, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # unseen: ty
    scheduler.schedule("k", fetch)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType, reportCallIssue]  # unseen: ty, pyrefly
    scheduler.schedule("k", plain)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule("k", 5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule([], nothing)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule("k", nothing, on_conflict="drop")  # type: ignore[call-overload, call-arg]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule_later("5", "k", nothing)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    scheduler.schedule_at(5, "k", nothing)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    page.task_id = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class Instant:
    """A moment of another library."""

    def timestamp(self) -> int:
        return 0


def moments(scheduler: Scheduler, moment: Instant) -> None:
    assert_type(scheduler.schedule_at(moment, "k", fetch, "u", 3), ScheduledTask[Page])
    assert_type(scheduler.reschedule_at(moment, "k"), bool)
    assert_type(scheduler.tasks["k"].reschedule_at(moment), bool)
    assert_type(scheduler.schedule_every(5, "k", nothing, first=moment), ScheduledTask[None])
    assert_type(scheduler.schedule_at_times([moment, datetime.now(UTC)], "k", nothing), ScheduledTask[None])
    assert_type(scheduler.schedule_at_times(lambda now: [moment], "k", nothing), ScheduledTask[None])


async def recurring(
    scheduler: Scheduler, times: Iterator[datetime], missed: MissedPolicy, policy: ConflictPolicy
) -> None:
    now = datetime.now(UTC)
    assert_type(scheduler.schedule_every(5, "k", nothing), ScheduledTask[None])
    assert_type(scheduler.schedule_every(timedelta(days=1), "k", fetch, "u", 3), ScheduledTask[None])
    assert_type(scheduler.schedule_at_times(times, "k", fetch, "u", 3), ScheduledTask[None])
    assert_type(scheduler.schedule_at_times([now], ("a", 1), lambda: fetch("u", retries=1)), ScheduledTask[None])
    task = scheduler.schedule_every(5, "k", nothing, first=now, missed=missed, jitter=1.5, on_conflict=policy)
    task = scheduler.schedule_every(5, "k", nothing, first=timedelta(days=1), jitter=timedelta(seconds=1))
    task = scheduler.schedule_every(period=5, task_id="k", func=nothing, first=0.5, missed="all", context=None)
    task = scheduler.schedule_at_times(
        times=times, task_id="k", func=nothing, missed="latest", jitter=1, on_conflict="error"
    )
    assert_type(task.run_count, int)
    assert_type(await task, None)

    scheduler.schedule_every(5, "k", fetch, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # unseen: ty
    scheduler.schedule_every(5, "k", fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # unseen: ty, pyrefly
    scheduler.schedule_every(5, "k", plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_every(5, "k", fetch("u"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_every("5", "k", nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_every(5, "k", nothing, first="now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_every(5, "k", nothing, missed="some")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_every(5, [], nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_at_times(now, "k", nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_at_times([1.5], "k", nothing)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_at_times(times, "k", nothing())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scheduler.schedule_at_times(times, "k", nothing, first=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task.run_count = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def managing() -> None:
    async with Scheduler("x", max_running=3) as scheduler:
        assert_type(scheduler, Scheduler)
        assert_type("k" in scheduler, bool)
        assert_type(scheduler.cancel("k"), bool)
        assert_type(scheduler.cancel_all(), None)
        assert_type(scheduler.reschedule_later(5, "k"), bool)
        assert_type(scheduler.reschedule_at(datetime.now(UTC), "k"), bool)
        assert_type(scheduler.tasks, Mapping[Hashable, ScheduledTask[Any]])
        assert_type(scheduler.statistics(), SchedulerStatistics)
        assert_type(scheduler.statistics().next_due, datetime | None)
        assert_type(scheduler.child("y", max_running=1), Scheduler)
        assert_type(current_scheduled_task(), ScheduledTask[Any] | None)
        assert_type(await scheduler.join(), None)
        assert_type(await scheduler.close(grace=timedelta(seconds=5)), list[ScheduledTask[Any]])
        scheduler.tasks["k"] = scheduler.tasks["l"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    async with anyio.create_task_group() as tg:
        await tg.start(scheduler.run)


def starting(tg: TaskGroup, loop: asyncio.AbstractEventLoop) -> None:
    assert_type(create_task(fetch("u")), asyncio.Task[Page])
    assert_type(create_task(fetch("u"), event_loop=loop, name="n"), asyncio.Task[Page])
    assert_type(create_task(fetch("u"), suppressed_exceptions=(ValueError, OSError)), asyncio.Task[Page])
    assert_type(create_task(fetch("u"), task_group=tg, name="n"), anyio.TaskHandle[Page])
    create_task(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    create_task(fetch("u"), event_loop=loop, task_group=tg)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
