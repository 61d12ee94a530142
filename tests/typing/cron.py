"""The types of `anysched.cron` as users see them; checked but not run."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import assert_type
from zoneinfo import ZoneInfo

from anysched import ScheduledTask, Scheduler
from anysched.cron import Cron


async def backup() -> None:
    raise NotImplementedError


async def use(scheduler: Scheduler) -> None:
    cron = Cron("30 2 * * *", "Europe/Paris")
    assert_type(cron.expression, str)
    assert_type(cron.timezone, tzinfo)
    assert_type(cron(scheduler.now()), Iterator[datetime])
    assert_type({cron: 1}, dict[Cron, int])
    function: Callable[[datetime], Iterable[datetime]] = cron
    assert_type(scheduler.schedule_at_times(cron, "backup", backup), ScheduledTask[None])
    scheduler.schedule_at_times(function, "backup", backup)
    Cron("@daily")
    Cron("@daily", ZoneInfo("Europe/Paris"))
    Cron("@daily", timezone=UTC)
    Cron(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Cron("@daily", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cron("now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cron.expression = "@daily"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
