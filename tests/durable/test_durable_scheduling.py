"""The methods of the core on a store."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import arrow
import pytest
from durable_support import START, Program, seconds

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched.abc import FinishedRun, Instrument
from anysched.cron import Cron
from anysched.durable import DurableScheduler, DurableTask, MemoryStore, Store, UnknownHandlerError, current_run
from anysched.durable.operations import Claim, Park, Pause, Put, Release

pytestmark = pytest.mark.anyio


async def test_a_task_starts_when_it_is_due(program: Program) -> None:
    async with program.start() as scheduler:
        later = await scheduler.schedule_later(timedelta(seconds=20), "later", program.quick, "later")
        await scheduler.schedule("now", program.quick, "now")
        await scheduler.schedule_at(START + timedelta(seconds=10), "at", program.quick, "at")
        await scheduler.schedule_at(datetime(1960, 1, 1), "past", program.quick, "past")
        assert await scheduler.holds("later")
        assert (later.task_id, later.status, later.due, later.handler, later.args, later.run_count, later.attempts) == (
            "later", "pending", START + timedelta(seconds=20), "quick", ("later",), 0, 0,
        )  # fmt: skip
        assert not later.paused
        assert not later.recurs
        assert later.problem is None
        assert repr(later) == "<DurableTask pending 'later'>"
        await scheduler.join()
        assert not await scheduler.holds("later")
    assert program.began == [(0, "now"), (0, "past"), (10, "at"), (20, "later")]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\ud83d\ude00"], ids=ascii)
async def test_what_a_store_cannot_keep_is_refused_in_the_call(program: Program, store: Store, text: str) -> None:
    """By all stores alike. In arguments and IDs, JSON escapes a NUL character, and in arguments a lone surrogate."""
    with pytest.raises(ValueError, match="the name of a durable scheduler cannot be stored: it contains"):
        DurableScheduler(text, store)
    not_text: Any = 7
    with pytest.raises(TypeError):
        DurableScheduler(not_text, store)
    async with program.start() as scheduler:
        with pytest.raises(ValueError, match="the name of a handler cannot be stored: it contains"):
            scheduler.handler(text)
        if "\0" in text:
            await scheduler.schedule(text, program.quick, text)
            await scheduler.schedule(("b", text), program.quick, text)
        else:
            for task_id in (text, ("a", 1, (text,))):
                with pytest.raises(ValueError, match="a durable ID must not contain a lone surrogate"):
                    await scheduler.schedule(task_id, program.quick, "never")
                with pytest.raises(ValueError, match="a durable ID must not contain a lone surrogate"):
                    scheduler.tasks(task_id)
        if len(text) == 3:
            await scheduler.schedule("other", program.quick, text)
        await scheduler.schedule("😀", program.quick, "an emoji")
        await scheduler.schedule("\\ud800", program.quick, "no surrogate")
        await scheduler.join()
    expected = [text] * (3 if "\0" in text else 1 if len(text) == 3 else 0)
    assert [found for _, found in program.began] == [*expected, "an emoji", "no surrogate"]


async def test_a_naive_time_is_utc_and_a_zone_counts(program: Program) -> None:
    async with program.start() as scheduler:
        zone = timezone(timedelta(hours=-1))
        await scheduler.schedule_at(datetime(2025, 1, 1, 0, 0, 5), "naive", program.quick, "naive")
        await scheduler.schedule_at(datetime(2024, 12, 31, 23, 0, 6, tzinfo=zone), "aware", program.quick, "aware")
        await scheduler.join()
    assert program.began == [(5, "naive"), (6, "aware")]


async def test_tasks_start_in_the_order_of_due_times_and_calls(program: Program) -> None:
    async with program.start() as scheduler:
        for number in range(50):
            await scheduler.schedule_at(
                START + timedelta(seconds=10 + number // 10), number, program.quick, str(number)
            )
        await scheduler.join()
    assert [text for _, text in program.began] == [str(number) for number in range(50)]


async def test_no_more_run_at_once_than_allowed(program: Program) -> None:
    async with program.start(max_running=2) as scheduler:
        for text in "abcd":
            await scheduler.schedule(text, program.slow, text)
        await anyio.sleep(1)
        await scheduler.cancel("c")  # which waits for a slot and has not begun
        await scheduler.join()
    assert program.began == [(0, "a"), (0, "b"), (10, "d")]


async def test_a_handler_knows_its_run(program: Program) -> None:
    runs = []
    scheduler = program.start()

    @scheduler.handler("ask")
    async def ask() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(nested)

    async def nested() -> None:
        runs.append(current_run())

    with pytest.raises(RuntimeError, match="outside of a handler"):
        current_run()
    async with scheduler:
        task = await scheduler.schedule_later(5, ("ask", 1), ask)
        other = await scheduler.schedule_later(6, ("ask", 2), ask)
        await scheduler.join()
    first, second = runs
    assert (first.task_id, first.due, first.attempt, first.generation) == (("ask", 1), task.due, 1, task.generation)
    assert second.generation == other.generation
    assert first.key != second.key


async def test_a_failure_is_logged_and_the_task_has_ended(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule(("fail", 1), program.fail, "oops")
        await scheduler.schedule_every(60, "every", program.fail, "again")
        await anyio.sleep(150)
        assert not await scheduler.holds(("fail", 1))
        assert await scheduler.holds("every")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == ["Error in task ('fail', 1)!"] + ["Error in task 'every'!"] * 2
    assert errors[0].exc_info is not None
    assert errors[0].name == "anysched.test"


async def test_instruments_see_what_runs(program: Program) -> None:
    class Watch(Instrument):
        def run_finished(self, task: ScheduledTask[Any], run: FinishedRun) -> None:
            finished.append((task.task_id, run.status.value))

    finished: list[tuple[object, str]] = []
    async with program.start(instruments=[Watch()]) as scheduler:
        await scheduler.schedule(("id", 1), program.quick, "quick")
        await scheduler.schedule(("id", 2), program.fail, "fail")
        await scheduler.join()
    assert set(finished) == {(("id", 1), "finished"), (("id", 2), "failed")}


# Conflicts


async def test_keep(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async with program.start() as scheduler:
        first = await scheduler.schedule_later(5, "id", program.quick, "first")
        with caplog.at_level(logging.DEBUG, "anysched.test"):
            kept = await scheduler.schedule_later(1, "id", program.quick, "second")
        assert (kept.generation, kept.args) == (first.generation, ("first",))
        assert "Did not schedule task 'id'; its ID is already held." in caplog.messages
        await kept.wait()
    assert program.began == [(5, "first")]


async def test_error(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "first")
        with pytest.raises(DuplicateTaskError, match="already holds a task with the ID 'id'"):
            await scheduler.schedule("id", program.quick, "second", on_conflict="error")
        await scheduler.join()
    assert program.began == [(5, "first")]


@pytest.mark.parametrize("policy", ["replace", "follow"])
async def test_a_pending_holder_is_dropped(program: Program, policy: Any) -> None:
    async with program.start() as scheduler:
        first = await scheduler.schedule_later(5, "id", program.quick, "first")
        await scheduler.schedule_later(7, "id", program.quick, "second", on_conflict=policy)
        await first.wait()
        assert seconds(scheduler.now()) == 0
        await scheduler.join()
    assert program.began == [(7, "second")]


async def test_replace_cancels_a_running_holder_and_waits_for_its_end(program: Program) -> None:
    async with program.start() as scheduler:
        first = await scheduler.schedule("id", program.stubborn, "first")
        await anyio.sleep(1)
        await scheduler.schedule("id", program.quick, "second", on_conflict="replace")
        await first.wait()
        assert seconds(scheduler.now()) == 6
        await scheduler.join()
    assert program.journal == [(0, "begin", "first"), (6, "end", "first"), (6, "begin", "second")]


async def test_follow_lets_a_running_holder_finish(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
        second = await scheduler.schedule("id", program.slow, "second", on_conflict="follow")
        await scheduler.schedule("id", program.slow, "third", on_conflict="follow")
        await second.wait()
        await scheduler.join()
    assert program.journal == [
        (0, "begin", "first"),
        (10, "end", "first"),
        (10, "begin", "third"),
        (20, "end", "third"),
    ]


@pytest.mark.parametrize(("policy", "again"), [("keep", False), ("replace", True), ("follow", True), ("error", False)])
async def test_a_task_schedules_its_own_id(
    program: Program, policy: Any, again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = program.start()
    errors: list[DuplicateTaskError] = []

    @scheduler.handler("chain")
    async def chain(number: int) -> None:
        program.begin(str(number))
        if number < 2:
            try:
                await scheduler.schedule_later(5, "chain", chain, number + 1, on_conflict=policy)
            except DuplicateTaskError as error:
                errors.append(error)
        await anyio.sleep(1)
        program.note("end", str(number))

    async with scheduler:
        await scheduler.schedule("chain", chain, 1)
        await scheduler.join()
    second = [(5, "begin", "2"), (6, "end", "2")] if again else []
    assert program.journal == [(0, "begin", "1"), (1, "end", "1"), *second]
    assert ("Task 'chain' scheduled its own ID" in caplog.text) == (policy == "keep")
    assert len(errors) == (policy == "error")


# Cancelling


async def test_cancelled_before_its_start_it_never_runs(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async with program.start() as scheduler:
        task = await scheduler.schedule_later(5, "id", program.quick, "id")
        assert await scheduler.cancel("id")
        assert not await scheduler.holds("id")
        await task.wait()
        assert not await scheduler.cancel("id")
        await anyio.sleep(10)
    assert program.journal == []
    assert caplog.messages == ["Failed to unschedule 'id' (no task found)."]


async def test_a_running_task_is_cancelled(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "id")
        await anyio.sleep(1)
        assert await scheduler.cancel("id")
        await scheduler.join()
    assert program.journal == [(0, "begin", "id"), (1, "cancelled", "id")]
    async with program.start() as scheduler:
        await scheduler.join()
        assert len(program.journal) == 2


async def test_a_running_task_is_left(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(60, "id", program.slow, "id", first=0)
        await anyio.sleep(1)
        assert await scheduler.cancel("id", running="leave")
        assert not await scheduler.holds("id")
        await scheduler.schedule("id", program.quick, "next")
        await scheduler.join()
    assert program.journal == [(0, "begin", "id"), (10, "end", "id"), (10, "begin", "next")]


async def test_a_task_that_cancels_itself_finishes(program: Program) -> None:
    scheduler = program.start()

    @scheduler.handler("suicidal")
    async def suicidal(everything: bool) -> None:
        if everything:
            await scheduler.cancel_all()
        else:
            assert await scheduler.cancel("id")
        assert not await scheduler.holds("id")
        await anyio.sleep(1)
        program.note("end", "")

    async with scheduler:
        for everything in (False, True):
            await scheduler.schedule_every(60, "id", suicidal, everything, first=0)
            await scheduler.join()
    assert program.journal == [(1, "end", ""), (2, "end", "")]


async def test_all_tasks_are_cancelled(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("running", program.slow, "running")
        pending = [await scheduler.schedule_later(5, number, program.quick, str(number)) for number in range(250)]
        await anyio.sleep(1)
        waited = anyio.Event()

        async def wait() -> None:
            await pending[7].wait()
            waited.set()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(1)
            await scheduler.cancel_all()
            await waited.wait()
        await scheduler.join()
        assert [task async for task in scheduler.tasks()] == []
    assert program.journal == [(0, "begin", "running"), (2, "cancelled", "running")]


async def test_all_tasks_are_cancelled_and_running_ones_left(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("running", program.slow, "running")
        await scheduler.schedule_later(5, "pending", program.quick, "pending")
        await anyio.sleep(1)
        await scheduler.cancel_all(running="leave")
        assert not await scheduler.holds("running")
        await scheduler.join()
    assert program.journal == [(0, "begin", "running"), (10, "end", "running")]


# Moving and pausing


async def test_a_pending_task_is_moved(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(50, "earlier", program.quick, "earlier")
        await scheduler.schedule_later(5, "later", program.quick, "later")
        await scheduler.schedule("running", program.slow, "running")
        await anyio.sleep(1)
        assert await scheduler.reschedule_later(1, "earlier")
        assert await scheduler.reschedule_at(START + timedelta(seconds=20), "later")
        assert not await scheduler.reschedule_later(1, "running")
        assert not await scheduler.reschedule_later(1, "unknown")
        task = await scheduler.get("later")
        assert task is not None
        assert seconds(task.due) == 20
        await scheduler.join()
    assert program.began == [(0, "running"), (2, "earlier"), (20, "later")]


async def test_a_move_to_the_past_means_now(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(50, "id", program.quick, "id")
        assert await scheduler.reschedule_at(datetime(1900, 1, 1), "id")
        await scheduler.join()
    assert program.began == [(0, "id")]


async def test_a_paused_task_waits_until_it_is_resumed(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
        assert await scheduler.pause("id")
        assert not await scheduler.pause("id")
        assert not await scheduler.pause("unknown")
        assert await scheduler.reschedule_later(6, "id")
        await anyio.sleep(10)
        task = await scheduler.get("id")
        assert task is not None
        assert task.paused
        assert await scheduler.resume("id")
        assert not await scheduler.resume("id")
        await scheduler.join()
    assert program.began == [(10, "id")]


async def test_a_paused_task_stays_paused_over_a_restart(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
        await scheduler.pause("id")
    async with program.start() as scheduler:
        await anyio.sleep(10)
        await scheduler.resume("id")
        await scheduler.join()
    assert program.began == [(10, "id")]


async def test_pausing_during_a_run(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("once", program.slow, "once")
        await scheduler.schedule_every(20, "every", program.slow, "every", first=0)
        await anyio.sleep(1)
        assert not await scheduler.pause("once")
        assert await scheduler.pause("every")
        await anyio.sleep(64)
        assert await scheduler.resume("every")
        await anyio.sleep(30)
    assert program.began == [(0, "once"), (0, "every"), (65, "every"), (80, "every")]


# Recurring


async def test_a_period_does_not_drift(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(20, "id", program.slow, "id")
        await anyio.sleep(75)
        task = await scheduler.get("id")
        assert task is not None
        assert task.recurs
        assert (seconds(task.due), task.run_count) == (80, 3)
    assert program.began == [(20, "id"), (40, "id"), (60, "id")]


async def test_a_period_from_the_end_of_a_run(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(20, "id", program.slow, "id", first=START, measured_from="end")
        await anyio.sleep(70)
    assert program.began == [(0, "id"), (30, "id"), (60, "id")]


@pytest.mark.parametrize(
    ("missed", "times"), [("latest", [0, 170, 340]), ("all", [0, 170, 340]), ("skip", [0, 200, 400])]
)
async def test_what_a_long_run_has_missed(program: Program, missed: Any, times: list[float]) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(100, "id", program.slow, "id", 170, first=0, missed=missed)
        await anyio.sleep(500)
    assert [time for time, _ in program.began] == times


async def test_jitter_puts_each_run_off_and_does_not_add_up(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(10, "id", program.quick, "id", jitter=5)
        await anyio.sleep(1_000)
    offsets = [time - 10 * number for number, (time, _) in enumerate(program.began, 1)]
    assert len(offsets) == 99
    assert all(0 <= offset <= 5 for offset in offsets)
    assert len(set(offsets)) > 50


async def test_a_list_of_times(program: Program) -> None:
    async with program.start() as scheduler:
        times = [START + timedelta(seconds=second) for second in (30, 10, -5, 10, -20)]
        task = await scheduler.schedule_at_times(times, "id", program.quick, "id")
        await task.wait()
        assert not await scheduler.holds("id")
    assert [time for time, _ in program.began] == [0, 10, 30]


async def test_a_moved_run_is_the_only_one_that_moves(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_every(20, "id", program.quick, "id")
        await scheduler.reschedule_later(5, "id")
        await anyio.sleep(50)
        await scheduler.reschedule_later(20, "id")  # to 70
        await anyio.sleep(40)
    assert [time for time, _ in program.began] == [5, 20, 40, 70, 80]


async def test_what_expires_is_left_out(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with program.start(max_running=1) as scheduler:
        await scheduler.schedule("first", program.slow, "first")
        await scheduler.schedule("late", program.quick, "late", expires=5)
        await scheduler.schedule("soon enough", program.quick, "soon enough", expires=timedelta(seconds=10))
        await scheduler.schedule_every(30, "every", program.quick, "every", first=1, expires=5)
        await anyio.sleep(40)
        assert not await scheduler.holds("late")
    assert program.began == [(0, "first"), (10, "soon enough"), (31, "every")]
    assert "Skipped missed runs of task 'late'." in caplog.messages


# Asking


async def test_tasks_are_found_by_the_prefix_of_their_ids(program: Program) -> None:
    ids: list[Any] = [
        "a", "ab", "b", 7, 71, ("a",), ("a", 1), ("a", 10), ("a", "1"), (("a",), 2), ("ab", 1), (7,), (71,), (7, 1), (), "é",
    ]  # fmt: skip
    async with program.start() as scheduler:
        for number, task_id in enumerate(ids):
            await scheduler.schedule_later(60, task_id, program.quick, str(number))
        for number in range(250):
            await scheduler.schedule_later(60, ("many", number), program.quick, str(number))

        async def found(prefix: Any) -> set[Any]:
            tasks = [task.task_id async for task in scheduler.tasks(prefix)]
            assert len(set(tasks)) == len(tasks)
            return set(tasks)

        many = {("many", number) for number in range(250)}
        assert await found(None) == {*ids, *many}
        assert await found(("many",)) == many
        assert await found("a") == {"a", "ab"}
        assert await found("") == {"a", "ab", "b", "é"}
        assert await found(("a",)) == {("a",), ("a", 1), ("a", 10), ("a", "1")}
        assert await found((7,)) == {(7,), (7, 1)}
        assert await found((("a",),)) == {(("a",), 2)}
        assert await found(()) == {task_id for task_id in ids if isinstance(task_id, tuple)} | many
        assert await found(("none",)) == set()
        for prefix in (7, ["a"]):
            with pytest.raises(TypeError, match="prefix must be a string or a tuple"):
                await found(prefix)


async def test_a_handle_outlives_the_hold_of_the_id(program: Program) -> None:
    async with program.start() as scheduler:
        first = await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
        second = await scheduler.schedule("id", program.quick, "second", on_conflict="follow")
        await first.wait()
        assert seconds(scheduler.now()) == 10
        await second.wait()
        await second.wait()
        assert await scheduler.get("id") is None


async def test_a_task_does_not_wait_for_itself(program: Program) -> None:
    scheduler = program.start()
    messages = []

    @scheduler.handler("wait")
    async def wait() -> None:
        task = await scheduler.get("id")
        assert task is not None
        for call in (task.wait, scheduler.join, scheduler.close):
            with pytest.raises(RuntimeError) as caught:
                await call()
            messages.append(str(caught.value))

    async with scheduler:
        await scheduler.schedule("id", wait)
        await scheduler.join()
    assert messages == [
        "deadlock: task 'id' awaits itself",
        "join() was called in a task of the scheduler 'test', for which it would wait forever",
        "close() was called in a task of the scheduler 'test', for which it would wait forever",
    ]


# Bad input


@pytest.mark.parametrize("task_id", [1.5, None, True, ["a"], ("a", 1.5), {"a"}, b"a", datetime(2025, 1, 1, tzinfo=UTC)])
async def test_an_id_that_cannot_be_stored(program: Program, task_id: Any) -> None:
    async with program.start() as scheduler:
        for call in (
            lambda: scheduler.schedule(task_id, program.quick, "a"),
            lambda: scheduler.cancel(task_id),
            lambda: scheduler.get(task_id),
        ):
            with pytest.raises(TypeError, match="a durable ID is a string, an integer or a tuple of these, not"):
                await call()


@pytest.mark.parametrize(
    "argument", [(1, 2), {1: 2}, {"a"}, b"a", math.nan, math.inf, datetime(2025, 1, 1, tzinfo=UTC), object(), [(1,)]]
)
async def test_arguments_that_do_not_come_back(program: Program, argument: Any) -> None:
    async with program.start() as scheduler:
        with pytest.raises(TypeError, match="the arguments of a durable task must"):
            await scheduler.schedule("id", program.quick, argument)
        assert not await scheduler.holds("id")


async def test_arguments_that_do(program: Program) -> None:
    got: list[Any] = []
    scheduler = program.start()

    @scheduler.handler("take")
    async def take(*args: Any) -> None:
        got.extend(args)

    args = [1, -1.5, "é\ud800", None, True, [1, [2]], {"a": {"b": []}}, 10**30]
    async with scheduler:
        await scheduler.schedule("id", take, *args)
        await scheduler.join()
    assert got == args


async def test_a_handler_that_cannot_be_stored(program: Program) -> None:
    async def unregistered() -> None: ...

    coroutine = unregistered()
    target: Any
    quick: Any = program.quick
    async with program.start() as scheduler:
        with pytest.raises(UnknownHandlerError, match=r"has no handler .*unregistered.*; register it with"):
            await scheduler.schedule("id", unregistered)
        for target, message in ((coroutine, "a coroutine cannot be stored"), ("quick", "pass a handler, a function")):
            with pytest.raises(TypeError, match=message):
                await scheduler.schedule("id", target)
        arguments: list[Any]
        for arguments in ([], ["a", "b"]):
            with pytest.raises(TypeError, match=r"the handler 'quick'.* cannot be called with"):
                await scheduler.schedule("id", quick, *arguments)
        assert not await scheduler.holds("id")


async def test_a_handler_without_a_signature_is_called_with_anything(program: Program) -> None:
    class Odd:
        __signature__ = "none"

        async def __call__(self, text: str) -> None:
            program.begin(text)

    odd = Odd()
    scheduler = program.start()
    scheduler.handler("odd")(odd)
    async with scheduler:
        await scheduler.schedule("id", odd, "odd")
        await scheduler.join()
    assert program.began == [(0, "odd")]


async def test_handlers_that_are_refused(program: Program) -> None:
    scheduler = program.start()
    wrong: Any
    for wrong in (None, program.quick):
        with pytest.raises(TypeError, match="a handler needs a name"):
            scheduler.handler(wrong)
    wrong = 7
    with pytest.raises(TypeError, match="a handler must be a function"):
        scheduler.handler("seven")(wrong)
    with pytest.raises(ValueError, match="already has a handler 'quick'"):
        scheduler.handler("quick")(program.slow)
    with pytest.raises(ValueError, match="is already the handler 'quick'"):
        scheduler.handler("quicker")(program.quick)


async def test_other_bad_input(program: Program) -> None:
    bad: Any = "bad"
    async with program.start() as scheduler:
        calls: list[tuple[type[Exception], str, Any]] = [
            (ValueError, "on_conflict must be one of", lambda: scheduler.schedule("id", program.quick, "a", on_conflict=bad)),
            (ValueError, "expires must not be negative", lambda: scheduler.schedule("id", program.quick, "a", expires=-1)),
            (TypeError, "delay must be a number", lambda: scheduler.schedule_later(bad, "id", program.quick, "a")),
            (ValueError, "delay must be a finite", lambda: scheduler.schedule_later(math.nan, "id", program.quick, "a")),
            (ValueError, "delay must be a finite", lambda: scheduler.reschedule_later(10**400, "id")),
            (TypeError, "time must be a datetime", lambda: scheduler.schedule_at(bad, "id", program.quick, "a")),
            (TypeError, "time must be a datetime", lambda: scheduler.reschedule_at(bad, "id")),
            (ValueError, "period must be at least 1", lambda: scheduler.schedule_every(0, "id", program.quick, "a")),
            (ValueError, "measured_from must be", lambda: scheduler.schedule_every(1, "id", program.quick, "a", measured_from=bad)),
            (ValueError, "missed must be", lambda: scheduler.schedule_every(1, "id", program.quick, "a", missed=bad)),
            (ValueError, "jitter must not be neg", lambda: scheduler.schedule_every(1, "id", program.quick, "a", jitter=-1)),
            (ValueError, "jitter must be less", lambda: scheduler.schedule_every(1, "id", program.quick, "a", jitter=1)),
            (TypeError, "first must be a number", lambda: scheduler.schedule_every(1, "id", program.quick, "a", first=bad)),
            (TypeError, "times must be a Cron or a list", lambda: scheduler.schedule_at_times(bad, "id", program.quick, "a")),
            (ValueError, "has no time to run", lambda: scheduler.schedule_at_times([], "id", program.quick, "a")),
            (ValueError, "running must be", lambda: scheduler.cancel("id", running=bad)),
            (ValueError, "grace must be a finite", lambda: scheduler.close(math.nan)),
        ]  # fmt: skip
        for kind, message, call in calls:
            with pytest.raises(kind, match=message):
                await call()
        assert [task async for task in scheduler.tasks()] == []
    with pytest.raises(ValueError, match='unknown must be "keep" or "error"'):
        program.start(unknown=bad)
    with pytest.raises(TypeError, match="name must be a string"):
        DurableScheduler(bad.encode(), program.store)


async def test_a_cron_that_cannot_be_stored(program: Program) -> None:
    async with program.start() as scheduler:
        for zone in (timezone(timedelta(hours=2)), timezone(timedelta(hours=2), "Europe/Paris")):
            with pytest.raises(TypeError, match="times must be a Cron whose time zone can be found by its name"):
                await scheduler.schedule_at_times(Cron("0 3 * * *", zone), "id", program.quick, "a")


async def test_a_delay_beyond_the_calendar_is_its_end(program: Program) -> None:
    async with program.start() as scheduler:
        task = await scheduler.schedule_later(1e15, "id", program.quick, "a")
        assert task.due == datetime.max.replace(tzinfo=UTC)


async def test_a_run_knows_whether_it_was_cancelled_or_interrupted(store: Store) -> None:
    noted: list[tuple[str, bool, bool]] = []

    def start() -> DurableScheduler:
        scheduler = DurableScheduler("test", store)
        scheduler.handler("wait")(wait)
        return scheduler

    async def wait(task_id: str) -> None:
        run = current_run()
        before = run.cancelled
        try:
            await anyio.sleep(60)
        finally:
            noted.append((task_id, before, run.cancelled))

    async with start() as scheduler:
        for task_id in ("cancelled", "replaced", "interrupted", "followed"):
            await scheduler.schedule(task_id, wait, task_id)
        await anyio.sleep(1)
        await scheduler.cancel("cancelled")
        await scheduler.schedule_later(3600, "replaced", wait, "replaced", on_conflict="replace")
        await scheduler.schedule_later(3600, "followed", wait, "followed", on_conflict="follow")
        await anyio.sleep(1)
    assert sorted(noted) == [
        ("cancelled", False, True),
        ("followed", False, False),
        ("interrupted", False, False),
        ("replaced", False, True),
    ]


class Stamp:
    """As in Pendulum, pandas and other libraries."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def timestamp(self) -> float:
        return START.timestamp() + self._seconds


