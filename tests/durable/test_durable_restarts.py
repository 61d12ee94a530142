"""Restarts: no task is forgotten, and interrupted runs are repeated."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from durable_support import START, Program, seconds

from anysched.cron import Cron
from anysched.durable import (
    DurableScheduler,
    DurableStatistics,
    MemoryStore,
    Store,
    StoreInUseError,
    UnknownHandlerError,
    current_run,
)
from anysched.durable.operations import Claim, Park, Put, Recover
from anysched.durable.recurrence import Recurrence
from anysched.testing import VirtualClock

pytestmark = pytest.mark.anyio


async def test_a_month_with_three_restarts(program: Program, virtual_clock: VirtualClock) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(timedelta(days=30), "rent", program.quick, "rent")
        await scheduler.schedule_every(timedelta(days=7), "weekly", program.quick, "weekly")
        await scheduler.schedule_later(timedelta(days=12), "while down", program.quick, "while down")
        await anyio.sleep(8 * 86_400)
    await anyio.sleep(5 * 86_400)  # nothing runs from day 8 to day 13
    async with program.start() as scheduler:
        await scheduler.schedule_later(timedelta(days=1), "cancelled", program.quick, "cancelled")
        await scheduler.schedule_later(timedelta(days=2), "moved", program.quick, "moved")
        await scheduler.cancel("cancelled")
        await anyio.sleep(86_400)
    async with program.start() as scheduler:
        await scheduler.reschedule_later(timedelta(days=3), "moved")
    async with program.start() as scheduler:
        await anyio.sleep(20 * 86_400)
        await scheduler.cancel("weekly")
        await scheduler.join()
    assert [(time / 86_400, text) for time, text in program.began] == [
        (7, "weekly"), (13, "while down"), (14, "weekly"), (17, "moved"), (21, "weekly"), (28, "weekly"), (30, "rent"),
    ]  # fmt: skip


async def test_what_is_overdue_starts_in_the_order_of_due_times(program: Program) -> None:
    async with program.start() as scheduler:
        for number in range(300):
            await scheduler.schedule_later(60 + number * 7 % 300, number, program.quick, f"{number * 7 % 300}")
    await anyio.sleep(1_000)
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.began == [(1_000, str(number)) for number in range(300)]


async def test_an_interrupted_run_is_run_again_with_the_same_key(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "id")
        await anyio.sleep(1)
    assert program.journal == [(0, "begin", "id"), (1, "cancelled", "id")]
    async with program.start() as scheduler:
        task = await scheduler.get("id")
        assert task is not None
        assert task.status == "pending"
        assert task.attempts == 1
        await scheduler.join()
    assert program.journal[2:] == [(1, "begin", "id"), (11, "end", "id")]
    (first, key), (second, same) = program.keys
    assert (first, second) == (1, 2)
    assert key == same


async def test_each_run_of_a_recurring_task_has_a_key_of_its_own(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(20, "id", program.slow, "id", first=0)
        await anyio.sleep(21)
    async with program.start() as scheduler:
        await anyio.sleep(20)
    attempts = [attempt for attempt, _ in program.keys]
    keys = [key for _, key in program.keys]
    assert attempts == [1, 1, 2, 1]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


async def test_what_a_follow_left_finishes_after_a_restart_before_its_successor(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
        await scheduler.schedule("id", program.slow, "second", on_conflict="follow")
        await scheduler.schedule("id", program.slow, "third", on_conflict="follow")
    async with program.start() as scheduler:
        await anyio.sleep(1)
        await scheduler.schedule("id", program.quick, "fourth", on_conflict="replace")
        await scheduler.join()
    begins = [(word, text) for _, word, text in program.journal]
    assert begins == [
        ("begin", "first"), ("cancelled", "first"), ("begin", "first"), ("end", "first"), ("begin", "fourth"),
    ]  # fmt: skip


async def test_what_was_interrupted_and_is_followed_before_it_runs_again_finishes(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
    async with program.start(max_running=1) as scheduler:
        await scheduler.schedule("id", program.quick, "second", on_conflict="follow")
        await scheduler.reschedule_later(2, "id")
        await scheduler.join()
    assert [text for time, text in program.began] == ["first", "first", "second"]


async def test_what_cancel_left_is_finished_after_a_restart(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "id")
        await anyio.sleep(1)
        await scheduler.cancel("id", running="leave")
    async with program.start() as scheduler:
        assert not await scheduler.holds("id")
        await scheduler.join()
    assert [word for _, word, _ in program.journal] == ["begin", "cancelled", "begin", "end"]


@pytest.mark.parametrize(
    ("missed", "times"),
    [("latest", [60, 305, 360]), ("all", [60, 305, 305, 305, 305, 360]), ("skip", [60, 305, 360])],
)
async def test_what_was_missed_while_the_program_was_down(program: Program, missed: Any, times: list[int]) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(60, "id", program.quick, "id", missed=missed)
        await anyio.sleep(61)
    await anyio.sleep(305 - 61)
    async with program.start() as scheduler:
        await anyio.sleep(60)
    assert [time for time, _ in program.began] == times


async def test_what_was_missed_by_more_than_a_minute_is_skipped(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with program.start() as scheduler:
        await scheduler.schedule_every(3_600, "id", program.quick, "id", missed="skip")
        times = [START + timedelta(hours=hour) for hour in (1, 2, 3, 5)]
        await scheduler.schedule_at_times(times, "times", program.quick, "times", missed="skip")
    await anyio.sleep(4 * 3_600 + 61)
    async with program.start() as scheduler:
        await anyio.sleep(3_600)
    assert program.began == [(5 * 3_600, "id"), (5 * 3_600, "times")]
    assert "Skipped missed runs of task 'id'." in caplog.messages


async def test_the_holder_of_an_id_waits_for_its_handler(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async with program.start() as scheduler:
        for number in range(3):
            await scheduler.schedule_later(5, ("quick", number), program.quick, str(number))
        await scheduler.schedule_later(5, "slow", program.slow, "slow")
    async with DurableScheduler("test", program.store) as bare:
        assert caplog.messages == ["Some tasks wait until their handlers are registered: 'quick' (3), 'slow' (1)."]
        await anyio.sleep(10)
        task = await bare.get("slow")
        assert task is not None
        assert task.status == "unknown"
        assert await bare.cancel(("quick", 0))
        assert await bare.reschedule_later(20, ("quick", 1))
        assert not await bare.retry("slow")
        await anyio.sleep(1)
        assert program.began == []
        bare.handler("slow")(program.slow)
        bare.handler("other")(program.fail)
        await anyio.sleep(1)
        assert program.began == [(11, "slow")]
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.began == [(11, "slow"), (12, "2"), (12, "slow"), (30, "1")]


async def test_a_handler_that_is_registered_late_starts_nothing_twice(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "quick", program.quick, "quick")
        await scheduler.schedule_later(3, "slow", program.slow, "slow")
    late = DurableScheduler("test", program.store)
    late.handler("quick")(program.quick)
    async with late:
        await anyio.sleep(1)
        late.handler("slow")(program.slow)
        await late.join()
    assert program.began == [(3, "slow"), (5, "quick")]


async def test_unknown_handlers_can_be_an_error(program: Program, store: Store) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
    bare = DurableScheduler("test", store, unknown="error")
    with pytest.raises(UnknownHandlerError, match="scheduler 'test' has no handler 'quick'; register it"):
        async with bare:
            raise AssertionError
    assert bare.state == "closed"
    async with program.start(unknown="error") as scheduler:
        await scheduler.cancel_all()
    async with DurableScheduler("test", store, unknown="error"):
        pass  # the handler is known to the store, but has no task


async def test_arguments_that_do_not_fit_any_more(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
    changed = DurableScheduler("test", program.store)

    @changed.handler("quick")
    async def quick() -> None: ...

    async with changed:
        await anyio.sleep(10)
        task = await changed.get("id")
        assert task is not None
        assert task.status == "parked"
        assert (
            task.problem
            == "TypeError: the handler 'quick'() cannot be called with ('id',): too many positional arguments"
        )
        assert caplog.messages == [f"Parked task 'id', which cannot run: {task.problem}. retry() makes it run again."]
    async with program.start() as scheduler:
        await anyio.sleep(10)
        assert program.began == []
        assert await scheduler.retry("id")
        assert not await scheduler.retry("id")
        await scheduler.join()
    assert program.began == [(20, "id")]


async def test_a_task_whose_handler_is_gone_waits_for_it_when_it_is_retried(
    program: Program, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.open()
    store.commit([Put('"id"', 0, 0, "gone", '["id"]'), Claim(1, 0), Park(1, "broken")])
    store.close()
    async with program.start() as scheduler:
        assert await scheduler.retry("id")
        await anyio.sleep(1)
        task = await scheduler.get("id")
        assert task is not None
        assert task.status == "unknown"
        assert "Task 'id' waits until its handler 'gone' is registered." in caplog.messages

        @scheduler.handler("gone")
        async def back(text: str) -> None:
            program.begin(text)

        await anyio.sleep(1)
        assert not await scheduler.holds("id")
        assert len(program.began) == 1


async def test_the_tasks_of_each_status_are_counted_and_found(program: Program, store: Store) -> None:
    store.open()
    parked = [Put('"p"', 0, 0, "gone", "[]"), Claim(1, 0), Park(1, "broken")]
    store.commit([*parked, *(Put(f'["gone",{number}]', 0, 0, "gone", "[]") for number in range(3))])
    store.close()
    async with program.start() as scheduler:
        await scheduler.schedule("running", program.slow, "running")
        for number in range(250):
            await scheduler.schedule_later(60, ("pending", number), program.quick, "pending")
        for task_id in ("paused", "also paused"):
            await scheduler.schedule_later(60, task_id, program.quick, "paused")
            await scheduler.pause(task_id)
        await anyio.sleep(1)
        assert await scheduler.statistics() == DurableStatistics(pending=250, paused=2, running=1, parked=1, unknown=3)
        # One that no longer holds its ID still runs.
        await scheduler.schedule_later(60, "running", program.quick, "successor", on_conflict="follow")
        assert await scheduler.statistics() == DurableStatistics(pending=251, paused=2, running=1, parked=1, unknown=3)

        async def found(status: Any, prefix: Any = None) -> list[Any]:
            return [task.task_id async for task in scheduler.tasks(prefix, status=status)]

        assert len(await found("pending")) == 251
        assert await found("pending", "run") == ["running"]
        assert await found("paused") == ["also paused", "paused"]
        assert await found("running") == []
        assert await found("parked") == ["p"]
        assert await found("unknown", ("gone",)) == [("gone", 0), ("gone", 1), ("gone", 2)]
        assert await found("parked", "x") == []
        with pytest.raises(ValueError, match=r"status must be one of \['parked', 'paused', .*, not 'done'"):
            scheduler.tasks(status="done")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="is not running"):
        await scheduler.statistics()


async def test_a_cron_is_stored(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_at_times(Cron("30 * * * *", "Europe/Paris"), "id", program.quick, "id")
        await anyio.sleep(3_600)
    async with program.start() as scheduler:
        await anyio.sleep(3_600)
    await anyio.sleep(3_600)
    async with program.start() as scheduler:
        await anyio.sleep(3_600)
    assert [time / 60 for time, _ in program.began] == [30, 90, 180, 210]


async def test_a_recurrence_that_fails_is_parked(
    program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with program.start() as scheduler:
        for number in range(2):
            await scheduler.schedule_at_times(Cron(f"3{number} * * * *"), number, program.slow, str(number))
        await anyio.sleep(30 * 60 + 1)

        def fail(cron: Cron, now: datetime) -> Iterator[datetime]:
            raise ZeroDivisionError("no more")

        monkeypatch.setattr(Cron, "__call__", fail)
        await anyio.sleep(3_600)
        task = await scheduler.get(0)
        assert task is not None
        assert task.problem == "ZeroDivisionError: no more"
        assert await scheduler.cancel(0)
    assert program.began == [(1_800, "0"), (1_860, "1")]
    monkeypatch.setitem(sys.modules, "anysched.cron", None)
    Recurrence.decode.cache_clear()
    async with program.start() as scheduler:
        assert await scheduler.retry(1)
        await anyio.sleep(1)
        task = await scheduler.get(1)
        assert task is not None
        assert task.status == "parked"
    Recurrence.decode.cache_clear()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_task_that_ends_the_process_runs_again(store: Store, backend: Any, kind: type[BaseException]) -> None:
    attempts: list[int] = []

    async def live() -> None:
        scheduler = DurableScheduler("test", store)

        @scheduler.handler("deadly")
        async def run() -> None:
            attempts.append(current_run().attempt)
            if attempts == [1]:
                raise kind

        async with scheduler:
            await scheduler.schedule("id", run)
            await scheduler.join()

    name, options = VirtualClock().backend(backend)
    with pytest.raises(kind):
        anyio.run(live, backend=name, backend_options=options)
    anyio.run(live, backend=name, backend_options=options)
    assert attempts == [1, 2]


async def test_a_predecessor_that_cannot_run_is_removed(program: Program, store: Store) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
        await scheduler.schedule("id", program.slow, "second", on_conflict="follow")
    changed = DurableScheduler("test", store)

    @changed.handler("slow")
    async def slow() -> None: ...

    async with changed:
        await anyio.sleep(1)
        task = await changed.get("id")
        assert task is not None
        assert task.args == ("second",)
        assert task.status == "parked"


def kill(store: Store, times: int) -> None:
    """Begin a run a number of times, and end the process during it."""
    for _ in range(times):
        store.open()
        store.commit([Recover(frozenset({"slow"}), 5)])
        store.commit([Claim(1, 0)])
        store.close()


async def test_a_task_that_kills_the_process_five_times_is_parked(
    program: Program, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.open()
    store.commit([Put('"id"', 0, 0, "slow", '["id"]')])
    store.close()
    kill(store, 5)
    async with program.start() as scheduler:
        await anyio.sleep(5)
        task = await scheduler.get("id")
        assert task is not None
        assert (task.status, task.problem) == ("parked", "the process ended during 5 attempts to run it")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "Parked task 'id': the process has ended during 5 attempts to run it." in caplog.text
        assert await scheduler.retry("id")
        await scheduler.join()
    assert program.began == [(5, "id")]
    assert [attempt for attempt, _ in program.keys] == [6]


async def test_four_kills_are_not_enough(program: Program, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store.open()
    store.commit([Put('"id"', 0, 0, "slow", '["id"]')])
    store.close()
    kill(store, 4)
    async with program.start() as scheduler:
        await scheduler.join()
    assert [attempt for attempt, _ in program.keys] == [5]
    assert "Interrupted tasks that run again: 1." in caplog.messages


async def test_a_clock_that_is_behind_is_warned_of_and_nothing_is_early(
    program: Program, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(10, "id", program.quick, "id")
    virtual_clock.step_wall(-3_600)
    async with program.start() as scheduler:
        assert "The wall clock shows 2024-12-31 23:00:00+00:00, but the store was used at 2025-01-01" in caplog.text
        await scheduler.join()
    assert program.began == [(10, "id")]


async def test_the_time_is_stored_now_and_then(
    program: Program, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with program.start() as scheduler:
        await scheduler.holds("id")
        await anyio.sleep(3_600)
        await scheduler.holds("id")
        await scheduler.holds("id")
    virtual_clock.step_wall(-1_800)
    async with program.start():
        assert "but the store was used at 2025-01-01 01:00:00+00:00: is it wrong?" in caplog.text


# Closing


async def test_closing_lets_running_tasks_finish(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("short", program.slow, "short", 5)
        await scheduler.schedule("long", program.slow, "long", 50)
        await scheduler.schedule_later(7, "pending", program.quick, "pending")
        await anyio.sleep(1)
        interrupted = await scheduler.close(timedelta(seconds=10))
        assert [(task.task_id, task.args) for task in interrupted] == [("long", ("long", 50))]
        assert scheduler.state == "closed"
        with pytest.raises(
            RuntimeError, match=r"is not running \(closed\); it cannot be entered again: create a new one"
        ):
            await scheduler.holds("long")
        assert await scheduler.close() == []
    assert program.journal == [
        (0, "begin", "short"), (0, "begin", "long"), (5, "end", "short"), (11, "cancelled", "long"),
    ]  # fmt: skip
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.journal[4:] == [
        (11, "begin", "pending"), (11, "begin", "long"), (61, "end", "long"),
    ] or program.journal[4:] == [(11, "begin", "long"), (11, "begin", "pending"), (61, "end", "long")]  # fmt: skip


async def test_what_a_task_asks_for_during_the_grace_is_stored(program: Program) -> None:
    scheduler = program.start()

    @scheduler.handler("chain")
    async def chain() -> None:
        await anyio.sleep(5)
        await scheduler.schedule("next", program.quick, "next")

    async with scheduler:
        await scheduler.schedule("chain", chain)
        await anyio.sleep(1)
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.close, 10)
            await anyio.sleep(1)
            assert scheduler.state == "closing"
            with pytest.raises(RuntimeError, match=r"is not running \(closing\); it takes no more calls"):
                await scheduler.holds("next")
            assert await scheduler.close() == []  # waits for the other call
    assert program.began == []
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.began == [(5, "next")]


async def test_waiting_for_what_closing_keeps(program: Program) -> None:
    async with program.start() as scheduler:
        task = await scheduler.schedule_later(60, "id", program.quick, "id")
        message = "the scheduler 'test' was closed before task 'id' had ended; it is stored"

        async def wait() -> None:
            with pytest.raises(RuntimeError, match=message):
                await task.wait()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(scheduler.join)
            await anyio.sleep(1)
            await scheduler.close()


async def test_it_is_entered_once(program: Program) -> None:
    scheduler = program.start()
    with pytest.raises(RuntimeError, match=r"is not running \(new\); enter it first: `async with scheduler:`"):
        await scheduler.join()
    async with scheduler:
        assert "running" in repr(scheduler)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="can be entered only once"):
            async with scheduler:
                raise AssertionError


async def test_one_that_was_closed_before_cannot_be_entered(program: Program) -> None:
    scheduler = program.start()
    await scheduler.close()
    with pytest.raises(RuntimeError, match="can be entered only once"):
        await scheduler.run()


async def test_the_exception_of_the_body_leaves_as_itself(program: Program) -> None:
    with pytest.raises(ZeroDivisionError):
        async with program.start() as scheduler:
            await scheduler.schedule("id", program.slow, "id")
            await anyio.sleep(1)
            raise ZeroDivisionError
    assert program.journal == [(0, "begin", "id"), (1, "cancelled", "id")]


async def test_cancelled_from_outside_it_forgets_nothing(program: Program) -> None:
    with anyio.move_on_after(1):
        async with program.start() as scheduler:
            await scheduler.schedule("id", program.stubborn, "id")
            await scheduler.schedule_later(50, "pending", program.quick, "pending")
            await anyio.sleep_forever()
    assert scheduler.state == "closed"
    assert program.journal == [(0, "begin", "id"), (6, "end", "id")]
    async with program.start() as scheduler:
        assert await scheduler.holds("pending")
        assert await scheduler.holds("id")


async def test_it_is_hosted_by_a_task_group(program: Program) -> None:
    scheduler = program.start()
    async with anyio.create_task_group() as group:
        await group.start(scheduler.run)
        await scheduler.schedule_later(5, "id", program.quick, "id")
        await scheduler.join()
        await scheduler.close()
    assert program.began == [(5, "id")]


async def test_start(program: Program, anyio_backend_name: str) -> None:
    scheduler = program.start()
    if anyio_backend_name == "trio":
        with pytest.raises(RuntimeError, match=r"on trio, host the scheduler in a nursery: await nursery\.start"):
            await scheduler.start()
        return
    await scheduler.start()
    await scheduler.schedule_later(5, "id", program.quick, "id")
    await scheduler.join()
    with pytest.raises(StoreInUseError):
        await program.start().start()
    await scheduler.close()
    assert program.began == [(5, "id")]


async def test_start_that_is_cancelled(program: Program, anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        return
    scheduler = program.start()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await scheduler.start()
    while scheduler.state not in ("new", "closed"):
        await anyio.sleep(1)
    async with program.start():
        pass


async def test_a_store_has_one_scheduler(program: Program) -> None:
    async with program.start() as scheduler:
        with pytest.raises(StoreInUseError, match=r"is in use by .*process.*; a store has one scheduler at a time"):
            async with program.start():
                raise AssertionError
        await scheduler.schedule("id", program.quick, "id")
        await scheduler.join()


async def test_a_store_in_memory_is_copied() -> None:
    program = Program(MemoryStore())
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
        assert isinstance(program.store, MemoryStore)
        copied = program.store.copy()
        assert repr(copied) == "<MemoryStore, 1 tasks>"
        await scheduler.cancel("id")
    other = Program(copied)
    async with other.start() as scheduler:
        await scheduler.join()
    assert other.began == [(5, "id")]
    assert seconds(scheduler.now()) == 5


async def test_a_missed_run_that_is_not_too_late_yet_starts(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with program.start() as scheduler:
        for missed in ("latest", "all", "skip"):
            await scheduler.schedule_every(3_600, missed, program.quick, missed, expires=30, missed=missed)
    await anyio.sleep(10 * 3_600 + 20)
    async with program.start() as scheduler:
        await anyio.sleep(3_600)
        assert sorted(caplog.messages) == [
            f"Skipped missed runs of task '{missed}'." for missed in ("all", "latest", "skip")
        ]
    # In any order: each starts when its previous run, which was skipped, has ended.
    assert sorted(program.began) == [
        (time, missed) for time in (36_020, 11 * 3_600) for missed in ("all", "latest", "skip")
    ]


async def test_jitter_is_not_drawn_again_at_a_restart(program: Program) -> None:
    async with program.start() as scheduler:
        due = (await scheduler.schedule_every(3_600, "id", program.quick, "id", first=0, jitter=1_800)).due
    for _ in range(3):
        async with program.start() as scheduler:
            task = await scheduler.get("id")
            assert task is not None
            assert task.due == due
    async with program.start() as scheduler:
        await anyio.sleep(3 * 3_600)
    assert program.began[0] == (seconds(due), "id")
    assert [int(time // 3_600) for time, _ in program.began] == [0, 1, 2]


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
async def test_a_recurring_task_that_was_paused_over_a_restart(program: Program, missed: Any) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(100, "id", program.slow, "id", missed=missed)
        await anyio.sleep(101)
        assert await scheduler.pause("id")
        await anyio.sleep(200)
    async with program.start() as scheduler:
        await anyio.sleep(150)
        assert await scheduler.resume("id")
        await anyio.sleep(60)
    expected = {"latest": [451, 500], "all": [451, 461, 471, 500], "skip": [451, 500]}[missed]
    # Its second run was not interrupted: it ended while it was paused.
    assert [time for time, _ in program.began] == [100, *expected]


async def test_a_clock_that_goes_back_and_forth_at_the_start_makes_nothing_early_or_twice(
    program: Program, virtual_clock: VirtualClock
) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(7_200, "once", program.quick, "once")
        await scheduler.schedule_every(3_600, "every", program.quick, "every")
        await anyio.sleep(3_601)
    virtual_clock.step_wall(-3_000)
    async with program.start() as scheduler:
        await anyio.sleep(10)
        virtual_clock.step_wall(5_000)
        await anyio.sleep(100)
        virtual_clock.step_wall(-2_500)
        await anyio.sleep(100)
        await scheduler.cancel("every")
        await scheduler.join()
    assert [text for _, text in program.began if text == "once"] == ["once"]
    assert [int(time // 3_600) for time, _ in program.began] == sorted(
        {int(time // 3_600) for time, _ in program.began}
    )


async def test_a_scheduler_that_could_not_be_opened_is_closed(program: Program) -> None:
    async with program.start():
        other = program.start()
        with pytest.raises(StoreInUseError):
            await other.run()
        assert other.state == "closed"
        with pytest.raises(RuntimeError, match=r"is not running \(closed\)"):
            await other.holds("id")
        assert await other.close() == []


@pytest.mark.parametrize("grace", [-1, timedelta(seconds=-1)])
async def test_a_grace_that_is_refused_closes_nothing(program: Program, grace: Any) -> None:
    async with program.start() as scheduler:
        with pytest.raises(ValueError, match="grace must not be negative"):
            await scheduler.close(grace)
        assert scheduler.state == "running"
        await scheduler.schedule("id", program.quick, "id")
        await scheduler.join()


async def test_a_failure_of_the_body_is_not_replaced_by_a_cancellation(program: Program) -> None:
    with anyio.CancelScope() as scope, pytest.raises(ZeroDivisionError):
        async with program.start() as scheduler:
            await scheduler.schedule("id", program.slow, "id")
            await anyio.sleep(1)
            scope.cancel()
            raise ZeroDivisionError
    assert scheduler.state == "closed"


@pytest.mark.parametrize("follow", [True, False])
async def test_a_parked_task_does_not_hold_up_its_successor(program: Program, store: Store, follow: bool) -> None:
    store.open()
    store.commit([Put('"id"', 0, 0, "quick", "[]"), Claim(1, 0), Park(1, "broken")])
    store.close()
    async with program.start() as scheduler:
        if follow:
            await scheduler.schedule("id", program.quick, "next", on_conflict="follow")
        else:
            assert await scheduler.cancel("id", running="leave")
        with anyio.fail_after(60):
            await scheduler.join()
    assert [text for _, text in program.began] == ["next"] * follow
