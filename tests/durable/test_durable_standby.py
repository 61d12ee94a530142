"""Several processes with one store in PostgreSQL: one runs the tasks, the others stand by. In real time, on all event loops."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest
from anyio import to_thread
from durable_support import until
from frozen_owner import FAILOVER_AFTER
from postgres_server import PostgresServer

from anysched.durable import (
    DurableScheduler,
    MemoryStore,
    StoreError,
    UnknownHandlerError,
    current_run,
    membership,
    postgres_connections,
)
from anysched.durable.errors import OwnershipLostError
from anysched.durable.operations import IsEmpty, Load
from anysched.durable.postgres import PostgresStore
from anysched.durable.shared import Notices, TakeNotices
from anysched.durable.window import NOTHING
from support import EVENT_LOOPS

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Process:
    """Represents a process: a scheduler with its own store, and the journal of its handlers."""

    def __init__(self, database: str, name: str, journal: list[str], **options: Any) -> None:
        self.name = name
        self.journal = journal
        self.store = PostgresStore(database)
        self.scheduler = DurableScheduler("standby", self.store, **options)
        self.scheduler.handler("quick")(self.quick)
        self.scheduler.handler("slow")(self.slow)

    async def quick(self, text: str) -> None:
        self.journal.append(f"{self.name} {text} {current_run().attempt}")

    async def slow(self, text: str) -> None:
        self.journal.append(f"{self.name} {text} {current_run().attempt}")
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            self.journal.append(f"{self.name} {text} cancelled")
            raise


@pytest.fixture
def journal() -> list[str]:
    return []


@pytest.fixture
def process(database: str, journal: list[str]) -> Callable[..., Process]:
    return lambda name, **options: Process(database, name, journal, **options)


@asynccontextmanager
async def opened(*schedulers: DurableScheduler) -> AsyncIterator[None]:
    """Enter schedulers in turn."""
    async with AsyncExitStack() as stack:
        for scheduler in schedulers:
            await stack.enter_async_context(scheduler)
        yield


def terminate(postgres: PostgresServer, database: str) -> None:
    postgres.execute("select pg_terminate_backend(backend) from anysched_scheduler", database)


async def test_one_runs_the_tasks_and_another_takes_over(process: Any, journal: list[str]) -> None:
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        assert (one.scheduler.role, other.scheduler.role) == ("owner", "standby")
        await one.scheduler.schedule("slow", one.slow, "slow")
        await one.scheduler.schedule_later(0.01, "quick", one.quick, "quick")
        await until(lambda: len(journal) == 2)
        await one.scheduler.close()
        await until(lambda: other.scheduler.role == "owner")
        await until(lambda: len(journal) == 4)
        assert sorted(journal) == ["one quick 1", "one slow 1", "one slow cancelled", "other slow 2"]
        await other.scheduler.cancel("slow")
        await other.scheduler.join()


async def test_verbs_from_a_standby_reach_the_owner(process: Any, journal: list[str]) -> None:
    one, other = process("one"), process("other", participate="verbs")
    async with opened(one.scheduler, other.scheduler):
        scheduler = other.scheduler
        assert scheduler.role == "verbs"
        await scheduler.schedule("now", other.quick, "now")
        await until(lambda: journal == ["one now 1"])
        await scheduler.schedule("slow", other.slow, "first")
        await until(lambda: journal[-1] == "one first 1")
        await scheduler.schedule("slow", other.slow, "second", on_conflict="replace")
        await until(lambda: journal[-1] == "one second 1")
        assert journal[-2] == "one first cancelled"
        await scheduler.schedule_later(600, "moved", other.quick, "moved")
        await scheduler.schedule_later(600, "paused", other.quick, "paused")
        await scheduler.pause("paused")
        await scheduler.reschedule_later(0, "paused")
        await scheduler.reschedule_later(0, "moved")
        await until(lambda: journal[-1] == "one moved 1")
        await scheduler.resume("paused")
        await until(lambda: journal[-1] == "one paused 1")
        for number in range(250):
            await scheduler.schedule_later(600, number, other.quick, "never")
        assert await scheduler.cancel("slow")
        await until(lambda: journal[-1] == "one second cancelled")
        await scheduler.schedule("slow", other.slow, "third")
        await until(lambda: journal[-1] == "one third 1")
        await scheduler.cancel_all()
        await until(lambda: journal[-1] == "one third cancelled")
        with anyio.fail_after(30):
            await scheduler.join()
        await one.scheduler.join()


async def test_what_changes_while_notices_are_taken_reaches_the_owner(
    process: Any, journal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is announced after the owner has read the notices, and before it has applied them."""
    one, other = process("one"), process("other", participate="verbs")
    commit, receive = one.store.commit, one.store.receive
    taken, applied = Event(), Event()
    heard: list[bool] = []

    def commit_and_wait(operations: list[Any]) -> Any:
        results = commit(operations)
        if any(isinstance(operation, TakeNotices) for operation in operations):
            taken.set()
            assert applied.wait(60)
        return results

    def receive_and_count() -> Any:
        heard.append(True)
        return receive()

    monkeypatch.setattr(one.store, "commit", commit_and_wait)
    monkeypatch.setattr(one.store, "receive", receive_and_count)
    async with opened(one.scheduler, other.scheduler):
        await other.scheduler.schedule("first", other.quick, "first")
        await until(taken.is_set)
        await other.scheduler.schedule("second", other.quick, "second")
        await until(lambda: len(heard) == 2)
        await anyio.wait_all_tasks_blocked()
        applied.set()
        await until(lambda: sorted(journal) == ["one first 1", "one second 1"])