async def test_moments_and_durations_of_other_libraries(program: Program) -> None:
    kind: Any = type("dtype", (), {"kind": "m"})()

    class Minutes(float):
        """As ``numpy.timedelta64``, whose unit `float` ignores."""

        dtype = kind

        def astype(self, unit: str) -> Any:
            return self

        def item(self) -> timedelta | None:
            return None if math.isnan(self) else timedelta(minutes=self)

    async with program.start() as scheduler:
        await scheduler.schedule_at(arrow.get(START).shift(seconds=5), "arrow", program.quick, "arrow")
        await scheduler.schedule_at(Stamp(6), "stamp", program.quick, "stamp")
        await scheduler.schedule_at_times([Stamp(8), START + timedelta(seconds=7)], "times", program.quick, "times")
        await scheduler.schedule_every(3_600, "every", program.quick, "every", first=Stamp(9))
        await scheduler.schedule_later(Minutes(1), "minute", program.quick, "minute")
        await scheduler.schedule_later(1, "moved", program.quick, "moved")
        await scheduler.reschedule_at(Stamp(10), "moved")
        wrong: Any
        for wrong in (Minutes(math.nan), Decimal("sNaN")):
            with pytest.raises(ValueError, match="delay must be a finite"):
                await scheduler.schedule_later(wrong, "id", program.quick, "never")
        await anyio.sleep(100)
        await scheduler.cancel("every")
    assert program.began == [
        (5, "arrow"), (6, "stamp"), (7, "times"), (8, "times"), (9, "every"), (10, "moved"), (60, "minute"),
    ]  # fmt: skip


