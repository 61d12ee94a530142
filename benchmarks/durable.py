"""A benchmark of the durable tier and of peers that store their tasks in SQLite: ``python -m benchmarks.durable``.

Each peer is measured in a separate process, with default settings: APScheduler 3 with its SQLAlchemy store, and DBOS
with a queue and delayed workflows. Figures that a peer does not support are shown as a dash.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from anysched.durable import DurableScheduler, SQLiteStore, current_run
from anysched.durable.operations import Put

__all__ = [
    "HOUR",
    "PEERS",
    "ROWS",
    "Durable",
    "Peer",
    "lateness",
    "main",
    "measure",
    "measure_apart",
    "measure_schedules",
    "parser",
    "ran",
    "show",
]

CALLERS = (1, 16, 256)
HOUR = 3600.0

ROWS = {
    **{f"schedules-{callers}": f"schedules a second, {callers} at a time" for callers in CALLERS},
    "late-p50": "from due to start, p50, ms",
    "late-p99": "from due to start, p99, ms",
    "starts": "starts a second, all due at once",
    "hold-up": "longest wait of another task while 50,000 overdue tasks run, ms of processor time",
    "hold-up-collector": "the same with the pauses of the garbage collector",
    "bytes": "bytes in memory for a pending ID",
    "open-100000": "seconds to open 100,000 rows",
    "open-100000-megabytes": "megabytes in memory for it",
    "open-1000000": "seconds to open 1,000,000 rows",
    "open-1000000-megabytes": "megabytes in memory for it",
}
"""The measurements, by the name of the figure."""


class Peer(Protocol):
    """A scheduler that keeps its tasks in a file.

    Attributes:
        share: How many of the tasks it is given: those that would take minutes get fewer.
    """

    share: float

    async def open(self, folder: Path) -> None:
        """Start it, with an empty store."""
        ...

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call of `ran` with the due time after a delay; return when it is stored."""
        ...

    async def close(self) -> None:
        """Stop it."""
        ...


lateness: list[float] = []
"""How late the tasks have started that have run in this process, in seconds."""


def ran(due: float) -> None:
    """Note how late a task has started; called by the peers."""
    lateness.append(time.time() - due)


class Durable:
    """This package, with any store."""

    share = 1.0
    scheduler: DurableScheduler

    def use(self, scheduler: DurableScheduler) -> DurableScheduler:
        """Register the handler with a scheduler, and return this."""
        self.scheduler = scheduler
        scheduler.handler("work")(self.work)
        return scheduler

    async def work(self) -> None:
        """Note when it started."""
        ran(current_run().due.timestamp())

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        await self.scheduler.schedule_later(delay, ("id", number), self.work)

    async def close(self) -> None:
        """Stop it."""
        await self.scheduler.__aexit__(None, None, None)


class Anysched(Durable):
    """This package, with SQLite."""

    def __init__(self, synchronous: Any) -> None:
        self.synchronous = synchronous

    def make(self, folder: Path) -> DurableScheduler:
        """Return a scheduler with its handler."""
        store = SQLiteStore(folder / "store.db", synchronous=self.synchronous)
        return self.use(DurableScheduler("bench", store))

    async def open(self, folder: Path) -> None:
        """Start it."""
        await self.make(folder).__aenter__()


class APScheduler:
    """APScheduler 3: its calls are synchronous, so each caller is a thread."""

    share = 0.05

    async def open(self, folder: Path) -> None:
        """Start it."""
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
        from apscheduler.schedulers.background import BackgroundScheduler

        store = SQLAlchemyJobStore(url=f"sqlite:///{folder / 'store.db'}")
        options = {"misfire_grace_time": None}
        self.scheduler = BackgroundScheduler(jobstores={"default": store}, job_defaults=options, timezone=UTC)
        self.scheduler.start()

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        await to_thread.run_sync(self.add, number, delay)

    def add(self, number: int, delay: float) -> None:
        """Schedule a call, in a worker thread."""
        due = datetime.now(UTC) + timedelta(seconds=delay)
        self.scheduler.add_job(ran, "date", run_date=due, args=[due.timestamp()], id=f"id{number}")

    async def close(self) -> None:
        """Stop it."""
        self.scheduler.shutdown(wait=False)


