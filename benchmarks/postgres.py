"""The durable tier compared with others that keep their tasks in PostgreSQL, on one server: ``python -m benchmarks.postgres``.

Each peer has its own database on the server and is measured in separate processes. A dash is for what a peer does not
have.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import psycopg
from anyio import to_thread

from anysched.durable import DurableScheduler
from anysched.durable.operations import Put
from anysched.durable.postgres import PostgresStore

from .durable import HOUR, lateness, measure, measure_apart, measure_schedules, parser, show
from .postgres_peers import PEERS, Anysched

__all__ = ["ROWS", "database", "main", "measure_one"]

CALLERS = (1, 16, 64)
STANDBYS = 5
IDLE = 20.0
"""For how many seconds queries are counted."""
MANY = 1_000_000

ROWS = {
    **{f"schedules-{callers}": f"schedules a second, {callers} at a time" for callers in CALLERS},
    **{f"others-{callers}": f"the same from another process, {callers} at a time" for callers in CALLERS},
    "late-p50": "from due to start, p50, ms",
    "late-p99": "from due to start, p99, ms",
    "handed-p50": "from a call in another process to start, p50, ms",
    "handed-p99": "from a call in another process to start, p99, ms",
    "starts": "starts a second, all due at once",
    "idle": "queries a second of the process that works, idle",
    "idle-standby": f"queries a second of each of {STANDBYS} more, idle",
    "many-open": f"seconds to open {MANY:,} pending tasks",
    "many-schedule": "with these, to schedule, p50, ms",
    "many-schedule-p99": "with these, to schedule, p99, ms",
    "many-cancel": "with these, to cancel, p50, ms",
    "many-cancel-p99": "with these, to cancel, p99, ms",
    "many-tasks": "with these, to list the 100 tasks with a prefix, p50, ms",
    "many-tasks-p99": "with these, to list the 100 tasks with a prefix, p99, ms",
}
"""The measurements, by the name of the figure."""


async def measure_from_another(name: str, dsn: str, scale: float) -> dict[str, float]:
    """Return how many tasks a second a peer schedules in a process that does not run them, and how soon they start."""
    peer = PEERS[name](dsn, works=False)
    late: list[float] = []
    with other_process(name, dsn, late):
        await peer.open(Path())
        figures, number = await measure_schedules(peer, scale * peer.share, CALLERS)
        for offset in range(max(int(200 * scale), 20)):
            await peer.schedule(number + offset, 0)
            await anyio.sleep(0.05)
        await anyio.sleep(10)
        await peer.close()
    late.sort()
    handed = {"handed-p50": 1e3 * late[len(late) // 2], "handed-p99": 1e3 * late[int(0.99 * len(late))]}
    return {figure.replace("schedules", "others"): value for figure, value in figures.items()} | handed


async def measure_idle(name: str, dsn: str, seconds: float) -> dict[str, float]:
    """Return how many queries a second processes make that have nothing to do."""
    with psycopg.connect(dsn, autocommit=True) as connection, ExitStack() as stack:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

        async def count() -> float:
            await anyio.sleep(3)  # what starting takes is not counted
            connection.execute("SELECT pg_stat_statements_reset()")
            await anyio.sleep(seconds)
            rows = connection.execute(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid"
                " WHERE d.datname = current_database() AND query NOT LIKE '%%pg_stat_statements%%'"
            ).fetchone()
            assert rows is not None
            return float(rows[0]) / seconds

        stack.enter_context(other_process(name, dsn))
        one = await count()
        for _ in range(STANDBYS):
            stack.enter_context(other_process(name, dsn))
        return {"idle": one, "idle-standby": (await count() - one) / STANDBYS}


async def measure_many(dsn: str, count: int) -> dict[str, float]:
    """Return how long it takes to open a store with a number of tasks, and to use it."""
    store = PostgresStore(dsn, name="bench")
    store.open()
    due = time.time_ns() // 1_000 + int(HOUR * 1e6)
    for first in range(0, count, 1_000):
        numbers = range(first, min(first + 1_000, count))
        store.commit([Put(f'["id",{n // 100},{n % 100}]', due + n, 0, "work", "[]") for n in numbers])
    store.close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")  # as autovacuum does

    peer = Anysched(dsn)
    scheduler = peer.scheduler
    start = time.perf_counter()
    async with scheduler:
        await scheduler.holds(("id", 1, 1))
        figures = {"many-open": time.perf_counter() - start}
        await anyio.sleep(2)
        for figure, use in _uses(peer, count):
            times = []
            for number in range(200):
                start = time.perf_counter()
                await use(number)
                times.append(1e3 * (time.perf_counter() - start))
            times.sort()
            figures[figure] = statistics.median(times)
            figures[f"{figure}-p99"] = times[int(0.99 * len(times))]
    return figures


def _uses(peer: Anysched, count: int) -> Iterator[tuple[str, Callable[[int], Awaitable[None]]]]:
    scheduler: DurableScheduler = peer.scheduler

    async def schedule(number: int) -> None:
        await scheduler.schedule_later(2 * HOUR, ("new", number), peer.work)

    async def cancel(number: int) -> None:
        await scheduler.cancel(("id", (number * 7919) % max(count // 100, 1), 99))

    async def list_tasks(number: int) -> None:
        assert len([task async for task in scheduler.tasks(("id", number * 31 % max(count // 100, 1)))]) >= 99

    yield "many-schedule", schedule
    yield "many-tasks", list_tasks
    yield "many-cancel", cancel


@contextmanager
def other_process(name: str, dsn: str, late: list[float] | None = None) -> Iterator[None]:
    """Run a peer in a separate process.

    Args:
        name: The peer.
        dsn: Its database.
        late: Gets, at the end, how late the tasks have started there, in seconds.
    """
    command = [sys.executable, "-m", "benchmarks.postgres", "--dsn", dsn, "--one", name, "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) != b"ready\n":  # chancy's log comes before
                if not line:
                    raise RuntimeError(f"the process of {name} has not started")
            yield
        finally:
            process.stdin.close()
            while (line := process.stdout.readline()) and not line.startswith(b"late "):
                pass
            if late is not None:
                late.extend(json.loads(line[5:]))
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


async def run(name: str, dsn: str) -> None:
    """Run a peer until the standard input is closed."""
    peer = PEERS[name](dsn)
    await peer.open(Path())
    print("ready", flush=True)
    await to_thread.run_sync(sys.stdin.read)
    print("late", json.dumps(lateness), flush=True)
    await peer.close()


def measure_one(name: str, what: str, dsn: str, scale: float) -> dict[str, float]:
    """Return some of the figures of a peer, for a benchmark of this size."""
    function: Callable[[], Awaitable[dict[str, float]]]
    if what == "figures":
        function = lambda: measure(PEERS[name](dsn), Path(), scale, CALLERS, span=12)  # noqa: E731
    elif what == "others":
        function = lambda: measure_from_another(name, dsn, scale)  # noqa: E731
    elif what == "idle":
        function = lambda: measure_idle(name, dsn, IDLE * max(scale, 0.25))  # noqa: E731
    else:
        function = lambda: measure_many(dsn, int(MANY * scale))  # noqa: E731
    return anyio.run(function)


def main(arguments: list[str] | None = None) -> int:
    """Run all measurements, or one in this process.

    Returns:
        The exit status: 1 if a measurement has failed.
    """
    known = parser("benchmarks.postgres", "the durable tier on PostgreSQL", PEERS)
    known.add_argument("--dsn", help="a server of your own, as its superuser, instead of one that is started here")
    options = known.parse_args(arguments)
    scale = 0.1 if options.quick else 1.0
    if options.one:
        name, what = options.one
        if what == "run":
            anyio.run(run, name, options.dsn)
        else:
            print(json.dumps(measure_one(name, what, options.dsn, scale)))
        return 0

    figures: dict[str, dict[str, float]] = {name: {} for name in options.peers}
    complete = True
    with ExitStack() as stack:
        dsn = options.dsn or stack.enter_context(_server())
        for name in options.peers:
            more = ["many"] if name == "anysched" else []
            for what in ("figures", "others", "idle", *more):
                with database(dsn) as own:
                    passed_on = ["--dsn", own, *["--quick"] * options.quick]
                    complete &= measure_apart("benchmarks.postgres", name, what, figures, passed_on)
    show(figures, ROWS, options.json)
    return 0 if complete else 1


@contextmanager
def _server() -> Iterator[str]:
    """Start the server of the tests, but with commits on the disk."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "durable"))
    from postgres_server import PostgresServer, reason_to_skip

    if reason := reason_to_skip():
        raise SystemExit(f"{reason}: .ci/get-servers postgresql")
    with PostgresServer(fsync="on", shared_preload_libraries="pg_stat_statements") as started:
        yield f"postgresql://postgres@127.0.0.1:{started.port}/postgres"


@contextmanager
def database(dsn: str) -> Iterator[str]:
    """Make a database for a measurement; yield how to connect to it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        connection.execute("CREATE DATABASE bench")
        yield f"{dsn.rpartition('/')[0]}/bench"
        connection.execute("DROP DATABASE bench WITH (FORCE)")


if __name__ == "__main__":
    sys.exit(main())