async def test_not_a_time_is_refused(program: Program) -> None:
    class NaT(datetime):
        """Like pandas' `NaT`."""

        def __ne__(self, other: object) -> bool:
            return True

    async with program.start() as scheduler:
        with pytest.raises(TypeError, match="time must be a datetime, not NaT"):
            await scheduler.schedule_at(NaT(2025, 1, 1), "id", program.quick, "never")
        assert not await scheduler.holds("id")


async def test_durations_beyond_all_bounds(program: Program) -> None:
    """What does not fit into a column of a store is cut off when the call is made."""
    async with program.start() as scheduler:
        await scheduler.schedule("expires", program.quick, "expires", expires=timedelta.max)
        await scheduler.schedule_later(timedelta.max, "later", program.quick, "later")
        await scheduler.schedule_later(timedelta.min, "now", program.quick, "now")
        await scheduler.schedule_every(timedelta.max, "every", program.quick, "every", first=0)
        times = await scheduler.schedule_at_times([START], "times", program.quick, "times", jitter=timedelta.max)
        await anyio.sleep(1)
        assert times.due > START
        assert [task.task_id async for task in scheduler.tasks()] == ["later", "times"]
    assert program.began == [(0, "expires"), (0, "now"), (0, "every")]


async def test_times_before_1970_are_missed_and_keep_their_grid(program: Program) -> None:
    async with program.start() as scheduler:
        first = datetime(1960, 1, 1, 0, 30)
        await scheduler.schedule_every(3_600, "every", program.quick, "every", first=first)
        await scheduler.schedule_at_times([first], "times", program.quick, "times")
        await anyio.sleep(7_200)
    assert program.began == [(0, "every"), (0, "times"), (1_800, "every"), (5_400, "every")]


