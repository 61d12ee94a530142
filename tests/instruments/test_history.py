"""The records of the history, in virtual time, and its bounded memory."""

from __future__ import annotations

import gc
import logging
import traceback
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from anysched import history as history_module
from anysched.abc import FinishedRun, Instrument
from anysched.history import History
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from support import dispatcher_of, errors, fail, nothing, settle

pytestmark = pytest.mark.anyio

HOUR = 3600
START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def history(scheduler: Scheduler) -> History:
    history = History()
    scheduler.add_instrument(history)
    return history


async def test_a_run(scheduler: Scheduler, history: History, virtual_clock: VirtualClock) -> None:
    start = virtual_clock.now()
    task = scheduler.schedule_later(60, "id", anyio.sleep, 5)
    location = history.location(task)
    assert location is not None
    assert location.file == __file__
    assert location.function == "test_a_run"
    assert str(location) == f"{__file__}:{location.line} in test_a_run"
    await virtual_clock.advance(62)
    (run,) = history.running
    assert (run.status, run.ended, run.seconds) == ("running", None, None)
    await task
    assert history.running == []
    (run,) = history.runs
    assert (run.scheduler, run.task_id, run.number) == ("test", "id", 1)
    assert run.due == run.started == start + timedelta(seconds=60)
    assert run.ended == start + timedelta(seconds=65)
    assert (run.lateness, run.seconds) == pytest.approx((0, 5))
    assert (run.status, run.failure, run.traceback, run.location) == ("finished", None, None, location)
    assert history.failures == []
    assert history.location(task) is None


