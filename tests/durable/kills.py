"""A program that is killed by SIGKILL at random moments, and what its journal must show.

``python tests/durable/kills.py 300`` kills it 300 times, in turn on asyncio and on trio, and prints the figures.
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
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from anysched.durable import DurableScheduler, SQLiteStore, Store, current_run
from anysched.durable.operations import End, Operation


class Journal:
    """A file to which each event is appended at once, so that it survives the process.

    Each line has the process, the time (of the monotonic clock, which all processes share), the event, and its words.
    """

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.process = os.getpid()

    def write(self, *words: object, process: int | None = None) -> None:
        line = (process or self.process, f"{time.monotonic():.6f}", *words)
        os.write(self.file, (" ".join(map(str, line)) + "\n").encode())


class JournaledStore:
    """An SQLite store that records which tasks have ended, after the commit."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.store = SQLiteStore(path, synchronous="normal")  # the process is killed, not the system
        self.journal = journal

    def open(self) -> None:
        self.store.open()

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        results = self.store.commit(operations)
        for operation in operations:
            if isinstance(operation, End):
                self.journal.write("gone", operation.generation)
        return results

    def close(self) -> None:
        self.store.close()


class Victim:
    """The program. It constantly schedules, replaces and cancels tasks, and records its calls and their results."""

    def __init__(self, journal: Journal, store: Store, seed: str, *, hot: str = "hot") -> None:
        self.journal = journal
        self.random = random.Random(seed)
        self.hot = hot
        self.scheduler = scheduler = DurableScheduler("victim", store)
        scheduler.handler("work")(self.work)
        self.version = time.time_ns()

    async def work(self, task_id: str, version: int) -> None:
        run = current_run()
        words = (task_id, version, run.generation, run.attempt, run.key)
        self.journal.write("begin", *words)
        try:
            # Some runs take long, so that others can overlap with them, and they are interrupted.
            await anyio.sleep(self.random.random() * self.random.choice([0.03, 0.03, 0.03, 0.3]))
        except BaseException:
            self.journal.write("cancelled", *words)
            raise
        self.journal.write("end", *words)

    def next_version(self) -> int:
        self.version += 1
        return self.version

    async def schedule_new_ids(self) -> None:
        while True:
            version = self.next_version()
            task_id = f"new{version}"
            self.journal.write("try", task_id, version, "keep")
            await self.scheduler.schedule_later(self.random.random() * 0.4, task_id, self.work, task_id, version)
            self.journal.write("acknowledged", task_id, version, "keep")
            await anyio.sleep(self.random.random() * 0.01)

    async def fight_for_an_id(self, task_id: str) -> None:
        while True:
            version = self.next_version()
            verb: Any = self.random.choice(["keep", "replace", "replace", "follow", "cancel", "move"])
            if verb == "move":
                await self.scheduler.reschedule_later(self.random.random() * 0.1, task_id)
            else:
                self.journal.write("try", task_id, version, verb)
                if verb == "cancel":
                    await self.scheduler.cancel(task_id)
                    self.journal.write("acknowledged", task_id, version, "cancel")
                else:
                    delay = self.random.choice([0, 0, 0.02, 0.2, 3])
                    task = await self.scheduler.schedule_later(
                        delay, task_id, self.work, task_id, version, on_conflict=verb
                    )
                    kept = task.args[1] != version
                    self.journal.write("acknowledged", task_id, version, "kept" if kept else verb)
            await anyio.sleep(self.random.random() * 0.03)

    async def live(self) -> None:
        async with self.scheduler, anyio.create_task_group() as group:
            self.journal.write("open")
            for _ in range(4):
                group.start_soon(self.schedule_new_ids)
            for number in range(12):
                group.start_soon(self.fight_for_an_id, f"{self.hot}{number}")

    async def drain(self) -> None:
        async with self.scheduler:
            # Those that were interrupted five times.
            async for task in self.scheduler.tasks(status="parked"):
                await self.scheduler.retry(task.task_id)
            await self.scheduler.join()


@dataclass
class Figures:
    """The contents of a journal."""

    kills: int
    acknowledged: int = 0
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    run_again: int = 0
    ended_again: int = 0
    unstored: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: acknowledged {self.acknowledged}, lost {len(self.lost)}, runs {self.runs}, "
            f"twice at once or after the end or after cancel {len(self.violations)}, run again {self.run_again}, "
            f"of these had ended before {self.ended_again}, at most {self.unstored:.3f} s before the last sign of life"
        )


