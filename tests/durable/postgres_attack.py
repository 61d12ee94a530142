"""Three processes on one PostgreSQL server under attack, and what their journal must show.

``python tests/durable/postgres_attack.py 60 1 safe`` attacks for 60 seconds, with a seed, and prints the figures; with
``prompt``, owners that do not react are deposed. It needs PostgreSQL.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import psycopg
from postgres_server import PostgresServer

from anysched.durable import DurableScheduler, StoreError, current_run
from anysched.durable.postgres import PostgresStore

IDS = 8

FAILOVER_AFTER = 1.0  # processes are frozen for up to three seconds

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
CLOCKS = {"a": "+20s", "b": "-15s", "c": "+0s"}


class Journal:
    """A file to which each event is appended at once, with the time of the machine's monotonic clock."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        line = " ".join(map(str, (time.monotonic_ns(), os.getpid(), *words)))
        os.write(self.file, (line + "\n").encode())


class Victim:
    """Schedules, replaces, moves and cancels all the time under IDs of its own, and runs tasks if it is the owner."""

    def __init__(self, dsn: str, folder: Path, name: str, failover: Any) -> None:
        self.journal = Journal(folder / "journal")
        self.name = name
        self.folder = folder
        self.random = random.Random(f"{name} {time.time_ns()}")
        self.scheduler = DurableScheduler(
            "victim", PostgresStore(dsn, failover=failover, failover_after=FAILOVER_AFTER)
        )
        self.scheduler.handler("work")(self.work)

    async def work(self, task_id: str, version: int) -> None:
        run = current_run()
        words = (task_id, version, run.generation, run.attempt)
        self.journal.write("begin", *words)
        try:
            await anyio.sleep(self.random.random() * 0.1)
        except BaseException:
            self.journal.write("cancelled", *words)
            raise
        self.journal.write("end", *words)

    async def ask(self, stop: Path) -> None:
        while not stop.exists():
            task_id = f"{self.name}/{self.random.randrange(IDS)}"
            version = time.time_ns()
            verb = self.random.choice(("put", "put", "put", "move", "cancel"))
            self.journal.write("ask", verb, task_id, version)
            try:
                if verb == "put":
                    delay = self.random.choice((0, 0.05, 0.5))
                    await self.scheduler.schedule_later(
                        delay, task_id, self.work, task_id, version, on_conflict="replace"
                    )
                elif verb == "move":
                    await self.scheduler.reschedule_later(0.02, task_id)
                else:
                    await self.scheduler.cancel(task_id)
            except StoreError as error:
                self.journal.write("refused", verb, task_id, version, type(error).__name__)
                await anyio.sleep(0.1)
            else:
                self.journal.write("ok", verb, task_id, version)
            await anyio.sleep(self.random.random() * 0.05)

    async def main(self) -> None:
        while True:
            try:
                await self.scheduler.__aenter__()
            except StoreError:
                self.journal.write("not-open")
                await anyio.sleep(0.2)
                os.execv(sys.executable, [sys.executable, *sys.argv])  # a scheduler is entered once
            self.journal.write("open")
            break
        await self.ask(self.folder / "stop")
        self.journal.write("done")
        while not (self.folder / "close").exists():
            await anyio.sleep(0.05)
        await self.scheduler.close()


@dataclass
class Figures:
    """What the journal shows."""

    acknowledged: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    beside_frozen: list[str] = field(default_factory=list)
    after_cancel: list[str] = field(default_factory=list)
    again: int = 0
    gaps: list[float] = field(default_factory=list)


def examine(path: Path) -> Figures:
    """Read the journal."""
    figures = Figures()
    lines = [line.split() for line in path.read_text().splitlines()]
    lines.sort(key=lambda words: int(words[0]))
    last: dict[str, tuple[str, int]] = {}  # the last that was asked for, by ID
    acknowledged: dict[str, set[int]] = defaultdict(set)
    running: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)  # by ID: process -> generation, since
    ended: set[int] = set()
    cancelled_at: dict[str, int] = {}
    frozen: dict[int, int] = {}  # when each process was frozen last, and continued
    thawed: dict[int, int] = {}
    for now_text, process_text, word, *words in lines:
        now, process = int(now_text), int(process_text)
        if word == "ask":
            last[words[1]] = (words[0], int(words[2])) if words[0] != "move" else last.get(words[1], ("none", 0))
            if words[0] == "put":
                cancelled_at.pop(words[1], None)
        elif word == "ok":
            figures.acknowledged += 1
            if words[0] == "put":
                acknowledged[words[1]].add(int(words[2]))
            elif words[0] == "cancel":
                cancelled_at[words[1]] = now
        elif word == "refused":
            figures.refused += 1
        elif word == "begin":
            task_id, version = words[0], int(words[1])
            figures.again += int(words[3]) > 1
            others = {other: since for other, since in running[task_id].items() if other != process}
            if others:
                # Only with a prompt failover may there be any whose process was frozen since they began.
                excused = all(frozen.get(other, 0) > since for other, (_, since) in others.items())
                (figures.beside_frozen if excused else figures.twice).append(
                    f"{task_id} {version} at {now}: also in {others}"
                )
            # An owner that was frozen between the commit of a start and the start hears of it when it continues.
            since = max(cancelled_at.get(task_id, now), thawed.get(process, 0))
            if now - since > 200_000_000:
                figures.after_cancel.append(f"{task_id} {version} {(now - since) / 1e6:.0f} ms")
            running[task_id][process] = (int(words[2]), now)
        elif word in {"end", "cancelled"}:
            running[words[0]].pop(process, None)
            if word == "end":
                ended.add(int(words[1]))
        elif word == "frozen":
            frozen[int(words[0])] = now
        elif word == "thawed":
            thawed[int(words[0])] = now
        elif word == "killed":
            for entry in running.values():
                entry.pop(int(words[0]), None)
    for task_id, (verb, version) in last.items():
        if verb == "put" and version in acknowledged[task_id] and version not in ended:
            figures.lost.append(f"{task_id} {version}")
    return figures