async def test_a_task_does_not_wait_for_its_successor(program: Program) -> None:
    scheduler = program.start()
    raised: list[str] = []

    @scheduler.handler("wait")
    async def wait() -> None:
        dropped = await scheduler.schedule("id", program.quick, "dropped", on_conflict="follow")
        successor = await scheduler.schedule("id", program.quick, "successor", on_conflict="replace")
        await dropped.wait()
        with pytest.raises(RuntimeError) as caught:
            await successor.wait()
        raised.append(str(caught.value))

    async with scheduler:
        earlier = await scheduler.schedule("id", program.quick, "earlier")
        await earlier.wait()
        await scheduler.schedule("id", wait)
        with anyio.fail_after(60):
            await scheduler.join()
    assert raised == ["deadlock: task 'id' awaits its successor, which cannot start until it has ended"]
    assert [text for _, text in program.began] == ["earlier", "successor"]


async def test_ids_are_nested_as_deeply_as_can_be_read_again(program: Program) -> None:
    def nested(depth: int) -> Any:
        return (nested(depth - 1),) if depth else 7

    async with program.start() as scheduler:
        await scheduler.schedule_later(1, nested(50), program.quick, "deep")
        for depth in (51, 900):
            with pytest.raises(ValueError, match="a durable ID is nested at most 50 levels deep"):
                await scheduler.schedule(nested(depth), program.quick, "too deep")
        deep: Any = 7
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(TypeError, match="must be JSON that is not nested too deeply"):
            await scheduler.schedule("id", program.quick, deep)
        assert [task.task_id async for task in scheduler.tasks()] == [nested(50)]
        await scheduler.join()
    assert program.began == [(1, "deep")]