async def test_a_failure_is_kept_with_its_traceback(
    scheduler: Scheduler, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    await scheduler.schedule("id", fail, ValueError("broken")).wait()
    (run,) = history.runs
    assert history.failures == [run]
    assert (run.status, run.failure) == ("failed", "ValueError: broken")
    assert run.traceback is not None
    assert run.traceback.startswith("Traceback (most recent call last):")
    assert "in fail" in run.traceback
    assert len(errors(caplog)) == 1


async def test_a_cancelled_run(scheduler: Scheduler, history: History, virtual_clock: VirtualClock) -> None:
    scheduler.schedule("id", anyio.sleep_forever)
    await virtual_clock.advance(1)
    scheduler.cancel("id")
    await scheduler.join()
    assert [(run.status, run.failure) for run in history.runs] == [("cancelled", None)]
    assert history.failures == []


async def test_a_failed_clean_up_is_a_failure(
    scheduler: Scheduler, history: History, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancellation:
            raise BaseExceptionGroup("both", [ValueError("clean-up"), cancellation]) from None

    scheduler.schedule("id", work)
    await virtual_clock.advance(1)
    scheduler.cancel("id")
    await scheduler.join()
    assert [(run.status, run.failure) for run in history.failures] == [
        ("cancelled", "ExceptionGroup: both (1 sub-exception)")
    ]
    assert len(errors(caplog)) == 1


async def test_a_recurring_task(scheduler: Scheduler, history: History, virtual_clock: VirtualClock) -> None:
    start = virtual_clock.now()
    task = scheduler.schedule_every(60, "id", nothing)
    await virtual_clock.advance(185)
    assert [run.number for run in history.runs] == [1, 2, 3]
    assert [run.due - start for run in history.runs] == [timedelta(minutes=minute) for minute in (1, 2, 3)]
    assert history.location(task) == history.runs[0].location


async def test_a_task_that_fails_because_its_times_do(
    scheduler: Scheduler, history: History, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def times() -> Any:
        yield virtual_clock.now() + timedelta(seconds=1)
        raise LookupError("no more")

    with virtual_clock.patch_datetime():
        await scheduler.schedule_at_times(times(), "id", nothing).wait()
        (failure,) = history.failures
        assert (failure.failure, failure.number, failure.started) == ("LookupError: no more", 0, virtual_clock.now())
    assert [run.status for run in history.runs] == ["finished"]
    assert sum(minute.failed for minute in history.minutes) == 1
    assert len(errors(caplog)) == 1


async def test_a_start_that_is_refused_is_a_failure_without_a_run(
    scheduler: Scheduler,
    history: History,
    virtual_clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("refused")

    monkeypatch.setattr(type(dispatcher_of(scheduler).starter), "start", refuse)
    due = virtual_clock.now() + timedelta(seconds=1)
    await scheduler.schedule_at(due, "id", nothing).wait()
    assert history.runs == []
    assert [(run.failure, run.due, run.number) for run in history.failures] == [("ValueError: refused", due, 0)]
    assert len(errors(caplog)) == 1


async def test_an_exception_that_cannot_be_printed(
    scheduler: Scheduler, history: History, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr(traceback, "format_exception_only", broken)
    await scheduler.schedule("id", fail, LookupError("text")).wait()
    monkeypatch.undo()
    assert history.failures[0].failure == "LookupError (which cannot be printed)"
    assert len(errors(caplog)) == 1


async def test_runs_of_an_id(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(max_runs=2)
    scheduler.add_instrument(history)
    child = scheduler.child("child")
    await scheduler.schedule("id", fail, ValueError("first")).wait()
    await scheduler.schedule("id", nothing)
    await scheduler.schedule("other", nothing)
    await child.schedule("id", nothing)
    scheduler.schedule("id", anyio.sleep, 10)
    await virtual_clock.advance(1)
    # The first run is no longer among the last two, but it is a failure.
    assert [run.status for run in history.runs_of("test", "id")] == ["failed", "running"]
    assert [run.status for run in history.runs_of("test.child", "id")] == ["finished"]
    assert history.runs_of("test", "unknown") == []
    assert len(errors(caplog)) == 1


async def test_counts_and_latencies_by_minute(virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    history = History()
    async with Scheduler("test", instruments=[history], max_running=1) as scheduler:
        start = virtual_clock.now()
        await anyio.sleep(60 - start.second)
        start = virtual_clock.now()
        scheduler.schedule("first", anyio.sleep, 70)
        scheduler.schedule_later(10, "second", anyio.sleep, 2)
        scheduler.schedule_later(20, "third", fail, ValueError())
        await scheduler.join()
        scheduler.schedule_later(HOUR, "fourth", anyio.sleep_forever)
        await anyio.sleep(HOUR + 1)
        scheduler.cancel("fourth")
        await scheduler.join()
    first, second, third = history.minutes
    assert [minute.start for minute in (first, second, third)] == [
        start,
        start + timedelta(minutes=1),
        start + timedelta(minutes=61),
    ]
    assert (first.started, first.finished, first.failed, first.cancelled) == (1, 0, 0, 0)
    assert (second.started, second.finished, second.failed, second.cancelled) == (2, 2, 1, 0)
    assert (third.started, third.finished, third.failed, third.cancelled) == (1, 0, 0, 1)
    assert second.total_lateness == pytest.approx(60 + 52)
    assert second.max_lateness == pytest.approx(60)
    assert second.total_seconds == pytest.approx(72)
    assert second.max_seconds == pytest.approx(70)
    assert len(errors(caplog)) == 1


async def test_the_memory_is_bounded(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(history_module, "MAX_LOCATIONS", 3)
    history = History(max_runs=5, max_failures=2, max_minutes=4)
    scheduler.add_instrument(history)
    for number in range(10):
        await scheduler.schedule(number, fail, ValueError("long" * 10_000)).wait()
        await anyio.sleep(60)
    assert [run.task_id for run in history.runs] == [5, 6, 7, 8, 9]
    assert [run.task_id for run in history.failures] == [8, 9]
    assert len(history.minutes) == 4
    failure = history.failures[0]
    assert failure.failure is not None
    assert failure.traceback is not None
    assert len(failure.failure) < 600
    assert len(failure.traceback) < 9_000
    assert "\n...\n" in failure.failure
    tasks = [scheduler.schedule_later(HOUR, number, nothing) for number in range(4)]
    assert [history.location(task) is None for task in tasks] == [True, False, False, False]
    assert len(errors(caplog)) == 10
    scheduler.cancel_all()
    assert history._locations == {}


async def test_tasks_and_exceptions_are_not_kept(
    scheduler: Scheduler, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("anysched.test"), "disabled", True)  # pytest keeps log records

    class BrokenError(Exception):
        pass

    async def work() -> None:
        raise BrokenError

    task = scheduler.schedule("id", work)
    await task.wait()
    references: list[weakref.ref[Any]] = [weakref.ref(task), weakref.ref(task.exception)]
    del task
    await settle(5)
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert len(history.failures) == 1


async def test_a_failure_is_recorded_once_if_an_instrument_ends_another_task_in_between(
    scheduler: Scheduler, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    class CancelRest(Instrument):
        def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
            scheduler.cancel("other")

    scheduler.add_instrument(CancelRest())
    scheduler.schedule_later(HOUR, "other", nothing)
    await scheduler.schedule("id", fail, ValueError("broken")).wait()
    assert [(run.task_id, run.number) for run in history.failures] == [("id", 1)]
    assert sum(minute.failed for minute in history.minutes) == 1
    assert "other" not in scheduler
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("module", [{}, {"__name__": None}])
async def test_a_task_that_is_scheduled_by_code_without_a_module(
    scheduler: Scheduler, history: History, module: dict[str, Any]
) -> None:
    exec("scheduler.schedule_later(3600, 'id', nothing)", {**module, "scheduler": scheduler, "nothing": nothing})
    assert str(history.location(scheduler.tasks["id"])) == "<string>:1 in <module>"


async def test_one_that_was_added_during_a_run(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    task = scheduler.schedule("id", anyio.sleep, 10)
    await virtual_clock.advance(1)
    history = History()
    scheduler.add_instrument(history)
    await task
    assert (history.runs, history.running, history.failures) == ([], [], [])


@pytest.mark.parametrize("name", ["max_runs", "max_failures", "max_minutes"])
async def test_wrong_limits_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        History(**{name: 0})
    for wrong in ("1", 1.0, True):
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            History(**{name: wrong})  # type: ignore[arg-type]


def test_a_history_serves_two_schedulers() -> None:
    history = History()

    async def main() -> None:
        async with Scheduler("one", instruments=[history]) as one, Scheduler("two", instruments=[history]) as two:
            task: ScheduledTask[None] = one.schedule("id", nothing)
            await task
            await two.schedule("id", nothing)

    anyio.run(main)
    assert [run.scheduler for run in history.runs] == ["one", "two"]
