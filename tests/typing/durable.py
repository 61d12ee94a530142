"""The types of the durable tier as users see them. Checked by mypy and pyright, not run; ignored lines must be errors."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import assert_type

from anysched.cron import Cron
from anysched.durable import (
    DurableRun,
    DurableScheduler,
    DurableStatistics,
    DurableTask,
    MemoryStore,
    SQLiteStore,
    TaskId,
    current_run,
)

reminders = DurableScheduler("reminders", SQLiteStore("bot.db", synchronous="normal"), max_running=20, unknown="error")
DurableScheduler("tests", MemoryStore())
DurableScheduler("wrong", object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SQLiteStore("bot.db", synchronous="off")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@reminders.handler("remind")
async def remind(channel: int, text: str) -> None:
    assert_type(current_run(), DurableRun)
    assert_type(current_run().task_id, TaskId)


async def scheduling() -> None:
    assert_type(await reminders.schedule(("reminder", 7), remind, 42, "rent"), DurableTask)
    await reminders.schedule_later(timedelta(days=30), 7, remind, 42, "rent", on_conflict="replace", expires=60)
    await reminders.schedule_at(datetime.now(UTC), "id", remind, 42, "rent")
    await reminders.schedule_every(60, "id", remind, 42, "rent", measured_from="end", missed="skip", jitter=5)
    await reminders.schedule_at_times(Cron("30 2 * * *", "Europe/Paris"), "id", remind, 42, "rent")
    await reminders.schedule_at_times([datetime.now(UTC)], "id", remind, 42, "rent")
    await reminders.schedule("id", remind, "42", "rent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # unseen: ty
    await reminders.schedule(1.5, remind, 42, "rent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asking() -> None:
    assert_type(await reminders.holds("id"), bool)
    assert_type(await reminders.get("id"), DurableTask | None)
    assert_type(reminders.tasks(("reminder",)), AsyncIterator[DurableTask])
    reminders.tasks(status="parked")
    reminders.tasks(status="done")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await reminders.statistics(), DurableStatistics)
    assert_type(await reminders.cancel("id", running="leave"), bool)
    assert_type(await reminders.close(timedelta(seconds=10)), list[DurableTask])
