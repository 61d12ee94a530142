"""Enumerated crash points: a program dies before and after each of its commits and starts again.

A store dies like a process: what it has committed is there, and nothing more happens. What the program had acknowledged
by then must be kept, whatever the moment.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from anysched.durable import DurableScheduler, MemoryStore, SQLiteStore, Store, current_run
from anysched.durable.operations import Operation
from anysched.durable.postgres import PostgresStore
from anysched.testing import VirtualClock

Moment = Literal["before", "after", "never"]


class DeathError(Exception):
    """The process has died."""


class MortalStore:
    """A store that fails at its n-th commit: before it, or after it and before reporting it."""

    def __init__(self, store: Store, at: int, moment: Moment) -> None:
        self.store = store
        self.at = at
        self.moment = moment
        self.commits = 0
        self.dead = False

    def open(self) -> None:
        self.store.open()

    def commit(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self.commits += 1
        if self.dead or (self.commits == self.at and self.moment == "before"):
            self.dead = True
            raise DeathError
        results = self.store.commit(operations)
        if self.commits == self.at and self.moment == "after":
            self.dead = True
            raise DeathError
        return results

    def close(self) -> None:
        self.store.close()


class Life:
    """A program over several lives of its process, and the known facts about each version of each task."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.version = 0
        self.problems: list[str] = []
        self.acknowledged: set[int] = set()
        self.displaced: set[int] = set()  # by a call that was begun: it may or may not have happened
        self.gone: set[int] = set()  # must no longer begin
        self.left: set[int] = set()  # had perhaps begun when they were followed
        self.ended: set[int] = set()
        self.stored_end: set[int] = set()
        self.keys: dict[int, tuple[int, str]] = {}
        self.running: dict[str, int] = {}
        self.versions: dict[str, list[int]] = defaultdict(list)

    def make(self, store: Store) -> DurableScheduler:
        self.running.clear()
        self.scheduler = scheduler = DurableScheduler("test", store, max_running=3)
        scheduler.handler("work")(self.work)
        return scheduler

    async def work(self, task_id: str, version: int, duration: float) -> None:
        run = current_run()
        if task_id in self.running:
            self.problems.append(f"{task_id} runs twice at once: {self.running[task_id]} and {version}")
        if version in self.gone:
            self.problems.append(f"{task_id} {version} began after it was cancelled or replaced")
        if version in self.stored_end:
            self.problems.append(f"{task_id} {version} began after its end was stored")
        attempt, key = self.keys.get(version, (0, run.key))
        if run.attempt <= attempt or run.key != key:
            self.problems.append(f"{task_id} {version}: attempt {run.attempt} {run.key} after {attempt} {key}")
        self.keys[version] = run.attempt, key
        self.running[task_id] = version
        try:
            await anyio.sleep(duration)
            self.ended.add(version)
        finally:
            del self.running[task_id]

    async def drive(self, task_id: str, steps: int) -> None:
        """Call the methods for one ID."""
        chance = random.Random(f"{self.seed} {task_id}")
        scheduler = self.scheduler
        for _ in range(steps):
            former = [version for version in self.versions[task_id] if version not in self.gone | self.left]
            verb = chance.choice(["replace", "replace", "follow", "keep", "cancel", "move", "pause", "wait"])
            if verb in ("replace", "follow", "keep"):
                self.version += 1
                version = self.version
                if verb != "keep":
                    self.displaced.update(former)
                policy: Any = verb
                delay, duration = chance.choice([0, 0, 3, 10, 100]), chance.choice([0, 1, 8])
                task = await scheduler.schedule_later(
                    delay, task_id, self.work, task_id, version, duration, on_conflict=policy
                )
                if task.args[1] == version:
                    self.versions[task_id].append(version)
                    self.acknowledged.add(version)
                if verb == "replace":
                    self.gone.update(former)
                elif verb == "follow":
                    # The ones that had begun are left to finish, even after a crash.
                    self.left.update(former)
            elif verb == "cancel":
                self.displaced.update(former)
                await scheduler.cancel(task_id)
                self.gone.update(former)
            elif verb == "move":
                await scheduler.reschedule_later(chance.choice([0, 5]), task_id)
            elif verb == "pause":
                await scheduler.pause(task_id)
                await anyio.sleep(1)
                await scheduler.resume(task_id)
            else:
                found = await scheduler.get(task_id)
                if found is not None:
                    with anyio.move_on_after(20):
                        await found.wait()
                        self.stored_end.add(found.args[1])
            await anyio.sleep(chance.choice([0, 0.5, 2]))

    async def live(self, store: Store, steps: int) -> None:
        async with self.make(store), anyio.create_task_group() as group:
            for task_id in "abc":
                group.start_soon(self.drive, task_id, steps)

    async def drain(self, store: Store) -> None:
        async with self.make(store) as scheduler:
            async for task in scheduler.tasks():
                await scheduler.resume(task.task_id)
            await scheduler.join()

    def check(self) -> None:
        lost = self.acknowledged - self.displaced - self.ended
        if lost:
            self.problems.append(f"acknowledged and lost: {sorted(lost)}")
        assert not self.problems, (self.seed, self.problems)


def run(backend: Any, life: Life, program: Any, *args: Any) -> None:
    # Shuffled, so that no test relies on an order that is not guaranteed.
    name, options = VirtualClock(seed=life.seed).backend(backend)
    anyio.run(program, *args, backend=name, backend_options=options)


def crash(life: Life, backend: str, mortal: MortalStore, steps: int) -> bool:
    """Run a program until its store dies; return whether it has."""
    try:
        run(backend, life, life.live, mortal, steps)
    except* DeathError:
        pass
    return mortal.dead


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("kind", "seeds", "steps"), [("memory", 5, 10), ("sqlite", 1, 6), ("postgres", 1, 4)])
def test_nothing_acknowledged_is_lost_at_any_commit(
    backend: str,
    kind: str,
    seeds: int,
    steps: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Any,
) -> None:
    def make(name: str) -> Store:
        if kind == "postgres":
            return PostgresStore(request.getfixturevalue("database"), name=name)
        return MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / f"{name}.db", synchronous="normal")

    crashes = 0
    for seed in range(seeds):
        moment: Moment
        for moment in ("before", "after"):
            # The first commit is that of the opening.
            at = 1
            while True:
                at += 1
                life = Life(seed)
                store = make(f"{seed}-{moment}-{at}")
                if not crash(life, backend, MortalStore(store, at, moment), steps):
                    break
                # It is killed a second time while it restarts, and then runs to the end.
                mortal = MortalStore(store, 1 + at % 4, "after")
                try:
                    run(backend, life, life.drain, mortal)
                except* DeathError:
                    pass
                run(backend, life, life.drain, store)
                life.check()
                crashes += 2
            run(backend, life, life.drain, store)
            life.check()
    record_property("crashes", crashes)
    assert crashes > 50