def examine(lines: list[str], kills: int) -> Figures:
    """Check a journal.

    Its lines are in the order in which they were written, by whichever process. A run that begins while another process
    has a run of the same ID is suspect, and a violation if that process then writes anything: it was alive. What kills a process writes a line for
    it before.
    """
    figures = Figures(kills)
    versions: dict[str, set[int]] = defaultdict(set)  # by ID: those that may exist and are not left to finish
    kept: set[int] = set()
    acknowledged: dict[int, str] = {}
    may_be_displaced: set[int] = set()
    dead: dict[int, tuple[str, int]] = {}  # by whom, and in which line
    claims: dict[tuple[str, str], int] = {}  # by process and generation
    gone: set[str] = set()
    killed: set[str] = set()
    running: dict[str, dict[str, str]] = defaultdict(dict)  # by process and ID
    suspects: dict[str, list[str]] = defaultdict(list)  # by the process that may be dead
    last_end: dict[int, tuple[str, float]] = {}
    last_sign: dict[str, float] = {}
    began: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    keys: dict[int, tuple[int, str]] = {}
    before: dict[int, set[int]] = {}
    for number, line in enumerate(lines):
        process, moment, event, *words = line.split()
        last_sign[process] = float(moment)
        figures.violations += suspects.pop(process, [])
        if event == "try":
            task_id, version, verb = words[0], int(words[1]), words[2]
            before[version] = set(versions[task_id])
            if verb in ("replace", "cancel", "follow"):
                may_be_displaced |= before[version]
            if verb == "follow":
                versions[task_id].clear()  # what had begun is left to finish, also after a kill
            if verb != "cancel":
                versions[task_id].add(version)
        elif event == "acknowledged":
            task_id, version, verb = words[0], int(words[1]), words[2]
            if verb in ("replace", "cancel"):
                dead |= dict.fromkeys(before[version] - dead.keys(), (process, number))
                versions[task_id] -= before[version]
            if verb == "kept":
                kept.add(version)
            elif verb != "cancel":
                acknowledged[version] = task_id
        elif event == "begin":
            task_id, version, generation, attempt, key = words[0], int(words[1]), words[2], int(words[3]), words[4]
            figures.runs += 1
            if task_id in running[process]:
                figures.violations.append(f"twice at once: {line} next to {running[process][task_id]}")
            for other, runs in running.items():
                if other != process and task_id in runs:
                    suspects[other].append(f"twice at once in two processes: {line} next to {runs[task_id]}")
            if generation in gone:
                figures.violations.append(f"run after its end was stored: {line}")
            # Another process may have cancelled it when its start was being stored: the run is then cancelled.
            killer, since = dead.get(version, (process, math.inf))
            claimed = number if killer == process else claims.get((process, generation), number)
            if claimed > since:
                figures.violations.append(f"run after cancel or replace returned: {line}")
            known_attempt, known_key = keys.get(version, (0, key))
            if key != known_key or attempt <= known_attempt:
                figures.violations.append(f"another key, or no new attempt: {line}")
            keys[version] = attempt, key
            running[process][task_id] = line
            began[version] += 1
            if version in last_end:
                former, time_of_end = last_end[version]
                figures.unstored = max(figures.unstored, last_sign[former] - time_of_end)
        elif event in ("end", "cancelled"):
            task_id, version = words[0], int(words[1])
            running[process].pop(task_id, None)
            ended[version] += event == "end"
            if event == "end":
                last_end[version] = process, float(moment)
        elif event == "killed":
            killed.add(process)
        elif event == "open" and process in killed:
            killed.remove(process)
            running.pop(process, None)  # it is another process, to which the system gave the same number
        elif event == "claim":
            claims[process, words[0]] = number
        elif event == "gone":
            gone.add(words[0])
    figures.acknowledged = len(acknowledged)
    figures.lost = [
        f"{task_id} {version}"
        for version, task_id in acknowledged.items()
        if not ended[version] and version not in may_be_displaced
    ]
    figures.run_again = sum(count > 1 for count in began.values())
    figures.ended_again = sum(count > 1 for count in ended.values())
    return figures


def kill_many(folder: Path, kills: int, seed: int) -> Figures:
    """Kill a program a number of times, let it finish, and check its journal."""
    chance = random.Random(seed)
    journal = folder / "journal"

    def start(what: str, number: int) -> subprocess.Popen[bytes]:
        backend = ("asyncio", "trio")[number % 2]
        command = [sys.executable, __file__, what, str(folder), backend, f"{seed} {number}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        return subprocess.Popen(command, env=environment)

    def is_open(process: int) -> bool:
        return journal.exists() and any(
            line.startswith(f"{process} ") and line.endswith(" open")
            for line in journal.read_text()[-50_000:].splitlines()
        )

    for number in range(kills):
        victim = start("live", number)
        # One in ten is killed at any time of its start. The others are killed at work, however slowly they have
        # started.
        at_work = chance.random() > 0.1
        while at_work and not is_open(victim.pid):
            time.sleep(0.02)
            assert victim.poll() is None
        time.sleep(chance.random() * 0.4)
        assert victim.poll() is None
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert start("drain", 0).wait(120) == 0
    return examine(journal.read_text().splitlines(), kills)


def main(arguments: list[str]) -> None:
    if arguments[0] in ("live", "drain"):
        what, folder, backend, seed = arguments
        logging.getLogger("anysched").setLevel(logging.ERROR)
        journal = Journal(Path(folder) / "journal")
        victim = Victim(journal, JournaledStore(Path(folder) / "store.db", journal), seed)
        anyio.run(victim.live if what == "live" else victim.drain, backend=backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = kill_many(Path(folder), int(arguments[0]), time.time_ns())
    print(figures)
    for problem in (*figures.violations, *figures.lost):
        print(problem)
    if figures.violations or figures.lost:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