async def test_an_id_with_the_last_character_of_ascii_is_found_by_its_prefix(program: Program) -> None:
    async with program.start() as scheduler:
        for task_id in ("a\x7f", "\x7f", ("\x7f", 1)):
            await scheduler.schedule_later(60, task_id, program.quick, "id")
        assert [task.task_id async for task in scheduler.tasks("a")] == ["a\x7f"]
        assert {task.task_id async for task in scheduler.tasks("")} == {"a\x7f", "\x7f"}
        assert [task.task_id async for task in scheduler.tasks(("\x7f",))] == [("\x7f", 1)]


@pytest.mark.parametrize("state", ["pending", "running", "interrupted", "parked", "unknown", "paused"])
@pytest.mark.parametrize("policy", ["keep", "replace", "follow", "error"])
async def test_every_policy_with_every_state_of_the_holder(
    program: Program, store: Store, state: str, policy: Any
) -> None:
    setup: dict[str, list[Any]] = {
        "pending": [],
        "running": [Claim(2, 0)],
        "interrupted": [Claim(2, 0), Release(2, begun=True)],
        "parked": [Claim(2, 0), Park(2, "broken")],
        "unknown": [],
        "paused": [Pause('"id"')],
    }
    store.open()
    # The first occupies the only slot, so that the holder does not start before the call.
    first = Put('"first"', 1 if state == "running" else 0, 0, "slow", '["first"]')
    store.commit([first, Put('"id"', 0, 0, "gone" if state == "unknown" else "slow", '["old"]'), *setup[state]])
    store.close()
    async with program.start(max_running=1) as scheduler:
        await anyio.sleep(1)
        try:
            task = await scheduler.schedule("id", program.quick, "new", on_conflict=policy)
            replaced = task.args == ("new",)
        except DuplicateTaskError:
            replaced = False
        assert replaced == (policy in ("replace", "follow"))
        if not replaced and state in ("parked", "unknown", "paused"):
            await anyio.sleep(30)
            assert await scheduler.cancel("id")
        with anyio.fail_after(100):
            await scheduler.join()
    ended = [text for _, word, text in program.journal if word in ("begin", "end") and text in ("old", "new")]
    finishes = ["old", "old"]
    begins = finishes if state in ("pending", "running", "interrupted") else []
    if not replaced:
        assert ended == begins
    elif policy == "replace":
        assert ended == (["old", "new"] if state == "running" else ["new"])
    else:
        assert ended == ([*finishes, "new"] if state in ("running", "interrupted") else ["new"])


