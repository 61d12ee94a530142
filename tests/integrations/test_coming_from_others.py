"""What the page on other schedulers says of schedule, aiocron and fastapi-utils, tried with them in virtual time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import aiocron
import pytest
import schedule
import time_machine
from fastapi_utils.tasks import repeat_every

from anysched.testing import VirtualClock
from peers import LogHandler, Runs, in_virtual_time, now


def test_with_schedule_a_period_begins_when_the_job_has_ended() -> None:
    jobs = schedule.Scheduler()
    with time_machine.travel(datetime(2025, 1, 1, tzinfo=UTC), tick=False) as traveller:
        jobs.every(10).minutes.do(lambda: traveller.shift(240))
        traveller.shift(600)
        jobs.run_pending()
        assert jobs.next_run - datetime.now() == timedelta(minutes=10)  # noqa: DTZ005 - it is also naive


def test_with_schedule_a_failure_leaves_the_loop_and_the_other_jobs_do_not_run() -> None:
    ran: list[str] = []
    jobs = schedule.Scheduler()
    with time_machine.travel(datetime(2025, 1, 1, tzinfo=UTC), tick=False) as traveller:
        jobs.every(1).minutes.do(lambda: 1 / 0)
        jobs.every(2).minutes.do(ran.append, "other")
        traveller.shift(120)
        with pytest.raises(ZeroDivisionError):
            jobs.run_pending()
    assert ran == []


def test_with_schedule_a_day_at_a_time_is_in_a_zone() -> None:
    jobs = schedule.Scheduler()
    with time_machine.travel(datetime(2025, 1, 1, tzinfo=UTC), tick=False):
        job = jobs.every().day.at("10:30", "Europe/Paris").do(lambda: None)
        assert job.next_run.astimezone(UTC) == datetime(2025, 1, 1, 9, 30, tzinfo=UTC)


def test_with_aiocron_runs_overlap_and_go_on_after_a_stop() -> None:
    async def main() -> None:
        work = Runs(90, 90)
        cron = aiocron.crontab("* * * * *", work, tz=UTC)
        await asyncio.sleep(121)
        assert work.starts == [60, 120]
        assert work.ends == []
        cron.stop()
        await asyncio.sleep(600)
        assert work.ends == ["done", "done"]

    in_virtual_time(main)


def test_with_aiocron_a_clock_that_is_set_is_not_followed() -> None:
    async def main() -> None:
        work = Runs()
        cron = aiocron.crontab("0 12 * * *", work, tz=UTC)
        await asyncio.sleep(1)
        VirtualClock.current().step_wall(7200)
        await asyncio.sleep(86_000)
        assert work.starts == [43_200]  # the clock shows 14:00
        cron.stop()

    in_virtual_time(main)


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")  # fastapi-utils'
def test_with_repeat_every_the_first_run_is_at_once_the_pause_is_fixed_and_a_failure_is_silent() -> None:
    async def main() -> None:
        starts: list[float] = []

        async def fail() -> None:
            starts.append(now())
            await asyncio.sleep(5)
            raise ZeroDivisionError

        with LogHandler() as lines:
            await repeat_every(seconds=60)(fail)()
            await asyncio.sleep(150)
        assert starts == [0, 65, 130]
        assert lines == []

    in_virtual_time(main)
