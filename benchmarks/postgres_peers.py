"""What `benchmarks.postgres` measures: this package and others that keep their tasks in PostgreSQL, each with default settings."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread

from anysched.durable import DurableScheduler
from anysched.durable.postgres import PostgresStore

from .durable import Durable, Peer, ran

__all__ = ["PEERS", "Anysched", "chancy_work"]

CONCURRENCY = 100
"""How many tasks the workers of others may run at once: their own figure is often 1."""


class Anysched(Durable):
    """This package."""

    def __init__(self, dsn: str, *, works: bool = True) -> None:
        self.use(DurableScheduler("bench", PostgresStore(dsn), participate="run" if works else "verbs"))

    async def open(self, folder: Path | None = None) -> None:
        """Start it."""
        await self.scheduler.__aenter__()


class Procrastinate:
    """Procrastinate: two locks are the nearest that it has to an ID."""

    share = 0.25

    def __init__(self, dsn: str, *, works: bool = True) -> None:
        import procrastinate

        self.works = works
        self.app: Any = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
        self.worker: asyncio.Task[None] | None = None

        @self.app.task(name="work")  # type: ignore[untyped-decorator, unused-ignore]
        async def work(due: float) -> None:
            ran(due)

        self.work: Any = work

    async def open(self, folder: Path | None = None) -> None:
        """Start it."""
        await self.app.open_async()
        if not await self.app.check_connection_async():
            await self.app.schema_manager.apply_schema_async()
        if self.works:
            worker = self.app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
            self.worker = asyncio.create_task(worker)

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        due = datetime.now(UTC) + timedelta(seconds=delay)
        await self.work.configure(schedule_at=due, queueing_lock=f"id{number}", lock=f"id{number}").defer_async(
            due=due.timestamp()
        )

    async def close(self) -> None:
        """Stop it."""
        if self.worker is not None:
            self.worker.cancel()
            await asyncio.wait([self.worker])
        await self.app.close_async()


async def chancy_work(*, due: float) -> None:
    """Note when it started; chancy finds it by its name."""
    ran(due)


class Chancy:
    """chancy, with jobs that run in the event loop."""

    share = 0.25

    def __init__(self, dsn: str, *, works: bool = True) -> None:
        from chancy import Chancy

        self.works = works
        self.chancy: Any = Chancy(dsn)
        self.stack = AsyncExitStack()

    async def open(self, folder: Path | None = None) -> None:
        """Start it."""
        from chancy import Job, Queue, Worker

        self.job: Any = Job.from_func(chancy_work)
        await self.stack.enter_async_context(self.chancy)
        await self.chancy.migrate()
        executor = "chancy.executors.asyncex.AsyncExecutor"
        await self.chancy.declare(Queue("default", concurrency=CONCURRENCY, executor=executor))
        if self.works:
            await self.stack.enter_async_context(Worker(self.chancy, register_signal_handlers=False))

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        due = datetime.now(UTC) + timedelta(seconds=delay)
        job = self.job.with_scheduled_at(due).with_unique_key(f"id{number}").with_kwargs(due=due.timestamp())
        await self.chancy.push(job)

    async def close(self) -> None:
        """Stop it."""
        await self.stack.aclose()


class Dbos:
    """DBOS: a workflow with its own ID, in a queue, with a delay."""

    share = 0.1

    def __init__(self, dsn: str, *, works: bool = True) -> None:
        from dbos import DBOS

        @DBOS.workflow(name="work")  # type: ignore[untyped-decorator, unused-ignore]
        async def work(due: float) -> None:
            ran(due)

        self.dsn = dsn
        self.works = works
        self.work = work
        self.dbos: Any = DBOS
        self.client: Any = None

    async def open(self, folder: Path | None = None) -> None:
        """Start it."""
        from dbos import DBOSClient

        if self.works:
            self.dbos(config={"name": "bench", "system_database_url": self.dsn, "log_level": "ERROR"})
            await to_thread.run_sync(self.dbos.launch)
            self.queue: Any = await self.dbos.register_queue_async("bench")
        else:
            self.client = DBOSClient(system_database_url=self.dsn)

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        from dbos import SetEnqueueOptions, SetWorkflowID

        due = time.time() + delay
        if self.client is not None:
            options = {"queue_name": "bench", "workflow_name": "work", "workflow_id": f"id{number}"}
            await self.client.enqueue_async({**options, **({"delay_seconds": delay} if delay else {})}, due)
            return
        with SetWorkflowID(f"id{number}"), SetEnqueueOptions(delay_seconds=delay):
            await self.queue.enqueue_async(self.work, due)

    async def close(self) -> None:
        """Stop it."""
        await to_thread.run_sync(self.dbos.destroy if self.client is None else self.client.destroy)


class MakePeer(Protocol):
    """Makes a peer; ``works=False`` makes one that schedules only."""

    def __call__(self, dsn: str, *, works: bool = True) -> Peer:
        """Make it."""
        ...


PEERS: dict[str, MakePeer] = {
    "anysched": Anysched,
    "Procrastinate": Procrastinate,
    "chancy": Chancy,
    "DBOS": Dbos,
}
