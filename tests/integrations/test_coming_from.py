"""The tables "What differs" of the pages on other schedulers: each row is tested on both, in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import aiojobs
import anyio
import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from cronsim import CronSim
from discord.ext import tasks
from documentation import ROOT

from anysched import DuplicateTaskError, Scheduler, current_scheduled_task
from anysched.testing import VirtualClock
from peers import LogHandler, Main, Runs, in_virtual_time, now

FACTS: dict[str, list[str]] = {"aiojobs": [], "apscheduler": [], "discord-tasks": [], "call-later": []}


def fact(page: str, row: str) -> Callable[[Main], Callable[[], None]]:
    """Turn a coroutine function into a test of a row of a page. It runs in virtual time."""
    FACTS[page].append(row)

    def decorate(main: Main) -> Callable[[], None]:
        def test() -> None:
            in_virtual_time(main)

        test.__name__, test.__doc__ = main.__name__, row
        return test

    return decorate


async def cancel_two(*works: Runs) -> None:
    """Cancel tasks of a scheduler while they run."""
    async with Scheduler("x") as scheduler:
        for number, work in enumerate(works):
            scheduler.schedule(number, work)
        await asyncio.sleep(1)
        scheduler.cancel_all()
        await asyncio.sleep(10)


@pytest.mark.parametrize("page", FACTS)
def test_each_row_of_the_page_is_tried(page: str) -> None:
    text = (ROOT / "docs" / "coming-from" / f"{page}.md").read_text("utf-8")
    table = text.partition("## What differs\n")[2].strip().splitlines()
    assert [re.split(r"(?<!\\)\|", row)[1].strip() for row in table[2:]] == FACTS[page]


# aiojobs


@fact("aiojobs", "Leaving `async with`")
async def test_aiojobs_leaving() -> None:
    work = Runs(30, 30)
    async with aiojobs.Scheduler() as jobs:
        await jobs.spawn(work())
        await asyncio.sleep(0)
    assert now() == 30
    async with Scheduler("x") as scheduler:
        scheduler.schedule("id", work)
        await asyncio.sleep(1)
    assert now() == 31
    assert work.ends == ["done", "cleaned up"]


@fact("aiojobs", "Starting a task")
async def test_aiojobs_starting() -> None:
    assert aiojobs.Scheduler().pending_limit == 10_000
    work = Runs(10, 10, 10)
    async with aiojobs.Scheduler(limit=1, pending_limit=1) as jobs:
        for _ in range(3):
            await jobs.spawn(work())
        assert now() == 10


@fact("aiojobs", "Closing")
async def test_aiojobs_closing() -> None:
    work = Runs(30, 30, cleanup=5)
    jobs = aiojobs.Scheduler(exception_handler=lambda *_: None)
    await jobs.spawn(work())
    await asyncio.sleep(1)
    await jobs.close()
    assert now() == pytest.approx(1.1)
    assert work.ends == ["cancelled"]
    async with Scheduler("x") as scheduler:
        scheduler.schedule("id", work)
        await asyncio.sleep(1)
        await scheduler.close()
    assert work.ends == ["cancelled", "cleaned up"]
    assert now() == pytest.approx(7.1)


@fact("aiojobs", "An `await` in the clean-up of a cancelled task")
async def test_aiojobs_cleanup() -> None:
    old, new, shielded = (Runs(30, cleanup=0.05, shield=shield) for shield in (False, False, True))
    jobs = aiojobs.Scheduler()
    await jobs.spawn(old())
    await asyncio.sleep(1)
    await jobs.close()
    await cancel_two(new, shielded)
    assert [old.ends, new.ends, shielded.ends] == [["cleaned up"], ["cancelled"], ["cleaned up"]]


@fact("aiojobs", "A failing job")
async def test_aiojobs_failing() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    work = Runs(1, 1, 1, error=ZeroDivisionError())
    async with aiojobs.Scheduler() as jobs:
        await jobs.spawn(work())
        await asyncio.sleep(2)
        assert len(reported) == 1
        with pytest.raises(ZeroDivisionError):
            await (await jobs.spawn(work())).wait()
        assert len(reported) == 1
    with LogHandler() as lines:
        async with Scheduler("x") as scheduler:
            await scheduler.schedule("id", work).wait()
    assert lines == ["ERROR: Error in task 'id'!"]


@fact("aiojobs", "The exception, when a job is awaited")
async def test_aiojobs_exception() -> None:
    work = Runs(1, 1, error=ZeroDivisionError())
    async with aiojobs.Scheduler() as jobs:
        with pytest.raises(ZeroDivisionError):
            await (await jobs.spawn(work())).wait()
    async with Scheduler("x") as scheduler:
        with pytest.raises(anyio.TaskFailed) as caught:
            await scheduler.schedule("id", work)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@fact("aiojobs", "`wait` with a timeout that expires")
async def test_aiojobs_timeout() -> None:
    work = Runs(10, 10)
    async with aiojobs.Scheduler() as jobs:
        with pytest.raises(TimeoutError):
            await (await jobs.spawn(work())).wait(timeout=5)
        assert work.ends == ["cleaned up"]
    async with Scheduler("x") as scheduler:
        with pytest.raises(TimeoutError), anyio.fail_after(5):
            await scheduler.schedule("id", work)
        await scheduler.join()
    assert work.ends == ["cleaned up", "done"]


@fact("aiojobs", "The awaiting task is cancelled")
async def test_aiojobs_cancelled_waiter() -> None:
    async def cancelled_waiter(wait: Callable[[], Any]) -> None:
        async def waiter() -> None:
            await wait()

        task = asyncio.create_task(waiter())
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.sleep(10)

    plain, shielded, waited, ours = Runs(10), Runs(10), Runs(10), Runs(10)
    async with aiojobs.Scheduler() as jobs:
        await cancelled_waiter(plain)
        await cancelled_waiter(lambda: jobs.shield(shielded()))
        job = await jobs.spawn(waited())
        await cancelled_waiter(job.wait)
    async with Scheduler("x") as scheduler:
        await cancelled_waiter(scheduler.schedule("id", ours).wait)
    assert [plain.ends, shielded.ends, waited.ends, ours.ends] == [["cleaned up"], ["done"], ["done"], ["done"]]


@fact("aiojobs", "Pending jobs at the end")
async def test_aiojobs_pending_at_the_end() -> None:
    work = Runs(10, 10, 10, 10)
    jobs = aiojobs.Scheduler(limit=1)
    for _ in range(2):
        await jobs.spawn(work())
    await asyncio.sleep(1)
    assert jobs.pending_count == 1
    assert await jobs.close() is None
    assert len(work.starts) == 1
    async with Scheduler("x", max_running=1) as scheduler:
        scheduler.schedule("running", work)
        pending = scheduler.schedule("pending", work)
        await asyncio.sleep(1)
        assert pending in await scheduler.close()
    assert len(work.starts) == 2


# APScheduler


def apscheduler(**options: Any) -> AsyncIOScheduler:
    scheduler = AsyncIOScheduler(**{"timezone": UTC, **options})
    scheduler.start()
    return scheduler


def after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@fact("apscheduler", "A job that is more than 1 s late, as after a suspend")
async def test_apscheduler_late() -> None:
    old, new = Runs(), Runs()
    with LogHandler() as lines:
        jobs = apscheduler()
        jobs.add_job(old.run, "date", run_date=after(60))
        async with Scheduler("x") as scheduler:
            scheduler.schedule_at(after(60), "id", new)
            await asyncio.sleep(1)
            VirtualClock.current().suspend(3600)
            await asyncio.sleep(120)
        jobs.shutdown()
    assert (old.starts, new.starts) == ([], [1])
    assert any(line.startswith("WARNING: Run time of job") for line in lines)


@fact("apscheduler", "An ID that is held")
async def test_apscheduler_held() -> None:
    work = Runs()
    jobs = apscheduler()
    jobs.add_job(work.run, "date", run_date=after(60), id="id")
    with pytest.raises(ConflictingIdError):
        jobs.add_job(work.run, "date", run_date=after(60), id="id")
    jobs.shutdown()
    async with Scheduler("x") as scheduler:
        holder = scheduler.schedule_later(60, "id", work)
        assert scheduler.schedule_later(60, "id", work) is holder
        with pytest.raises(DuplicateTaskError):
            scheduler.schedule_later(60, "id", work, on_conflict="error")


@fact("apscheduler", "An ID that is not a string")
async def test_apscheduler_id() -> None:
    jobs = apscheduler()
    number: Any = 5
    with pytest.raises(TypeError):
        jobs.add_job(Runs().run, "date", run_date=after(60), id=number)
    jobs.shutdown()


@fact("apscheduler", "A naive `run_date`")
async def test_apscheduler_naive() -> None:
    import tzlocal

    assert AsyncIOScheduler().timezone == tzlocal.get_localzone()
    jobs = apscheduler(timezone="Asia/Kolkata")
    job = jobs.add_job(Runs().run, "date", run_date=datetime(2025, 1, 2, 9))
    assert job.next_run_time == datetime(2025, 1, 2, 3, 30, tzinfo=UTC)
    jobs.shutdown()
    async with Scheduler("x") as scheduler:
        assert scheduler.schedule_at(datetime(2025, 1, 2, 9), "id", Runs()).due == datetime(2025, 1, 2, 9, tzinfo=UTC)


@fact("apscheduler", "A coroutine object instead of a function")
async def test_apscheduler_coroutine() -> None:
    work = Runs()
    coroutine = work()
    jobs = apscheduler()
    with pytest.raises(TypeError):
        jobs.add_job(coroutine, "date", run_date=after(60))
    jobs.shutdown()
    async with Scheduler("x") as scheduler:
        assert await scheduler.schedule_later(60, "id", coroutine) == 42


@fact("apscheduler", "Removing a running job")
async def test_apscheduler_remove_running() -> None:
    old, new = Runs(10), Runs(10)
    jobs = apscheduler()
    jobs.add_job(old.run, "interval", seconds=5, id="id")
    await asyncio.sleep(6)
    jobs.remove_job("id")
    async with Scheduler("x") as scheduler:
        scheduler.schedule("id", new)
        await asyncio.sleep(1)
        scheduler.cancel("id")
        await asyncio.sleep(20)
    jobs.shutdown()
    assert (old.ends, new.ends) == (["done"], ["cleaned up"])


@fact("apscheduler", "Removing an unknown ID")
async def test_apscheduler_remove_unknown() -> None:
    jobs = apscheduler()
    with pytest.raises(JobLookupError):
        jobs.remove_job("id")
    jobs.shutdown()
    async with Scheduler("x") as scheduler:
        with LogHandler() as lines:
            assert scheduler.cancel("id") is False
    assert lines == ["WARNING: Failed to unschedule 'id' (no task found)."]


@fact("apscheduler", "A run that is due while the previous one still runs")
async def test_apscheduler_overlap() -> None:
    old, skip, each = Runs(25), Runs(25), Runs(25)
    with LogHandler() as lines:
        jobs = apscheduler()
        jobs.add_job(old.run, "interval", seconds=10)
        async with Scheduler("x") as scheduler:
            scheduler.schedule_every(10, "skip", skip)
            scheduler.schedule_every(10, "all", each, missed="all")
            await asyncio.sleep(45)
        jobs.shutdown()
    assert [list(map(round, runs.starts)) for runs in (old, skip, each)] == [[10, 40], [10, 35, 40], [10, 35, 35, 40]]
    assert any("maximum number of running instances reached" in line for line in lines)


@fact("apscheduler", "`shutdown(wait=True)`")
async def test_apscheduler_shutdown() -> None:
    old, new = Runs(10, cleanup=5), Runs(10)
    jobs = apscheduler()
    jobs.add_job(old.run, "date", run_date=after(1))
    await asyncio.sleep(2)
    with LogHandler():  # APScheduler logs the cancellation as an error
        jobs.shutdown(wait=True)
        assert old.ends == []
        await asyncio.sleep(10)
        assert old.ends == ["cleaned up"]
    async with Scheduler("x") as scheduler:
        scheduler.schedule("id", new)
        await asyncio.sleep(1)
        assert await scheduler.close(grace=60) == []
    assert new.ends == ["done"]


@fact("apscheduler", "The return value of a run")
async def test_apscheduler_result() -> None:
    results: list[object] = []
    jobs = apscheduler()
    jobs.add_listener(lambda event: results.append(event.retval), EVENT_JOB_EXECUTED)
    jobs.add_job(Runs().run, "date", run_date=after(1))
    await asyncio.sleep(2)
    jobs.shutdown()
    assert results == [42]
    async with Scheduler("x") as scheduler:
        assert await scheduler.schedule("id", Runs()) == 42


def test_apscheduler_what_maps_to_what() -> None:
    async def main() -> None:
        threads: list[object] = []
        async with Scheduler("x") as scheduler:
            task = scheduler.schedule("k", partial(Runs(), 1))
            assert await task == 42
            await scheduler.schedule("k", anyio.to_thread.run_sync, partial(threads.append, 1))
            assert threads == [1]
            daily = scheduler.schedule_at_times(CronSim("0 9 * * *", datetime.now(UTC)), "k", Runs())
            assert daily.due == datetime(2025, 1, 1, 9, tzinfo=UTC)
            assert scheduler.reschedule_at(datetime(2025, 1, 1, 8, tzinfo=UTC), "k")
            assert scheduler.tasks["k"].due == datetime(2025, 1, 1, 8, tzinfo=UTC)

    in_virtual_time(main)


# discord.ext.tasks


def start_loop(work: Runs, **options: Any) -> Any:
    async def run() -> None:
        await work()

    loop = tasks.loop(**options)(run)
    loop.start()
    return loop


@fact("discord-tasks", "The first run")
async def test_discord_first() -> None:
    old, new, at_once = Runs(), Runs(), Runs()
    loop = start_loop(old, minutes=1)
    async with Scheduler("x") as scheduler:
        scheduler.schedule_every(60, "id", new)
        scheduler.schedule_every(60, "at once", at_once, first=0)
        await asyncio.sleep(100)
    loop.cancel()
    assert [old.starts, new.starts, at_once.starts] == [[0, 60], [60], [0, 60]]


@fact("discord-tasks", "A failing run")
async def test_discord_failing() -> None:
    old, new = Runs(error=ZeroDivisionError()), Runs(error=ZeroDivisionError())
    with LogHandler() as lines:
        loop = start_loop(old, minutes=1)
        await asyncio.sleep(200)
        assert not loop.is_running()
        assert isinstance(loop.get_task().exception(), ZeroDivisionError)
        assert lines == ["ERROR: Unhandled exception in internal background task 'run'."]
        del lines[:]
        async with Scheduler("x") as scheduler:
            scheduler.schedule_every(60, "id", new)
            await asyncio.sleep(200)
        assert lines == ["ERROR: Error in task 'id'!"] * 3
    assert len(old.starts) == 1


@fact("discord-tasks", "A run that fails with `OSError`, a timeout or a similar error")
async def test_discord_reconnect() -> None:
    for error in (OSError(), TimeoutError()):
        old, new = Runs(error=error), Runs(error=error)
        with LogHandler() as lines:
            begin = now()
            loop = start_loop(old, hours=1)
            await asyncio.sleep(600)
            assert loop.is_running()
            loop.cancel()
            assert len(old.starts) > 2
            assert old.starts[-1] < begin + 600
            assert all("Retrying in" in line for line in lines)
            async with Scheduler("x") as scheduler:
                scheduler.schedule_every(3600, "id", new, first=0)
                await asyncio.sleep(7201)
        assert len(new.starts) == 3


@fact("discord-tasks", "A run that takes longer than the period")
async def test_discord_overrun() -> None:
    old, skip, each = Runs(35), Runs(35), Runs(35)
    loop = start_loop(old, seconds=10)
    async with Scheduler("x") as scheduler:
        scheduler.schedule_every(10, "skip", skip, first=0)
        scheduler.schedule_every(10, "all", each, first=0, missed="all")
        await asyncio.sleep(45)
    loop.cancel()
    assert [list(map(round, runs.starts)) for runs in (old, skip, each)] == [
        [0, 35, 35, 35, 40],
        [0, 35, 40],
        [0, 35, 35, 35, 40],
    ]


@fact("discord-tasks", "The clock that measures periods")
async def test_discord_clock() -> None:
    old, new = Runs(), Runs()
    loop = start_loop(old, minutes=10)
    async with Scheduler("x") as scheduler:
        scheduler.schedule_every(600, "id", new, first=0)
        await asyncio.sleep(60)
        VirtualClock.current().step_wall(-3600)
        await asyncio.sleep(3600)
    loop.cancel()
    assert (len(old.starts), len(new.starts)) == (2, 7)


@fact("discord-tasks", "`start()` of a running loop")
async def test_discord_start() -> None:
    loop = start_loop(Runs(), minutes=1)
    with pytest.raises(RuntimeError):
        loop.start()
    loop.cancel()
    async with Scheduler("x") as scheduler:
        task = scheduler.schedule_every(60, "id", Runs())
        assert scheduler.schedule_every(60, "id", Runs()) is task


@fact("discord-tasks", "Loops of one function")
async def test_discord_objects() -> None:
    class Cog:
        @tasks.loop(minutes=1)
        async def work(self) -> None: ...

    one, other = Cog(), Cog()
    one.work.start()
    assert not other.work.is_running()
    one.work.cancel()
    work = Runs()
    async with Scheduler("x") as scheduler:
        assert scheduler.schedule_every(60, 1, work) is not scheduler.schedule_every(60, 2, work)


@fact("discord-tasks", "An `await` in the clean-up of a cancelled run")
async def test_discord_cleanup_awaits() -> None:
    old, new, shielded = (Runs(30, cleanup=5, shield=shield) for shield in (False, False, True))
    loop = start_loop(old, minutes=1)
    await asyncio.sleep(1)
    loop.cancel()
    await cancel_two(new, shielded)
    assert [old.ends, new.ends, shielded.ends] == [["cleaned up"], ["cancelled"], ["cleaned up"]]


@fact("discord-tasks", "The clean-up of a cancelled run")
async def test_discord_cleanup() -> None:
    old, new = Runs(10, cleanup=5), Runs(10, cleanup=5)
    loop = start_loop(old, minutes=1)
    await asyncio.sleep(1)
    loop.cancel()
    assert old.ends == []
    await asyncio.sleep(10)
    assert old.ends == ["cleaned up"]
    async with Scheduler("x") as scheduler:
        scheduler.schedule_every(60, "id", new, first=0)
        await asyncio.sleep(1)
        await scheduler.close()
        assert new.ends == ["cleaned up"]


def test_discord_what_maps_to_what() -> None:
    async def main() -> None:
        counts: list[int] = []

        async def three_times() -> None:
            task = current_scheduled_task()
            assert task is not None
            counts.append(task.run_count)
            if task.run_count == 3:
                scheduler.cancel("loop")

        work = Runs(0, 0, 30)
        async with Scheduler("x") as scheduler:
            await scheduler.schedule_every(10, "loop", three_times).wait()
            assert counts == [1, 2, 3]
            assert now() == 30
            first = scheduler.schedule_every(10, "loop", work, first=0)
            await asyncio.sleep(25)
            assert (first.run_count, "loop" in scheduler) == (3, True)
            task = scheduler.schedule_every(60, "loop", work, on_conflict="follow")
            await first.wait()
            assert work.ends == ["done"] * 3
            assert task.due == datetime(2025, 1, 1, 0, 1, 55, tzinfo=UTC)
            times = CronSim("30 8 * * *", datetime.now(ZoneInfo("Europe/Paris")))
            assert scheduler.schedule_at_times(times, "each", work).due == datetime(2025, 1, 1, 7, 30, tzinfo=UTC)

    in_virtual_time(main)


# loop.call_later


@fact("call-later", "The callee")
async def test_call_later_coroutine() -> None:
    async def work() -> None: ...

    asyncio.get_running_loop().call_later(1, work)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        await asyncio.sleep(2)


@fact("call-later", "`handle.cancel()` after it has fired")
async def test_call_later_cancel() -> None:
    old, new = Runs(10), Runs(10)
    started = []
    handle = asyncio.get_running_loop().call_later(1, lambda: started.append(asyncio.create_task(old())))
    async with Scheduler("x") as scheduler:
        task = scheduler.schedule_later(1, "id", new)
        await asyncio.sleep(2)
        handle.cancel()
        task.cancel()
        await asyncio.sleep(20)
    assert (old.ends, new.ends) == (["done"], ["cleaned up"])


@fact("call-later", "An `await` in the clean-up of a cancelled task")
async def test_call_later_cleanup() -> None:
    old, new, shielded = (Runs(30, cleanup=5, shield=shield) for shield in (False, False, True))
    task = asyncio.create_task(old())
    await asyncio.sleep(1)
    task.cancel()
    await cancel_two(new, shielded)
    assert [old.ends, new.ends, shielded.ends] == [["cleaned up"], ["cancelled"], ["cleaned up"]]


@fact("call-later", "An exception")
async def test_call_later_exception() -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    loop.call_later(1, lambda: 1 / 0)
    with LogHandler() as lines:
        async with Scheduler("x") as scheduler:
            task = scheduler.schedule_later(1, "id", Runs(error=ZeroDivisionError()))
            await task.wait()
    assert [type(exception) for exception in (*reported, task.exception)] == [ZeroDivisionError] * 2
    assert lines == ["ERROR: Error in task 'id'!"]


@fact("call-later", "Pending timers at the end")
async def test_call_later_end() -> None:
    called: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, called.append, 1)

    with LogHandler() as lines:
        await asyncio.to_thread(lambda: asyncio.run(main()))
    assert (called, lines) == ([], [])
    async with Scheduler("x") as scheduler:
        task = scheduler.schedule_later(1, "id", Runs())
        assert await scheduler.close() == [task]


@fact("call-later", "Timers that are due at the same moment")
async def test_call_later_order() -> None:
    loop = asyncio.get_running_loop()
    old: list[int] = []
    new: list[int] = []

    async def work(number: int) -> None:
        new.append(number)

    async with Scheduler("x") as scheduler:
        for number in range(20):
            loop.call_at(10, old.append, number)
            scheduler.schedule_later(10, number, work, number)
        await asyncio.sleep(20)
    assert old != sorted(old) == new


@fact("call-later", "Many timers due at once")
async def test_call_later_burst() -> None:
    loop = asyncio.get_running_loop()

    async def turns_between(numbers: list[int]) -> int:
        """How often another task runs while something is called a thousand times."""
        iterations = 0
        await begun.wait()
        while len(numbers) < 1000:
            iterations += 1
            await asyncio.sleep(0)
        return iterations

    def note(numbers: list[int], number: int) -> None:
        numbers.append(number)
        begun.set()

    async def work(number: int) -> None:
        note(new, number)

    old: list[int] = []
    new: list[int] = []
    begun = asyncio.Event()
    for number in range(1000):
        loop.call_at(10, note, old, number)
    assert await turns_between(old) == 0
    begun.clear()
    async with Scheduler("x") as scheduler:
        for number in range(1000):
            scheduler.schedule_later(10, number, work, number)
        assert await turns_between(new) > 10
