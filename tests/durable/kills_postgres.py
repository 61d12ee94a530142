"""Three processes with one store in PostgreSQL. The owner is killed repeatedly, and the server is restarted.

``python kills_postgres.py 300`` kills 300 owners and prints the figures.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import anyio
from kills import Figures, Journal, Victim, examine
from postgres_server import PostgresServer

from anysched.durable import StoreError
from anysched.durable.operations import Claim, End, Operation
from anysched.durable.postgres import PostgresStore
from anysched.durable.shared import News


class JournaledPostgresStore:
    """A PostgreSQL store that writes down which tasks start, before the commit, and which have ended, after it."""

    def __init__(self, database: str, journal: Journal) -> None:
        self.store = PostgresStore(database)
        self.journal = journal

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        for operation in operations:
            if isinstance(operation, Claim):
                self.journal.write("claim", operation.generation)
        results = self.store.commit(operations)
        for operation in operations:
            if isinstance(operation, End):
                self.journal.write("gone", operation.generation)
        return results

    @property
    def failover_after(self) -> float | None:
        return self.store.failover_after

    def depose(self) -> bool:
        return self.store.depose()

    def open(self) -> None:
        self.store.open()

    def join(self, scheduler: str) -> None:
        self.store.join(scheduler)

    def contend(self) -> bool:
        return self.store.contend()

    def acquire(self) -> bool:
        return self.store.acquire()

    def check(self) -> None:
        self.store.check()

    def resign(self) -> None:
        self.store.resign()

    def ownership_socket(self) -> socket:
        return self.store.ownership_socket()

    def listen(self) -> None:
        self.store.listen()

    def receive(self) -> News:
        return self.store.receive()

    def news_socket(self) -> socket:
        return self.store.news_socket()

    def close(self) -> None:
        self.store.close()


class Process(Victim):
    """One of the processes: it records when it becomes the owner, and continues when the store fails."""

    async def schedule_new_ids(self) -> None:
        await self.persist(super().schedule_new_ids)

    async def fight_for_an_id(self, task_id: str) -> None:
        await self.persist(super().fight_for_an_id, task_id)

    async def persist(self, function: Any, *args: Any) -> None:
        while True:
            try:
                await function(*args)
            except StoreError:
                await anyio.sleep(0.05)

    async def note_role(self) -> None:
        role = "new"
        while True:
            if self.scheduler.role != role:
                role = self.scheduler.role
                self.journal.write("role", role)
            await anyio.sleep(0.002)

    async def live(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.note_role)
            await super().live()


@dataclass
class Takeovers:
    """How long it took until another process was the owner, in seconds, sorted."""

    seconds: list[float]

    def __str__(self) -> str:
        def at(part: float) -> str:
            return f"{self.seconds[min(math.floor(len(self.seconds) * part), len(self.seconds) - 1)]:.3f}"

        return f"take-over after {len(self.seconds)} kills: p50 {at(0.5)} s, p99 {at(0.99)} s, max {at(1)} s"


def kill_owners(folder: Path, kills: int, seed: int, *, restarts: bool = True) -> tuple[Figures, Takeovers]:
    """Kill the owner repeatedly, with a restart of the server every tenth time. Then let all tasks end, and check the journal."""
    chance = random.Random(seed)
    journal = folder / "journal"
    ours = Journal(journal)
    seconds: list[float] = []
    processes: dict[int, tuple[subprocess.Popen[bytes], str]] = {}
    read = 0
    owner: int | None = None
    opened: set[int] = set()
    gained = 0.0

    def start(what: str, number: int, hot: str) -> subprocess.Popen[bytes]:
        backend = ("asyncio", "trio")[number % 2]
        command = [sys.executable, __file__, what, str(folder), backend, f"{seed} {number}", hot, database]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        process = subprocess.Popen(command, env=environment)
        processes[process.pid] = process, hot
        return process

    def read_journal() -> None:
        nonlocal read, owner, gained
        with journal.open() as file:
            file.seek(read)
            text = file.read()
        text = text[: text.rfind("\n") + 1]
        read += len(text)
        for line in text.splitlines():
            process, moment, event, *words = line.split()
            if event == "open":
                opened.add(int(process))
            elif event == "role" and words[0] == "owner":
                owner, gained = int(process), float(moment)

    def wait_until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, what
            assert all(process.poll() is None for process, _ in processes.values())
            time.sleep(0.005)
            read_journal()

    def wait_for_owner(former: int | None) -> None:
        nonlocal owner
        owner = former
        wait_until(lambda: owner != former and owner in processes, "there is no owner")

    with PostgresServer() as server:
        database = server.new_database()
        for number in range(3):
            start("live", number, f"hot{number}-")
        wait_for_owner(None)
        for number in range(kills):
            restart = restarts and number % 10 == 9
            # Mostly there are processes that stand by; sometimes they are only starting. A start needs the server.
            if restart or chance.random() < 0.8:
                wait_until(lambda: processes.keys() <= opened, "a process does not open the store")
            time.sleep(chance.random() * 0.5)
            if restart:
                server.stop(chance.choice([signal.SIGINT, signal.SIGQUIT]))
                server.start()
                wait_for_owner(None)
            assert owner is not None
            victim, hot = processes.pop(owner)
            assert victim.poll() is None
            killed = time.monotonic()
            ours.write("killed", process=victim.pid)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            start("live", 3 + number, hot)
            wait_for_owner(owner)
            seconds.append(gained - killed)
        for process, _ in processes.values():
            ours.write("killed", process=process.pid)
            process.kill()
            process.wait()
        assert start("drain", 0, "hot").wait(240) == 0
    return examine(journal.read_text().splitlines(), kills), Takeovers(sorted(seconds))


def main(arguments: list[str]) -> None:
    if arguments[0] in ("live", "drain"):
        what, folder, backend, seed, hot, database = arguments
        logging.getLogger("anysched").setLevel(logging.CRITICAL)
        journal = Journal(Path(folder) / "journal")
        process = Process(journal, JournaledPostgresStore(database, journal), seed, hot=hot)
        anyio.run(process.live if what == "live" else process.drain, backend=backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures, takeovers = kill_owners(Path(folder), int(arguments[0]), time.time_ns())
    print(figures, takeovers, sep="\n")
    for problem in (*figures.violations, *figures.lost):
        print(problem)
    if figures.violations or figures.lost:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
