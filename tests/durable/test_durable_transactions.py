"""Calls that are part of a transaction of the user's: visible when it is committed, gone when it is rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg
import pytest
from anyio import to_thread
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from anysched import DuplicateTaskError
from anysched.durable import DurableScheduler, MemoryStore, StoreError
from anysched.durable.postgres import PostgresStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Program:
    def __init__(self, database: str) -> None:
        self.ran: list[str] = []
        self.scheduler = DurableScheduler("transactions", PostgresStore(database))
        self.scheduler.handler("note")(self.note)
        self.scheduler.handler("cancel itself")(self.cancel_itself)
        self.database = database

    async def note(self, text: str) -> None:
        self.ran.append(text)

    async def cancel_itself(self) -> None:
        with psycopg.connect(self.database) as connection:
            await self.scheduler.cancel("itself", connection=connection)
        await anyio.sleep(0.2)
        self.ran.append("finished")


def url(database: str) -> str:
    given = psycopg.conninfo.conninfo_to_dict(database)
    return f"postgresql+psycopg://{given['user']}@{given['host']}:{given['port']}/{given['dbname']}"


@asynccontextmanager
async def psycopg_async(database: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        yield connection


@asynccontextmanager
async def psycopg_blocking(database: str) -> AsyncIterator[Any]:
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@asynccontextmanager
async def sqlalchemy_async(database: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url(database))
    try:
        async with engine.connect() as connection:
            yield connection
            await connection.commit()
    finally:
        await engine.dispose()


@asynccontextmanager
async def sqlalchemy_blocking(database: str) -> AsyncIterator[Any]:
    engine = create_engine(url(database))
    try:
        with engine.connect() as connection:
            yield connection
            connection.commit()
    finally:
        engine.dispose()


@pytest.mark.parametrize("connect", [psycopg_async, psycopg_blocking, sqlalchemy_async, sqlalchemy_blocking])
async def test_both_or_neither(connect: Callable[[str], Any], database: str, anyio_backend: str) -> None:
    if anyio_backend == "trio" and connect.__name__.endswith("_async"):
        pytest.skip("these connections are for asyncio")
    program = Program(database)
    async with program.scheduler as scheduler:
        await scheduler.schedule_later(600, "held", program.note, "held")
        async with connect(database) as connection:
            task = await scheduler.schedule("id", program.note, "committed", connection=connection)
            await scheduler.schedule_every(600, "periodic", program.note, "periodic", connection=connection)
            await scheduler.reschedule_later(0, "held", connection=connection)
            assert await scheduler.pause("periodic", connection=connection)
            assert await scheduler.resume("periodic", connection=connection)
            assert not await scheduler.retry("periodic", connection=connection)
            assert not await scheduler.cancel("nothing", connection=connection)
            with pytest.raises(DuplicateTaskError):
                await scheduler.schedule("id", program.note, "x", on_conflict="error", connection=connection)
            # Another connection, which does not wait for this one: nothing has happened yet.
            await anyio.sleep(0.05)
            assert program.ran == []
        with anyio.fail_after(30):
            await task.wait()
            while sorted(program.ran) != ["committed", "held"]:
                await anyio.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            async with connect(database) as connection:
                assert await scheduler.cancel("periodic", connection=connection)
                await scheduler.schedule("id", program.note, "rolled back", connection=connection)
                raise ZeroDivisionError
        assert await scheduler.holds("periodic")
        assert not await scheduler.holds("id")
        await scheduler.cancel("periodic")
    assert "rolled back" not in program.ran


async def test_a_task_that_cancels_itself_in_a_transaction_finishes(database: str) -> None:
    program = Program(database)
    async with program.scheduler as scheduler:
        await scheduler.schedule("itself", program.cancel_itself)
        with anyio.fail_after(30):
            await scheduler.join()
    assert program.ran == ["finished"]


async def test_connections_that_cannot_be_used(database: str, postgres: Any) -> None:
    program = Program(database)
    async with program.scheduler as scheduler:
        with pytest.raises(TypeError, match=r"connection must be a Connection or AsyncConnection of .*, not str: 'x'"):
            await scheduler.schedule("id", program.note, "x", connection="x")
        with psycopg.connect(database, autocommit=True) as connection:
            with pytest.raises(RuntimeError, match="commits each statement by itself: open a transaction first"):
                await scheduler.schedule("id", program.note, "x", connection=connection)
            with connection.transaction():
                await scheduler.schedule_later(600, "id", program.note, "x", connection=connection)
        engine = create_engine("sqlite://")
        with engine.connect() as other, pytest.raises(TypeError, match="over psycopg, not over Connection"):
            await scheduler.schedule("id", program.note, "x", connection=other)
        engine.dispose()
        elsewhere = postgres.new_database()  # dropped with the server
        store = PostgresStore(elsewhere, name="another")
        await to_thread.run_sync(store.open)
        with psycopg.connect(elsewhere) as connection:
            with pytest.raises(StoreError, match="the connection uses another database"):
                await scheduler.schedule("id", program.note, "x", connection=connection)
        store.close()
        assert await scheduler.cancel("id")
    other_store = DurableScheduler("test", MemoryStore())
    other_store.handler("note")(program.note)
    async with other_store:
        with pytest.raises(ValueError, match="connection= needs a store in the same database"):
            await other_store.schedule("id", program.note, "x", connection=connection)