async def test_the_end_of_a_task_is_waited_for_in_another_process(process: Any, journal: list[str]) -> None:
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        scheduler = other.scheduler
        first = await scheduler.schedule_later(0.05, "first", other.quick, "first")
        second = await scheduler.schedule_later(600, "second", other.quick, "second")
        third = await scheduler.schedule("third", other.slow, "third")
        with anyio.fail_after(30):
            await first.wait()
            await first.wait()  # it has ended
            async with anyio.create_task_group() as group:
                group.start_soon(second.wait)
                group.start_soon(second.wait)
                await anyio.sleep(0.05)
                await one.scheduler.cancel("second")
            async with anyio.create_task_group() as group:
                group.start_soon(third.wait)
                await until(lambda: "one third 1" in journal)
                await one.scheduler.close()  # the other takes over, and runs it again
                await until(lambda: journal[-1] == "other third 2")
                await scheduler.cancel("third")


async def test_a_wait_is_told_of_by_the_poll_if_the_announcement_is_lost(
    process: Any, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "POLL", 0.05)
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        task = await other.scheduler.schedule_later(600, "id", other.quick, "id")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(task.wait)
                await anyio.sleep(0.1)
                postgres.execute("delete from anysched_entry", database)


async def test_the_owner_that_loses_its_session_cancels_what_it_runs(
    process: Any, journal: list[str], postgres: PostgresServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        await one.scheduler.schedule("slow", one.slow, "slow")
        waited = await one.scheduler.schedule_later(2, "later", one.quick, "later")
        await until(lambda: journal == ["one slow 1"])
        async with anyio.create_task_group() as group:
            group.start_soon(waited.wait)
            await anyio.sleep(0.05)
            terminate(postgres, database)
            await until(lambda: other.scheduler.role == "owner")
            await until(lambda: one.scheduler.role == "standby")
        await until(lambda: len(journal) == 4)
        assert set(journal) == {"one slow 1", "one slow cancelled", "other slow 2", "other later 1"}
        assert [record.message.partition(":")[0] for record in caplog.records if record.levelname == "ERROR"] == [
            "Lost the ownership of the store"
        ]
        assert "running tasks are cancelled" in caplog.text
        # And back again.
        await other.scheduler.close()
        await until(lambda: journal[-1] == "one slow 3")
        await one.scheduler.cancel("slow")


async def test_a_verb_of_the_owner_finds_that_the_session_is_lost(
    process: Any, journal: list[str], postgres: PostgresServer, database: str
) -> None:
    one = process("one")
    async with one.scheduler as scheduler:
        await scheduler.schedule("slow", one.slow, "slow")
        await until(lambda: journal == ["one slow 1"])
        terminate(postgres, database)
        failures = 0
        for number in range(20):
            try:
                await scheduler.schedule(number, one.quick, str(number))
            except StoreError:
                failures += 1
            await anyio.sleep(0.01)
        assert failures < 20
        await until(lambda: scheduler.role == "owner")
        await until(lambda: "one slow 2" in journal)
        await scheduler.cancel("slow")
        await scheduler.join()


async def test_the_server_restarts(journal: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anysched.standby")
    with PostgresServer() as server:
        database = server.new_database()
        one, other = Process(database, "one", journal), Process(database, "other", journal)
        async with opened(one.scheduler, other.scheduler):
            await one.scheduler.schedule("slow", one.slow, "slow")
            await one.scheduler.schedule_later(0.5, "later", one.quick, "later")
            await until(lambda: journal == ["one slow 1"])
            await anyio.to_thread.run_sync(server.stop)
            with pytest.raises(StoreError):
                await other.scheduler.schedule("never", other.quick, "never")
            await anyio.sleep(0.5)
            await anyio.to_thread.run_sync(server.start)
            await until(lambda: any("later 1" in line for line in journal))
            await until(lambda: any("slow 2" in line for line in journal))
            await other.scheduler.cancel_all()
        assert "one slow cancelled" in journal
        assert {"This process cannot stand by to run the tasks", "This process can run the tasks again."} <= {
            record.message.partition(":")[0] for record in caplog.records
        }


async def test_handlers_that_only_other_processes_know_are_waited_for(
    process: Any, journal: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = process("one"), process("other", participate="verbs")

    @other.scheduler.handler("new")  # type: ignore[untyped-decorator]
    async def new() -> None:
        journal.append("new")

    async with opened(one.scheduler, other.scheduler):
        task = await other.scheduler.schedule("id", new)
        await until(lambda: "waits until its handler 'new' is registered" in caplog.text)
        while (found := await other.scheduler.get("id")) is None or found.status != "unknown":
            await anyio.sleep(0.01)
        one.scheduler.handler("new")(partial(new))
        await task.wait()
    assert journal == ["new"]


async def test_who_does_not_know_all_handlers_may_refuse_to_run_the_tasks(
    process: Any, database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "REFUSED", 0.01)
    one = process("one")
    strict = DurableScheduler("standby", PostgresStore(database), unknown="error")
    engine: Any = strict._engine
    take_over, tried = engine._take_over, []

    async def count() -> None:
        tried.append(1)
        await take_over()

    engine._take_over = count
    async with opened(one.scheduler, strict):
        await one.scheduler.schedule_later(600, "id", one.quick, "id")
        await one.scheduler.close()
        await until(
            lambda: (
                "This process cannot run the tasks, and stands by: scheduler 'standby' has no handler 'quick'"
                in caplog.text
            )
        )
        await until(lambda: len(tried) > 2)
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
        await strict.cancel_all()
        await until(lambda: strict.role == "owner")
    await put(process("one"))
    with pytest.raises(UnknownHandlerError):
        async with DurableScheduler("standby", PostgresStore(database), unknown="error"):
            pass


async def put(one: Process) -> None:
    async with one.scheduler:
        await one.scheduler.schedule_later(600, "id", one.quick, "id")


async def test_only_a_shared_store_can_be_opened_for_verbs_only() -> None:
    with pytest.raises(
        ValueError, match='participate="verbs" needs a store that several processes can have open, not <Mem'
    ):
        DurableScheduler("test", MemoryStore(), participate="verbs")
    with pytest.raises(ValueError, match='participate must be "run" or "verbs", not \'own\''):
        DurableScheduler("test", MemoryStore(), participate="own")  # type: ignore[arg-type]
    assert DurableScheduler("test", MemoryStore()).role == "owner"


async def test_an_id_that_no_index_can_hold_is_refused(process: Any) -> None:
    one = process("one")
    async with one.scheduler as scheduler:
        await scheduler.schedule_later(600, "x" * 1_998, one.quick, "long")
        assert await scheduler.cancel("x" * 1_998)
        with pytest.raises(ValueError, match='a durable ID has at most 2000 characters, as JSON, not 2001: "xxx'):
            await scheduler.schedule("x" * 1_999, one.quick, "too long")


def test_a_scheduler_is_made_without_an_event_loop() -> None:
    assert DurableScheduler("test", PostgresStore()).role == "standby"


async def test_a_store_that_cannot_be_listened_to_is_closed(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PostgresStore) -> None:
        raise StoreError("no more connections")

    one = process("one")
    with monkeypatch.context() as patch:
        patch.setattr(PostgresStore, "listen", fail)
        with pytest.raises(StoreError, match="no more connections"):
            async with one.scheduler:
                pass
    assert one.scheduler.state == "closed"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
@pytest.mark.parametrize("failover", ["safe", "prompt"])
async def test_an_owner_that_is_frozen(failover: Any, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """It stays the owner, or is deposed; when it continues, it cancels its run."""
    began: list[int] = []
    program = str(Path(__file__).with_name("frozen_owner.py"))
    frozen = subprocess.Popen([sys.executable, program, database, failover], stdout=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    try:
        assert await to_thread.run_sync(frozen.stdout.readline) == "begin\n"
        store = PostgresStore(database, failover=failover, failover_after=FAILOVER_AFTER)
        scheduler = DurableScheduler("frozen", store)

        @scheduler.handler("work")
        async def work() -> None:
            began.append(current_run().attempt)

        async with scheduler:
            assert scheduler.role == "standby"
            await anyio.sleep(2 * FAILOVER_AFTER)  # the signs of life suffice
            assert scheduler.role == "standby"
            frozen.send_signal(signal.SIGSTOP)
            if failover == "safe":
                await anyio.sleep(4 * FAILOVER_AFTER)
                assert scheduler.role == "standby"
                frozen.kill()
            await until(lambda: began == [2])
            assert ("has given no sign of life for 0.5 seconds" in caplog.text) == (failover == "prompt")
            if failover == "prompt":
                frozen.send_signal(signal.SIGCONT)
                assert await to_thread.run_sync(frozen.stdout.readline) == "cancelled\n"
    finally:
        frozen.kill()
        frozen.communicate()


def test_how_to_fail_over_is_checked() -> None:
    assert PostgresStore().failover_after is None
    with pytest.raises(ValueError, match='failover must be "safe" or "prompt", not \'fast\''):
        PostgresStore(failover="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="failover_after must be positive, not 0"):
        PostgresStore(failover="prompt", failover_after=0)


async def test_the_loss_of_the_ownership_at_inconvenient_moments(
    process: Any, journal: list[str], postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anysched.durable.scheduler.WINDOW", 5)
    one, other = process("one"), process("other", participate="verbs")
    engine: Any = one.scheduler._engine
    async with opened(one.scheduler, other.scheduler):
        # More than the window takes, by way of the notices.
        for number in range(150):
            await other.scheduler.schedule_later(600 + number % 2, number, other.quick, "never")
        gone = await one.scheduler.schedule_later(600, "gone", one.quick, "gone")
        async with anyio.create_task_group() as group:
            group.start_soon(gone.wait)
            await anyio.sleep(0.05)
            postgres.execute("delete from anysched_entry where id = '\"gone\"'", database)
            # Operations that are in the queue are given up, and what was waited for is looked for.
            engine._writer.post(IsEmpty())
            engine.lose(OwnershipLostError("lost"))
            engine.lose(OwnershipLostError("lost, as others have found as well"))
        await until(lambda: one.scheduler.role == "owner")
        # A task that is due when it is lost does not start.
        await one.scheduler.schedule_later(1, "due", one.quick, "due")
        await until(lambda: not engine._loading)
        engine._window, engine._loading = engine._new_window(), True  # nothing is armed again
        await anyio.sleep(1.2)
        assert journal == []
        engine._loading = False
        engine.lose(OwnershipLostError("lost"))
        await until(lambda: journal == ["one due 1"])
    assert not await engine.gain()  # it is closed


async def test_an_end_is_not_stored_after_the_ownership_was_lost(
    process: Any, journal: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    one: Process = process("one")
    engine: Any = one.scheduler._engine
    finish = anyio.Event()

    @one.scheduler.handler("stubborn")
    async def stubborn() -> None:
        journal.append("began")
        if len(journal) == 1:
            with anyio.CancelScope(shield=True):
                await finish.wait()

    async with one.scheduler as scheduler:
        await scheduler.schedule("id", stubborn)
        await until(lambda: journal)
        engine.lose(OwnershipLostError("lost"))
        finish.set()
        await until(lambda: len(journal) == 2)
        await scheduler.join()
    assert "The end of a run of task 'id' could not be stored before the ownership was lost" in caplog.text


async def test_a_handler_that_outlasts_the_loss_of_the_ownership_is_waited_for_in_its_process(
    process: Any, journal: list[str]
) -> None:
    one: Process = process("one")
    engine: Any = one.scheduler._engine
    finish = anyio.Event()

    @one.scheduler.handler("stubborn")
    async def stubborn() -> None:
        journal.append("began")
        if not finish.is_set():
            with anyio.CancelScope(shield=True):
                await finish.wait()
            journal.append("ended")

    async with one.scheduler as scheduler:
        await scheduler.schedule("id", stubborn)
        await until(lambda: journal)
        engine.lose(OwnershipLostError("lost"))
        await until(lambda: scheduler.role == "owner" and len(engine._window) == 1)
        await scheduler.schedule("later", one.quick, "later")  # would start after a second run of the other
        await until(lambda: len(journal) == 2)
        assert journal == ["began", "one later 1"]
        finish.set()
        await until(lambda: len(journal) == 4)
        assert journal[2:] == ["ended", "began"]
        await scheduler.join()


async def test_an_owner_that_gives_signs_of_life_is_not_deposed(
    database: str, postgres: PostgresServer, journal: list[str]
) -> None:
    one, other = (Process(database, name, journal) for name in ("one", "other"))
    for each in (one, other):
        each.store._failover_after = 0.3
    async with opened(one.scheduler, other.scheduler):
        heartbeat = "select heartbeat from anysched_scheduler"
        first = postgres.execute(heartbeat, database)
        await until(lambda: postgres.execute(heartbeat, database) != first)
        assert (one.scheduler.role, other.scheduler.role) == ("owner", "standby")


async def test_many_tasks_are_dropped_when_the_ownership_is_lost(process: Any) -> None:
    one = process("one")
    engine: Any = one.scheduler._engine
    async with one.scheduler as scheduler:
        for number in range(120):
            await scheduler.schedule_later(600, number, one.quick, "never")
        # As many are armed by the notices of another process.
        placed = await engine._writer.submit(Load(*NOTHING, 200))
        await engine._apply_notices(Notices((), tuple(placed), False))
        assert len(engine._window) == 120
        old = engine._window
        engine.lose(OwnershipLostError("lost"))
        await until(lambda: len(old) == 0 and len(engine._window) == 120)


@contextmanager
def stopped(*processes: Any) -> Iterator[None]:
    """Stop processes of the server by a signal. Until they continue, their answers are waited for only shortly.

    Their system still answers for them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_connections, "ANSWER_TIMEOUT", 0.9)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
async def test_the_session_of_the_owner_does_not_answer(
    process: Any, journal: list[str], postgres: PostgresServer, database: str
) -> None:
    """The call fails after a time, and the running tasks are cancelled."""
    one = process("one")
    async with one.scheduler as scheduler:
        await scheduler.schedule("slow", one.slow, "slow")
        await until(lambda: journal == ["one slow 1"])
        [(session,)] = postgres.execute("select backend from anysched_scheduler", database)
        with stopped(session):
            with anyio.fail_after(30), pytest.raises(OwnershipLostError, match="has not answered for 0"):
                await scheduler.schedule("never", one.quick, "never")
            await until(lambda: "one slow cancelled" in journal)
            assert scheduler.role == "standby"
            # It has the lock, until it finds that its connection was closed.
            assert not await scheduler.holds("never")
        await until(lambda: "one slow 2" in journal)
        await scheduler.cancel("slow")
    assert not any("never" in line for line in journal)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
async def test_an_owner_that_commits_nothing_finds_that_its_session_does_not_answer(
    process: Any, journal: list[str], postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for changes now and then."""
    monkeypatch.setattr(membership, "POLL", 0.05)
    one = process("one")
    async with one.scheduler as scheduler:
        await scheduler.schedule("slow", one.slow, "slow")
        await until(lambda: journal == ["one slow 1"])
        [(session,)] = postgres.execute("select backend from anysched_scheduler", database)
        with stopped(session):
            await until(lambda: "one slow cancelled" in journal)
        await until(lambda: journal[-1].startswith("one slow") and journal[-1] != "one slow cancelled")
        await scheduler.cancel("slow")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
async def test_a_standby_finds_that_its_session_does_not_answer(
    process: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It connects again, perhaps to the server to which PostgreSQL has failed over."""
    monkeypatch.setattr(membership, "POLL", 0.05)
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        candidate = other.store._candidate
        with stopped(candidate.info.backend_pid):
            await until(lambda: other.store._candidate not in {None, candidate})
        assert candidate.closed
        assert "cannot stand by to run the tasks: the session that waited for the ownership" in caplog.text
        await one.scheduler.close()
        await until(lambda: other.scheduler.role == "owner")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
async def test_a_session_for_verbs_that_does_not_answer_is_replaced(
    process: Any, journal: list[str], postgres: PostgresServer, database: str
) -> None:
    one, other = process("one"), process("other")
    async with opened(one.scheduler, other.scheduler):
        with stopped(other.store._session.info.backend_pid):
            with anyio.fail_after(30):
                await other.scheduler.schedule("id", other.quick, "id")
            await until(lambda: journal == ["one id 1"])


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
async def test_the_server_does_not_answer(journal: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anysched.standby")
    with PostgresServer() as server:
        database = server.new_database() + " connect_timeout=2"  # the least that libpq allows
        one, other = Process(database, "one", journal), Process(database, "other", journal)
        async with opened(one.scheduler, other.scheduler):
            await one.scheduler.schedule("slow", one.slow, "slow")
            await until(lambda: journal == ["one slow 1"])
            sessions = server.execute("select pid from pg_stat_activity where pid <> pg_backend_pid()")
            assert server.process is not None
            with stopped(server.process.pid, *(process for (process,) in sessions)):
                for running in (one, other):
                    with anyio.fail_after(30), pytest.raises(StoreError):
                        await running.scheduler.schedule("never", running.quick, "never")
                await until(lambda: "one slow cancelled" in journal)
            await until(lambda: journal[-1].endswith("slow 2"))
            await other.scheduler.cancel_all()
    assert not any("never" in line for line in journal)
