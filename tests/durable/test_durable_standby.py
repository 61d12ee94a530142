"""Several processes with one store in PostgreSQL: one runs the tasks, the others stand by. In real time, on all event loops."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from postgres_server import PostgresServer

from anysched.durable import DurableScheduler, MemoryStore, StoreError, UnknownHandlerError, current_run, membership
from anysched.durable.postgres import PostgresStore

pytestmark = pytest.mark.anyio


@pytest.fixture(
    scope="module",
    params=[("asyncio", {"debug": True}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
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


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


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
    async with opened(one.scheduler, strict):
        await one.scheduler.schedule_later(600, "id", one.quick, "id")
        await one.scheduler.close()
        await until(
            lambda: (
                "This process cannot run the tasks, and stands by: scheduler 'standby' has no handler 'quick'"
                in caplog.text
            )
        )
        assert strict.role == "standby"
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