class Attack:
    """Starts the victims and attacks them.

    Args:
        seconds: How long it takes.
        ways: The names of the methods that attack; ``clocks`` for processes with clocks that differ.
        seed: Of the random numbers.
        failover: That of the stores.
    """

    def __init__(self, seconds: float, ways: list[str], seed: int, failover: str) -> None:
        self.failover = failover
        self.seconds = seconds
        self.clocks = "clocks" in ways
        self.ways = [way for way in ways if way != "clocks"]
        self.random = random.Random(seed)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def start(self, name: str) -> None:
        command = [sys.executable, __file__, "victim", self.dsn, str(self.folder), name, self.failover]
        with (self.folder / "log").open("ab") as log:
            clock = {"LD_PRELOAD": FAKETIME, "FAKETIME": CLOCKS[name], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            environment = os.environ | (clock if self.clocks else {})
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        name, process = self.random.choice(list(self.processes.items()))
        process.kill()
        process.wait()
        self.journal.write("killed", process.pid)
        self.start(name)

    def freeze(self) -> None:
        process = self.random.choice(list(self.processes.values()))
        process.send_signal(signal.SIGSTOP)
        self.journal.write("frozen", process.pid)
        time.sleep(self.random.random() * 3)
        self.journal.write("thawed", process.pid)
        process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """End some sessions."""
        self.end_sessions("true", self.random.randint(1, 3))

    def terminate_all(self) -> None:
        """End all sessions."""
        self.end_sessions("true", 100)

    def deafen(self) -> None:
        """End the sessions that listen: notices are lost."""
        self.end_sessions("query ilike 'listen%'", 100)

    def end_sessions(self, condition: str, count: int) -> None:
        statement = f"""
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}
        """
        with suppress(psycopg.Error), psycopg.connect(self.dsn, autocommit=True) as connection:
            rows = connection.execute(statement.encode()).fetchall()
            for (process,) in self.random.sample(rows, min(len(rows), count)):
                connection.execute("SELECT pg_terminate_backend(%s)", (process,))
                self.journal.write("terminated", process)

    def restart(self) -> None:
        self.journal.write("restart")
        self.server.stop(self.random.choice((signal.SIGINT, signal.SIGQUIT)))
        time.sleep(self.random.choice((0.0, 1.0, 3.0)))
        self.server.start()

    def run(self, server: Any, folder: Path) -> Figures:
        """Attack."""
        self.server, self.folder = server, folder
        self.dsn = server.new_database()
        self.journal = Journal(folder / "journal")
        for name in ("a", "b", "c"):
            self.start(name)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(self.random.random() * 1.5)
            way = self.random.choice(self.ways)
            self.counts[way] += 1
            getattr(self, way)()
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    self.journal.write("killed", process.pid)
                    print(f"{name} ended with {process.returncode}")
                    self.counts["died"] += 1
                    self.start(name)
        time.sleep(5)
        (folder / "stop").touch()
        self.drain()
        (folder / "close").touch()
        for process in self.processes.values():
            process.wait(30)
        return examine(folder / "journal")

    def drain(self) -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            time.sleep(1)
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                row = connection.execute("SELECT count(*) FROM anysched_entry").fetchone()
            if row == (0,):
                return
        print("not empty after a minute:", row)


WAYS = ["kill", "freeze", "terminate", "terminate_all", "deafen", "restart"]


def main() -> None:
    if sys.argv[1] == "victim":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
        _, _, dsn, path, name, failover = sys.argv
        anyio.run(Victim(dsn, Path(path), name, failover).main)
        return
    seconds, seed, failover, *ways = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    with PostgresServer(fsync="on") as server:
        attack = Attack(float(seconds), ways or WAYS, int(seed), failover)
        figures = attack.run(server, folder)
    print(folder, dict(attack.counts))
    print(f"acknowledged {figures.acknowledged}, refused {figures.refused}, run again {figures.again}")
    for name in ("lost", "twice", "beside_frozen", "after_cancel"):
        found = getattr(figures, name)
        print(name, len(found), *found[:5], sep="\n  ")


if __name__ == "__main__":
    main()
