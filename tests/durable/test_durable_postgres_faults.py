"""A PostgreSQL server that refuses changes, or is down for a while. In real time, on all event loops."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import to_thread
from durable_support import until
from postgres_server import PostgresServer

from anysched.durable import DurableScheduler, StoreError, current_run
from anysched.durable.postgres import PostgresStore
from support import EVENT_LOOPS

pytestmark = pytest.mark.anyio

REFUSE = """
    create function refuse() returns trigger language plpgsql as 'begin raise ''the disk is full''; end';
    create trigger refusing before insert or update or delete on anysched_entry execute function refuse()
"""


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Program:
    """A scheduler whose handler keeps a journal, and ends when it may."""

    def __init__(self, database: str) -> None:
        self.journal: list[str] = []
        self.may_end = anyio.Event()
        self.scheduler = DurableScheduler("faults", PostgresStore(database))
        self.scheduler.handler("quick")(self.quick)
        self.scheduler.handler("slow")(self.slow)

    async def quick(self, text: str) -> None:
        self.journal.append(f"{text} {current_run().attempt}")

    async def slow(self, text: str) -> None:
        self.journal.append(f"{text} {current_run().attempt}")
        await self.may_end.wait()
        self.journal.append(f"{text} ended")

    async def call_in_vain(self) -> None:
        for call in (
            partial(self.scheduler.schedule, "new", self.quick, "never"),
            partial(self.scheduler.schedule, "kept", self.quick, "never", on_conflict="replace"),
            partial(self.scheduler.cancel, "kept"),
            self.scheduler.cancel_all,
            partial(self.scheduler.reschedule_later, 0, "kept"),
            partial(self.scheduler.pause, "kept"),
        ):
            with anyio.fail_after(30), pytest.raises(StoreError):
                await call()


async def test_starts_and_ends_wait_while_changes_are_refused(
    database: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anysched.faults")
    program = Program(database)
    async with program.scheduler as scheduler:
        await scheduler.schedule("slow", program.slow, "slow")
        await scheduler.schedule_later(3600, "kept", program.quick, "kept")
        for number in range(20):
            await scheduler.schedule_later(0.5, number, program.quick, str(number))
        await until(lambda: program.journal == ["slow 1"])
        postgres.execute(REFUSE, database)
        await program.call_in_vain()
        program.may_end.set()
        await anyio.sleep(0.6)
        journal = list(program.journal)
        assert journal[:2] == ["slow 1", "slow ended"]
        postgres.execute("drop trigger refusing on anysched_entry", database)
        await scheduler.reschedule_later(0, "kept")
        await scheduler.join()
        assert scheduler.role == "owner"
    assert [line for line in program.journal if line[0].isdigit()] == [f"{number} 1" for number in range(20)]
    assert sorted(line for line in program.journal if not line[0].isdigit()) == ["kept 1", "slow 1", "slow ended"]
    messages = [(record.levelname, record.message.partition(":")[0]) for record in caplog.records]
    assert messages == [
        ("ERROR", "The store cannot be written, and calls fail"),
        ("INFO", "The store can be written again."),
    ]


async def test_a_server_that_is_down_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anysched.faults")
    with PostgresServer() as server:
        program = Program(server.new_database())
        async with program.scheduler as scheduler:
            await scheduler.schedule("slow", program.slow, "slow")
            await scheduler.schedule_later(3600, "kept", program.quick, "kept")
            await scheduler.schedule_later(0.5, "due", program.quick, "due")
            await until(lambda: "slow 1" in program.journal)
            await to_thread.run_sync(server.stop)
            await program.call_in_vain()
            await anyio.sleep(0.6)
            program.may_end.set()
            await to_thread.run_sync(server.start)
            await until(lambda: {"slow 2", "slow ended"} <= set(program.journal))
            await until(lambda: any(line.startswith("due") for line in program.journal))
            await scheduler.reschedule_later(0, "kept")
            await scheduler.join()
            assert scheduler.role == "owner"
    assert program.journal.count("slow ended") == 1
    assert program.journal.count("kept 1") == 1
    assert "never" not in " ".join(program.journal)
    messages = [(record.levelname, record.message.partition(":")[0]) for record in caplog.records]
    assert messages.count(("ERROR", "Lost the ownership of the store")) == 1
    assert messages.count(("ERROR", "The store cannot be written, and calls fail")) == 1
    assert messages.count(("INFO", "The store can be written again.")) == 1