async def call_by(verb: str, scheduler: DurableScheduler, task: DurableTask, program: Program) -> None:
    """Make a call that depends on whether it is made inside the task, whose ID is "id"."""
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "cancel": partial(scheduler.cancel, "id"),
        "cancel_all": scheduler.cancel_all,
        "replace": partial(scheduler.schedule, "id", program.quick, "next", on_conflict="replace"),
        "wait": task.wait,
        "join": scheduler.join,
        "close": partial(scheduler.close, 60),
    }
    await calls[verb]()


@pytest.mark.parametrize("verb", ["cancel", "cancel_all", "replace", "wait", "join", "close"])
async def test_a_task_that_a_run_started_elsewhere_is_not_inside_of_it(program: Program, verb: str) -> None:
    """Although it has a copy of the context of the run, as in the core."""
    scheduler = program.start()
    finished: list[str] = []

    @scheduler.handler("parent")
    async def parent() -> None:
        outer.start_soon(child)
        try:
            await anyio.sleep(10)
            finished.append("parent")
        except anyio.get_cancelled_exc_class():
            finished.append("cancelled")
            raise

    async def child() -> None:
        await anyio.sleep(1)
        await call_by(verb, scheduler, task, program)
        finished.append("child")

    async with anyio.create_task_group() as outer, scheduler:
        task = await scheduler.schedule("id", parent)
        await anyio.sleep(20)
    is_cancelled = verb in ("cancel", "cancel_all", "replace")
    assert sorted(finished) == sorted(["cancelled" if is_cancelled else "parent", "child"])
    assert program.began == ([(1, "next")] if verb == "replace" else [])


