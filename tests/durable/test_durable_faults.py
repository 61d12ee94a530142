"""A failing store: calls raise and change nothing; starts and ends wait and are retried."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import to_thread
from durable_support import Program

from anysched.durable import DurableScheduler, MemoryStore, Store, StoreError, UncertainCommitError
from anysched.durable import window as window_module
from anysched.durable.operations import Cancel, Claim, End, Operation, Park, Put
from anysched.testing import VirtualClock

pytestmark = pytest.mark.anyio


class FaultyStore:
    """A store that fails when it is told to.

    Attributes:
        fails: Whether commits fail.
        before: Called before each commit, in the worker thread.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fails = False
        self.error: Exception = StoreError("the disk is full")
        self.before: Callable[[Sequence[Operation[Any]]], None] = lambda operations: None
        self.operations: list[Operation[Any]] = []

    def open(self) -> None:
        self.store.open()

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self.before(operations)
        if self.fails:
            raise self.error
        self.operations.extend(operations)
        return self.store.commit(operations)

    def close(self) -> None:
        self.store.close()


class LossyStore(FaultyStore):
    """A store whose answers are lost: it commits, and fails.

    Attributes:
        loses: The operation whose answers are lost, once.
    """

    loses: type[Operation[Any]] | None = None

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        results = super().commit(operations)
        if self.loses is not None and any(isinstance(operation, self.loses) for operation in operations):
            self.loses = None
            raise UncertainCommitError("the connection was lost")
        return results


def pass_some_time() -> None:
    """Let the event loop continue, from a worker thread."""
    for _ in range(5):
        anyio.from_thread.run(anyio.lowlevel.checkpoint)


@pytest.fixture
def faulty() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def program(faulty: FaultyStore) -> Program:
    return Program(faulty)


async def test_calls_fail_and_have_changed_nothing(
    program: Program, faulty: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anysched.test")
    async with program.start() as scheduler:
        await scheduler.schedule_later(100, "id", program.quick, "id")
        faulty.fails = True
        for call in (
            partial(scheduler.schedule, "new", program.quick, "new"),
            partial(scheduler.schedule, "id", program.quick, "new", on_conflict="replace"),
            partial(scheduler.cancel, "id"),
            scheduler.cancel_all,
            partial(scheduler.reschedule_later, 1, "id"),
            partial(scheduler.pause, "id"),
            partial(scheduler.holds, "id"),
        ):
            with pytest.raises(StoreError, match="the disk is full"):
                await call()
        await anyio.sleep(50)
        faulty.fails = False
        assert not await scheduler.holds("new")
        await scheduler.join()
    assert program.began == [(100, "id")]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "ERROR",
            "The store cannot be written, and calls fail: the disk is full. Starts and ends of tasks wait and are tried again.",
        ),
        ("INFO", "The store can be written again."),
    ]