class Dbos:
    """DBOS on SQLite."""

    share = 0.05

    async def open(self, folder: Path) -> None:
        """Start it."""
        from dbos import DBOS

        @DBOS.workflow(name="work")  # type: ignore[untyped-decorator, unused-ignore]
        async def work(due: float) -> None:
            ran(due)

        self.work = work
        self.dbos: Any = DBOS
        url = f"sqlite:///{folder / 'store.db'}"
        DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
        DBOS.launch()
        self.queue: Any = await DBOS.register_queue_async("bench")

    async def schedule(self, number: int, delay: float) -> None:
        """Schedule a call."""
        from dbos import SetEnqueueOptions, SetWorkflowID

        with SetWorkflowID(f"id{number}"), SetEnqueueOptions(delay_seconds=delay):
            await self.queue.enqueue_async(self.work, time.time() + delay)

    async def close(self) -> None:
        """Stop it."""
        await to_thread.run_sync(self.dbos.destroy)


PEERS: dict[str, Callable[[], Peer]] = {
    "anysched, full": lambda: Anysched("full"),
    "anysched, normal": lambda: Anysched("normal"),
    "APScheduler 3": APScheduler,
    "DBOS": Dbos,
}


async def measure(
    peer: Peer, folder: Path, scale: float, callers: Sequence[int] | None = None, span: float = 2
) -> dict[str, float]:
    """Return the figures of a peer.

    Args:
        peer: The peer.
        folder: An empty folder.
        scale: By what to multiply the numbers of tasks.
        callers: How many callers schedule at a time; without it, `CALLERS`.
        span: The seconds in which the tasks are due whose lateness is measured. It should be longer than what a peer waits
            before it looks for them.
    """
    scale *= peer.share
    await peer.open(folder)
    figures, number = await measure_schedules(peer, scale, CALLERS if callers is None else callers)

    count = max(int(200 * scale), 20)
    lateness.clear()
    for offset in range(count):
        await peer.schedule(number + offset, 3 + span * offset / count)
    number += count
    await _wait_for(count, 30)
    late = sorted(lateness)
    figures["late-p50"] = 1e3 * late[len(late) // 2]
    figures["late-p99"] = 1e3 * late[int(0.99 * len(late))]

    count = max(int(4_000 * scale), 20)
    lateness.clear()
    due = time.time() + 8
    for offset in range(count):
        await peer.schedule(number + offset, max(due - time.time(), 1))
    await anyio.sleep(max(due - time.time(), 0))
    start = time.perf_counter()
    if await _wait_for(count, 60):
        figures["starts"] = count / (time.perf_counter() - start)
    await peer.close()
    return figures


async def measure_schedules(peer: Peer, scale: float, callers: Sequence[int]) -> tuple[dict[str, float], int]:
    """Return how many tasks a second a peer schedules, and how many it has scheduled.

    Args:
        peer: The peer, opened.
        scale: By what to multiply the numbers of tasks.
        callers: How many callers schedule at a time.
    """
    figures: dict[str, float] = {}
    number = 0
    for many in callers:
        count = max(int(scale * (1_000 if many == 1 else 5_000) / many), 2)

        async def call(first: int, count: int = count) -> None:
            for offset in range(count):
                await peer.schedule(first + offset, HOUR)

        start = time.perf_counter()
        with anyio.move_on_after(20):
            async with anyio.create_task_group() as group:
                for _ in range(many):
                    group.start_soon(call, number)
                    number += count
            figures[f"schedules-{many}"] = many * count / (time.perf_counter() - start)
    return figures, number


async def _wait_for(count: int, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        while len(lateness) < count:  # noqa: ASYNC110  # peers note it in other threads
            await anyio.sleep(0.001)
        return True
    return False


async def measure_memory(peer: Peer, folder: Path, count: int) -> dict[str, float]:
    """Return the bytes in memory for a pending ID."""
    await peer.open(folder)
    await peer.schedule(0, HOUR)
    before = _resident()
    # Some at a time, as a program would.
    for first in range(1, count, 100):

        async def call(number: int) -> None:
            await peer.schedule(number, HOUR)

        async with anyio.create_task_group() as group:
            for offset in range(100):
                group.start_soon(call, first + offset)
    figures = {"bytes": (_resident() - before) / count}
    await peer.close()
    return figures


async def measure_opening(folder: Path, count: int) -> dict[str, float]:
    """Return how long it takes to open a file with a number of tasks, and how much memory this takes."""
    _fill(folder, count, HOUR)
    peer = Anysched("normal")
    scheduler = peer.make(folder)
    before = _resident()
    start = time.perf_counter()
    async with scheduler:
        await scheduler.holds(("id", 1))
        seconds = time.perf_counter() - start
        await anyio.sleep(1)  # what it loads after that is counted
        megabytes = (_resident() - before) / 1e6
    return {f"open-{count}": seconds, f"open-{count}-megabytes": megabytes}


async def measure_hold_up(folder: Path, count: int) -> dict[str, float]:
    """Return the longest wait of another task while overdue tasks run, with and without the garbage collector."""
    figures: dict[str, float] = {}
    for figure, collects in (("hold-up", False), ("hold-up-collector", True)):
        path = folder / figure
        path.mkdir()
        _fill(path, count, -HOUR)
        peer = Anysched("normal")
        scheduler = peer.make(path)
        waits: list[float] = []

        async def tick(waits: list[float] = waits) -> None:
            while True:
                start = time.thread_time()  # what other processes do does not count
                await checkpoint()
                waits.append(time.thread_time() - start)

        gc.collect()
        gc.freeze()
        if not collects:
            gc.disable()
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            async with scheduler:
                await scheduler.join()
            group.cancel_scope.cancel()
        gc.enable()
        figures[figure] = max(waits) * 1e3
    return figures


def _fill(folder: Path, count: int, delay: float) -> None:
    """Make a file with tasks, a microsecond apart."""
    store = SQLiteStore(folder / "store.db", synchronous="normal")
    due = time.time_ns() // 1_000 + int(delay * 1e6)
    store.open()
    for first in range(0, count, 10_000):
        numbers = range(first, min(first + 10_000, count))
        store.commit([Put(f'["id",{number}]', due + number, 0, "work", "[]") for number in numbers])
    store.close()


def _resident() -> int:
    gc.collect()
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _run_one(name: str, what: str, scale: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        function: Callable[[], Awaitable[dict[str, float]]]
        if what == "figures":
            function = lambda: measure(PEERS[name](), Path(folder), scale)  # noqa: E731
        elif what == "memory":
            count = 20_000 if name.startswith("anysched") else 2_000
            function = lambda: measure_memory(PEERS[name](), Path(folder), int(count * scale))  # noqa: E731
        elif what == "hold-up":
            function = lambda: measure_hold_up(Path(folder), int(50_000 * scale))  # noqa: E731
        else:
            function = lambda: measure_opening(Path(folder), int(what))  # noqa: E731
        return anyio.run(function)


def main(arguments: list[str] | None = None) -> int:
    """Run all measurements, or one in this process.

    Returns:
        The exit status: 1 if a measurement has failed.
    """
    options = parser("benchmarks.durable", "the durable tier and its peers", PEERS).parse_args(arguments)
    scale = 0.1 if options.quick else 1.0
    if options.one:
        name, what = options.one
        print(json.dumps(_run_one(name, what, scale)))
        return 0

    figures: dict[str, dict[str, float]] = {name: {} for name in options.peers}
    complete = True
    for name in options.peers:
        more = ["hold-up", "100000", "1000000"] if name == "anysched, normal" and not options.quick else []
        for what in ("figures", "memory", *more):
            complete &= measure_apart("benchmarks.durable", name, what, figures, ["--quick"] * options.quick)
    show(figures, ROWS, options.json)
    return 0 if complete else 1


def parser(module: str, description: str, peers: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of the options that the benchmarks of the durable tier share."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    made.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    made.add_argument("--json", type=Path, metavar="FILE", help="store the figures")
    made.add_argument("--peers", nargs="+", choices=peers, default=list(peers), help="some of the peers")
    made.add_argument("--one", nargs=2, metavar=("PEER", "WHAT"), help="measure one thing, and print it as JSON")
    return made


def measure_apart(
    module: str, name: str, what: str, figures: dict[str, dict[str, float]], options: Sequence[str]
) -> bool:
    """Measure one thing in a separate process, and add the figures; return whether that was possible."""
    command = [sys.executable, "-m", module, "--one", name, what, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        print(f"{name}, {what}: {result.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return False
    figures[name].update(json.loads(result.stdout.splitlines()[-1]))
    return True


def show(figures: dict[str, dict[str, float]], rows: Mapping[str, str], file: Path | None) -> None:
    """Print the figures as a table, and store them in a file, if there is one."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *figures)
    for row, title in rows.items():
        table.add_row(title, *(f"{each[row]:,.4g}" if row in each else "–" for each in figures.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