async def test_a_task_of_a_group_inside_a_run_is_inside_of_it(program: Program) -> None:
    scheduler = program.start()
    finished: list[str] = []

    @scheduler.handler("parent")
    async def parent() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.cancel, "id")
            await anyio.sleep(1)
            finished.append("parent")

    async with scheduler:
        await scheduler.schedule("id", parent)
        await scheduler.join()
        assert not await scheduler.holds("id")
    assert finished == ["parent"]


@pytest.mark.parametrize("verb", ["cancel", "cancel_all", "replace", "wait", "join", "close"])
@pytest.mark.parametrize("how", ["nested", "nested durable"])
async def test_a_run_of_another_scheduler_inside_a_run_is_inside_of_it(program: Program, verb: str, how: str) -> None:
    """Although its context is another one, as in the core."""
    scheduler = program.start()
    finished: list[str] = []
    inner = DurableScheduler("inner", MemoryStore())

    @scheduler.handler("parent")
    async def parent() -> None:
        if how == "nested":
            async with Scheduler("nested") as nested:
                await nested.schedule("child", child, context=Context()).wait()
        else:
            async with inner:
                await (await inner.schedule("child", child)).wait()
        await anyio.sleep(1)
        finished.append("parent")

    @inner.handler("child")
    async def child() -> None:
        try:
            await call_by(verb, scheduler, task, program)
        except RuntimeError:
            finished.append("refused")

    async with scheduler:
        task = await scheduler.schedule("id", parent)
        await anyio.sleep(20)
    assert finished == [*(["refused"] if verb in ("wait", "join", "close") else []), "parent"]
    assert len(program.began) == (verb == "replace")