async def test_starts_and_ends_wait_and_are_tried_again(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(10, "start", program.quick, "start")
        await scheduler.schedule("end", program.slow, "end", 10)
        await anyio.sleep(5)
        faulty.fails = True
        await anyio.sleep(60)
        assert program.journal == [(0, "begin", "end"), (10, "end", "end")]
        faulty.fails = False
        await scheduler.join()
    assert len(program.began) == 2
    assert 65 <= program.began[1][0] <= 70
    assert len([operation for operation in faulty.operations if isinstance(operation, (Claim, End))]) == 4


async def test_the_order_is_kept_when_starts_are_tried_again(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        for number in range(20):
            await scheduler.schedule_later(10, number, program.quick, str(number))
        faulty.fails = True
        await anyio.sleep(20)
        faulty.fails = False
        await scheduler.join()
    assert [text for _, text in program.began] == [str(number) for number in range(20)]


async def test_a_call_is_tried_at_once_while_starts_wait(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(10, "start", program.quick, "start")
        faulty.fails = True
        await anyio.sleep(31)
        faulty.fails = False
        assert await scheduler.holds("start")
        assert program.scheduler.now().second == 31
        await scheduler.join()


async def test_closed_while_the_store_fails(
    program: Program, faulty: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("end", program.slow, "end", 10)
        await scheduler.schedule_later(10, "start", program.quick, "start")
        await anyio.sleep(5)
        faulty.fails = True
        await anyio.sleep(10)
    assert scheduler.state == "closed"
    assert caplog.messages[1:] == [
        "The end of a run of task 'end' could not be stored before closing: it runs again.",
    ]
    faulty.fails = False
    async with program.start() as scheduler:
        await scheduler.join()
    assert [text for _, text in program.began] == ["end", "end", "start"] or [text for _, text in program.began] == [
        "end", "start", "end",
    ]  # fmt: skip


async def test_closing_tries_again_during_the_grace(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "id", 10)
        await anyio.sleep(9)
        faulty.fails = True
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.close, 20)
            await anyio.sleep(10)
            faulty.fails = False
    async with program.start() as scheduler:
        await scheduler.join()
    assert len(program.began) == 1


async def test_a_wait_fails_when_the_store_is_closed(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        task = await scheduler.schedule_later(100, "id", program.quick, "id")
        faulty.fails = True
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.join)

            async def wait() -> None:
                with pytest.raises(StoreError):
                    await task.wait()

            group.start_soon(wait)
            await anyio.sleep(1)
            await scheduler.close()


async def test_a_store_with_a_bug_ends_the_scheduler(program: Program, faulty: FaultyStore) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with program.start() as scheduler:
            await scheduler.schedule("slow", program.slow, "slow")
            await scheduler.schedule_later(1, "due", program.quick, "due")
            await anyio.sleep(0.5)
            faulty.fails, faulty.error = True, ZeroDivisionError()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            with pytest.raises(StoreError, match="has been closed"), anyio.CancelScope(shield=True):
                await scheduler.holds("id")
            await anyio.sleep_forever()
    assert caught.group_contains(ZeroDivisionError)
    assert program.scheduler.state == "closed"


async def test_a_call_that_is_cancelled_before_its_commit_has_not_happened(
    program: Program, faulty: FaultyStore
) -> None:
    async with program.start() as scheduler:
        scope = anyio.CancelScope()

        async def schedule() -> None:
            with scope:
                await scheduler.schedule("id", program.quick, "id")

        async with anyio.create_task_group() as group:

            def delay(operations: Sequence[Operation[Any]]) -> None:
                # While another call is committed.
                faulty.before = lambda operations: None
                anyio.from_thread.run_sync(partial(group.start_soon, schedule))
                pass_some_time()
                anyio.from_thread.run_sync(scope.cancel)
                pass_some_time()

            faulty.before = delay
            await scheduler.holds("id")
        assert scope.cancelled_caught
        assert not await scheduler.holds("id")


async def test_a_call_that_is_cancelled_during_its_commit_may_have_happened(
    program: Program, faulty: FaultyStore
) -> None:
    async with program.start() as scheduler:
        cancelled = anyio.CancelScope()

        def cancel_it(operations: Sequence[Operation[Any]]) -> None:
            if any(isinstance(operation, Put) for operation in operations):
                anyio.from_thread.run_sync(cancelled.cancel)

        faulty.before = cancel_it
        with cancelled:
            await scheduler.schedule_later(10, "id", program.quick, "id")
        assert cancelled.cancelled_caught
        faulty.before = lambda operations: None
        task = await scheduler.get("id")
        assert task is not None
        await task.wait()
    assert program.began == [(10, "id")]


async def test_a_start_that_is_cancelled_during_its_commit_is_given_back(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:

        def close_it(operations: Sequence[Operation[Any]]) -> None:
            if any(isinstance(operation, Claim) for operation in operations):
                anyio.from_thread.run_sync(partial(group.start_soon, scheduler.close))
                pass_some_time()

        async with anyio.create_task_group() as group:
            faulty.before = close_it
            await scheduler.schedule_later(5, "id", program.quick, "id")
            await anyio.sleep(6)
    assert program.began == []
    faulty.before = lambda operations: None
    async with program.start() as scheduler:
        await scheduler.join()
    assert [text for _, text in program.began] == ["id"]
    assert [attempt for attempt, _ in program.keys] == [1]


async def test_claimed_and_cancelled_in_the_same_commit_it_does_not_begin(
    program: Program, faulty: FaultyStore
) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
        async with anyio.create_task_group() as group:

            def delay(operations: Sequence[Operation[Any]]) -> None:
                # While another call is committed, the task becomes due and is cancelled.
                faulty.before = lambda operations: None
                anyio.from_thread.run_sync(virtual_clock.step_wall, 10)
                pass_some_time()
                anyio.from_thread.run_sync(partial(group.start_soon, scheduler.cancel, "id"))
                pass_some_time()

            virtual_clock = VirtualClock.current()
            faulty.before = delay
            await scheduler.holds("id")
        await anyio.sleep(10)
        assert not await scheduler.holds("id")
    claims = [index for index, operation in enumerate(faulty.operations) if isinstance(operation, Claim)]
    assert len(claims) == 1
    assert type(faulty.operations[claims[0] + 1]).__name__ == "Cancel"
    assert program.began == []


@pytest.mark.parametrize("verb", ["pause", "reschedule", "cancel"])
async def test_what_is_paused_or_moved_before_its_claim_is_not_claimed(
    program: Program, faulty: FaultyStore, verb: str
) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "pause": partial(scheduler.pause, "id"),
            "reschedule": partial(scheduler.reschedule_later, 60, "id"),
            "cancel": partial(scheduler.cancel, "id"),
        }
        async with anyio.create_task_group() as group:

            def delay(operations: Sequence[Operation[Any]]) -> None:
                # While another call is committed, the task is paused or moved, and then becomes due.
                faulty.before = lambda operations: None
                anyio.from_thread.run_sync(partial(group.start_soon, calls[verb]))
                pass_some_time()
                anyio.from_thread.run_sync(virtual_clock.step_wall, 10)
                pass_some_time()

            virtual_clock = VirtualClock.current()
            faulty.before = delay
            await scheduler.holds("id")
        await anyio.sleep(5)
        assert program.began == []
        assert any(isinstance(operation, Claim) for operation in faulty.operations)
        if verb == "pause":
            await scheduler.resume("id")
        await scheduler.join()
    assert program.began == {"pause": [(15, "id")], "reschedule": [(60, "id")], "cancel": []}[verb]


async def test_a_handler_that_is_registered_while_the_store_is_opened(program: Program, faulty: FaultyStore) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule_later(5, "id", program.quick, "id")
    late = DurableScheduler("test", faulty)

    def register(operations: Sequence[Operation[Any]]) -> None:
        faulty.before = lambda operations: None
        anyio.from_thread.run_sync(late.handler("quick"), program.quick)

    faulty.before = register
    async with late:
        await late.join()
    assert program.began == [(5, "id")]


# The window


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(window_module, "ARMED_PER_ITERATION", 3)
    monkeypatch.setattr("anysched.durable.scheduler.WINDOW", 10)
    return 10


def armed(program: Program) -> int:
    return len(program.scheduler._engine._window)


async def test_only_the_soonest_are_in_memory(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        for number in reversed(range(200)):
            await scheduler.schedule_later(10 + number, number, program.quick, str(number))
            assert armed(program) <= 2 * small_window
        await anyio.sleep(100)
        assert armed(program) <= 2 * small_window
    async with program.start() as scheduler:
        await anyio.sleep(1)
        assert armed(program) <= 2 * small_window
        await scheduler.reschedule_later(500, 150)
        await scheduler.reschedule_later(2.5, 199)
        await scheduler.cancel(198)
        await scheduler.join()
    order = (
        [str(number) for number in range(94)] + ["199"] + [str(number) for number in range(94, 198) if number != 150]
    )
    assert [text for _, text in program.began] == [*order, "150"]
    late = [(time, text) for time, text in program.began if time != 10 + int(text)]
    assert [text for _, text in late] == ["199", "150"]


async def test_many_are_due_at_the_same_time(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        for number in range(100):
            await scheduler.schedule_later(10, number, program.quick, str(number))
        await scheduler.schedule_later(5, "soon", program.quick, "soon")
    async with program.start() as scheduler:
        await scheduler.join()
    assert [text for _, text in program.began] == ["soon", *map(str, range(100))]


async def test_cancelling_all_also_cancels_what_is_not_in_memory(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        for number in range(100):
            await scheduler.schedule_later(10 + number, number, program.quick, str(number))
        await scheduler.cancel_all()
        await scheduler.join()
        await scheduler.schedule_later(200, "after", program.quick, "after")
        await scheduler.join()
    assert program.began == [(200, "after")]


async def test_a_successor_waits_for_what_was_interrupted_before_it(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first")
        await anyio.sleep(1)
        await scheduler.schedule("id", program.quick, "second", on_conflict="follow")
    async with program.start() as scheduler:
        for number in range(30):
            await scheduler.schedule(number, program.quick, str(number))
        await scheduler.reschedule_later(0, "id")
        await scheduler.join()
    texts = [text for _, text in program.began]
    assert texts.index("second") > len(texts) - 1 - texts[::-1].index("first")
    assert len(texts) == 33


async def test_waiting_for_what_is_not_in_memory_when_all_is_cancelled(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        tasks = [
            await scheduler.schedule_later(10 + number, number, program.quick, str(number)) for number in range(50)
        ]
        async with anyio.create_task_group() as group:
            group.start_soon(tasks[49].wait)
            await anyio.sleep(1)
            await scheduler.cancel_all()


async def test_running_tasks_do_not_keep_others_from_being_loaded(program: Program, small_window: int) -> None:
    async with program.start() as scheduler:
        for number in range(50):
            await scheduler.schedule_later(10, number, program.slow, str(number))
    async with program.start() as scheduler:
        await anyio.sleep(11)
        assert await scheduler.close(math.inf) == []
    assert [time for time, _ in program.began] == [10] * 50


async def test_closing_loads_no_more(program: Program, small_window: int) -> None:
    scheduler = program.start(max_running=1)

    @scheduler.handler("sweep")
    async def sweep() -> None:
        await anyio.sleep(10)
        for number in range(10):
            await scheduler.cancel(number)

    async with scheduler:
        await scheduler.schedule("sweep", sweep)
        for number in range(50):
            await scheduler.schedule_later(5 + number, number, program.quick, str(number))
        await anyio.sleep(1)
        await scheduler.close(60)
        assert armed(program) <= 2 * small_window
    async with program.start() as scheduler:
        await scheduler.join()
    assert [text for _, text in program.began] == [str(number) for number in range(10, 50)]


@pytest.mark.parametrize("operation", [Claim, End])
async def test_starts_and_ends_whose_answer_is_lost_are_harmless_to_repeat(operation: type[Operation[Any]]) -> None:
    store = LossyStore(MemoryStore())
    program = Program(store)
    async with program.start() as scheduler:
        await scheduler.schedule_every(30, "periodic", program.slow, "periodic")
        await scheduler.schedule_later(10, "id", program.slow, "first")
        await anyio.sleep(5)
        store.loses = operation
        await anyio.sleep(7)
        # It waits for the first, whose end may have been stored.
        await scheduler.schedule("id", program.slow, "second", on_conflict="follow")
        await anyio.sleep(100)
        periodic = await scheduler.get("periodic")
        assert periodic is not None
        assert (periodic.run_count, periodic.attempts) == (3, 0)
        await scheduler.cancel("periodic")
        with anyio.fail_after(100):
            await scheduler.join()
    assert [text for _, text in program.began if text != "periodic"] == ["first", "second"]
    assert [round(time) for time, text in program.began if text == "periodic"] == [30, 60, 90]
    assert all(attempt == 1 for attempt, _ in program.keys)


async def test_calls_whose_answer_is_lost_have_happened_also_in_memory() -> None:
    store = LossyStore(MemoryStore())
    program = Program(store)
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "first", 1_000)
        await scheduler.schedule_later(500, "cancelled", program.quick, "cancelled")
        await anyio.sleep(1)
        for call in (
            partial(scheduler.schedule, "id", program.quick, "second", on_conflict="replace"),
            partial(scheduler.cancel, "cancelled"),
        ):
            store.loses = Cancel if call.func == scheduler.cancel else Put
            with pytest.raises(UncertainCommitError):
                await call()
        with anyio.fail_after(100):
            await scheduler.join()
    assert [(word, text) for _, word, text in program.journal] == [
        ("begin", "first"), ("cancelled", "first"), ("begin", "second"),
    ]  # fmt: skip


@pytest.mark.parametrize("moment", ["before", "during"])
@pytest.mark.parametrize(
    "verb", ["schedule", "replace", "cancel", "cancel_all", "reschedule", "pause", "resume", "retry"]
)
async def test_a_verb_that_is_cancelled_has_happened_wholly_or_not_at_all(
    program: Program, faulty: FaultyStore, verb: str, moment: str
) -> None:
    """In the store and in memory alike: before its commit has begun not at all, and during its commit wholly."""
    faulty.store.open()
    faulty.store.commit([Put('"parked"', 0, 0, "quick", '["parked"]'), Claim(1, 0), Park(1, "broken")])
    faulty.store.close()
    async with program.start() as scheduler:
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "schedule": partial(scheduler.schedule_later, 10, "new", program.quick, "new"),
            "replace": partial(scheduler.schedule_later, 10, "id", program.quick, "new", on_conflict="replace"),
            "cancel": partial(scheduler.cancel, "id"),
            "cancel_all": scheduler.cancel_all,
            "reschedule": partial(scheduler.reschedule_later, 10, "id"),
            "pause": partial(scheduler.pause, "id"),
            "resume": partial(scheduler.resume, "paused"),
            "retry": partial(scheduler.retry, "parked"),
        }
        await scheduler.schedule_later(100, "id", program.quick, "id")
        await scheduler.schedule_later(100, "paused", program.quick, "paused")
        await scheduler.pause("paused")
        scope = anyio.CancelScope()

        async def call() -> None:
            with scope:
                await calls[verb]()

        async with anyio.create_task_group() as group:

            def before(operations: Sequence[Operation[Any]]) -> None:
                faulty.before = lambda operations: None
                anyio.from_thread.run_sync(partial(group.start_soon, call))
                pass_some_time()
                anyio.from_thread.run_sync(scope.cancel)
                pass_some_time()

            def during(operations: Sequence[Operation[Any]]) -> None:
                faulty.before = lambda operations: None
                anyio.from_thread.run_sync(scope.cancel)
                pass_some_time()

            faulty.before = before if moment == "before" else during
            if moment == "before":
                await scheduler.holds("id")
            else:
                await call()
        assert scope.cancelled_caught
        await anyio.sleep(200)
    untouched = [(100, "id")]
    expected = {
        "schedule": [(10, "new"), *untouched],
        "replace": [(10, "new")],
        "cancel": [],
        "cancel_all": [],
        "reschedule": [(10, "id")],
        "pause": [],
        "resume": [*untouched, (100, "paused")],
        "retry": [(0, "parked"), *untouched],
    }[verb]
    assert program.began == (untouched if moment == "before" else expected)


async def test_a_call_that_is_being_committed_when_the_scheduler_is_closed(
    program: Program, faulty: FaultyStore
) -> None:
    """It returns, and what it has stored is there."""
    async with program.start() as scheduler, anyio.create_task_group() as group:

        def close(operations: Sequence[Operation[Any]]) -> None:
            faulty.before = lambda operations: None
            anyio.from_thread.run_sync(partial(group.start_soon, scheduler.close))
            pass_some_time()

        faulty.before = close
        task = await scheduler.schedule("id", program.quick, "id")
        assert task.status == "pending"
    assert scheduler.state == "closed"
    assert program.began == []
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.began == [(0, "id")]


async def test_a_close_that_is_cancelled_closes_at_once(program: Program) -> None:
    async with program.start() as scheduler:
        await scheduler.schedule("id", program.slow, "id", 100)
        await anyio.sleep(1)
        with anyio.move_on_after(5) as scope:
            await scheduler.close(math.inf)
        assert scope.cancelled_caught
        assert scheduler.state == "closed"
    assert program.journal == [(0, "begin", "id"), (6, "cancelled", "id")]
    async with program.start() as scheduler:
        await scheduler.join()
    assert program.journal[2:] == [(6, "begin", "id"), (106, "end", "id")]


class SlowStore(FaultyStore):
    """A store that is opened when it is told to be."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.opening, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()

    def open(self) -> None:
        self.opening.set()
        assert self.go_on.wait(60)
        super().open()

    def close(self) -> None:
        super().close()
        self.closed.set()


async def test_closing_waits_for_the_opening() -> None:
    store = SlowStore(MemoryStore())
    scheduler = Program(store).start()
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await to_thread.run_sync(store.opening.wait)
        group.start_soon(scheduler.close)
        await anyio.lowlevel.checkpoint()
        store.go_on.set()
    assert scheduler.state == "closed"
    assert store.closed.is_set()


async def test_an_opening_that_asyncio_cancels_leaves_nothing_open(anyio_backend_name: str) -> None:
    """Its own cancellation reaches what anyio's shields keep one from."""
    if anyio_backend_name == "trio":
        return
    store = SlowStore(MemoryStore())
    program = Program(store)
    scheduler = program.start()
    hosting = asyncio.create_task(scheduler.run())
    await to_thread.run_sync(store.opening.wait)
    hosting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hosting
    assert scheduler.state == "closed"
    store.go_on.set()
    await to_thread.run_sync(store.closed.wait)
    async with program.start() as scheduler:
        assert not await scheduler.holds("id")
