"""A transaction of a user's that stays open holds up the tasks that it has changed, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import psycopg
import pytest

from anysched.durable import DurableScheduler, StoreError
from anysched.durable.postgres import PostgresStore

pytestmark = pytest.mark.anyio

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


async def work(text: str) -> None:
    ran.append(text)


async def long_work(text: str) -> None:
    await anyio.sleep(1)
    ran.append(text)


def start(database: str) -> DurableScheduler:
    scheduler = DurableScheduler("test", PostgresStore(database))
    scheduler.handler("work")(work)
    scheduler.handler("long work")(long_work)
    return scheduler


@contextmanager
def transaction(database: str, *, commits: bool = True) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database) as connection:
        yield connection
        if not commits:
            connection.rollback()


@pytest.mark.parametrize("commits", [True, False])
async def test_a_task_that_falls_due_while_a_transaction_has_moved_it_waits_alone(database: str, commits: bool) -> None:
    async with start(database) as scheduler:
        await scheduler.schedule_later(1, "id", work, "before")
        with transaction(database, commits=commits) as connection:
            await scheduler.schedule_later(2, "id", work, "after", on_conflict="replace", connection=connection)
            for number in range(3):
                await anyio.sleep(5)
                await scheduler.schedule(number, work, f"{number}")
                await anyio.sleep(0.5)
                assert ran == [f"{number}" for number in range(number + 1)]
        await scheduler.join()
    assert ran[3:] == ["after" if commits else "before"]


async def test_a_run_that_ends_while_a_transaction_has_cancelled_it_waits_alone(database: str) -> None:
    async with start(database) as scheduler:
        await scheduler.schedule("id", long_work, "id")
        await anyio.sleep(0.5)
        with transaction(database) as connection:
            assert await scheduler.cancel("id", connection=connection)
            await anyio.sleep(5)
            assert ran == ["id"]
            await scheduler.schedule("other", work, "other")
            await anyio.sleep(0.5)
            assert ran == ["id", "other"]
        await scheduler.join()
    assert ran == ["id", "other"]


async def test_a_verb_waits_some_seconds_for_a_transaction_and_holds_up_no_other(database: str) -> None:
    async with start(database) as scheduler:
        await scheduler.schedule_later(3600, "id", work, "id")
        with transaction(database) as connection:
            await scheduler.cancel("id", connection=connection)

            async def cancel() -> None:
                began = anyio.current_time()
                with pytest.raises(StoreError, match="a transaction that is still open has changed the same task"):
                    await scheduler.cancel("id")
                assert 3 <= anyio.current_time() - began < 4

            async with anyio.create_task_group() as group:
                group.start_soon(cancel)
                await anyio.sleep(0.1)
                await scheduler.schedule("other", work, "other")
                await anyio.sleep(0.5)
                assert ran == ["other"]
        assert not await scheduler.holds("id")


async def test_closing_does_not_wait_for_a_transaction(database: str) -> None:
    with transaction(database) as connection:
        async with start(database) as scheduler:
            await scheduler.schedule_later(1, "id", work, "id")
            await scheduler.schedule_later(2, "id", work, "id", on_conflict="replace", connection=connection)
            await anyio.sleep(2)
    async with start(database) as scheduler:
        await scheduler.join()
    assert ran == ["id"]
