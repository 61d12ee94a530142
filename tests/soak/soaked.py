"""A random load whose memory must not grow: ``python soaked.py BACKEND SECONDS SEED``.

Everything that users can do with a scheduler is done at random, by a few hundred tasks at once. Samples of the memory are
taken in between, and compared at the end; the figures are printed as a line of JSON.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import anyio
from anyio.abc import TaskGroup

from anysched import ScheduledTask, Scheduler
from anysched.abc import Instrument, StartedRun

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
SAMPLES = 40
IDS = 300
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the memory of the process, in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE


class Counting(Instrument):
    """Counts the runs."""

    def __init__(self) -> None:
        self.runs = 0

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        self.runs += 1


class Soak:
    """The load and its measurements."""

    def __init__(self, seconds: float, random: Random) -> None:
        self.seconds = seconds
        self.random = random
        self.counting = Counting()
        self.root = Scheduler("soak", instruments=[self.counting])
        self.children = [self.root.child("limited", max_running=20), self.root.child("free")]
        self.children.append(self.children[1].child("grandchild", max_running=3))
        self.serial = 0
        self.calls = 0
        self.samples: list[tuple[int, int]] = []
        self.most_held = 0

    # What tasks do

    async def work(self, depth: int = 0) -> bytes:
        random = self.random
        data = bytes(random.choice([10, 1_000, 50_000]))
        match random.randrange(8):
            case 0:
                raise ValueError(data)
            case 1 if depth < 3:
                self.schedule(random.choice(self.children), depth + 1)
            case 2:
                task = self.any_task()
                if task is not None:
                    with anyio.move_on_after(0.01):
                        try:
                            await task.wait()
                        except RuntimeError:
                            return data  # it would wait for itself
            case 3:
                try:
                    await anyio.sleep(random.random() / 10)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.001)
            case 4:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, random.random() / 50)
                    if depth < 3:
                        self.schedule(self.root, depth + 1)
            case 5:
                scheduler = random.choice(self.children)
                scheduler.cancel(random.randrange(IDS))
            case _:
                await anyio.sleep(random.choice([0, 0.001, 0.05]))
        return data

    def any_task(self) -> ScheduledTask[Any] | None:
        """Return the first task of one of the schedulers."""
        return next(iter(self.random.choice(self.children).tasks.values()), None)

    # The calls

    def schedule(self, scheduler: Scheduler, depth: int = 0) -> None:
        random = self.random
        self.serial += 1
        task_id: Any = random.choice([random.randrange(IDS), f"number {self.serial}"])
        policy: Any = random.choice(["keep", "replace", "follow"])
        delay = random.choice([0, 0.01, random.random(), 3 * random.random()])
        now = datetime.now(UTC)
        match random.randrange(7):
            case 0:
                scheduler.schedule(task_id, self.work(depth), on_conflict=policy)
            case 1 | 2 | 3:
                scheduler.schedule_later(delay, task_id, self.work, depth, on_conflict=policy)
            case 4:
                scheduler.schedule_at(now + timedelta(seconds=delay), task_id, self.work, depth, on_conflict=policy)
            case 5:
                # Separate IDs, which limits their number.
                task_id = "every", random.randrange(20)
                scheduler.schedule_every(0.05 + delay, task_id, self.work, depth, on_conflict="replace", jitter=0.01)
            case _:
                task_id = "times", random.randrange(20)
                times: Any = random.choice([each_tenth, each_tenth(now), [now + timedelta(seconds=delay)] * 2])
                scheduler.schedule_at_times(times, task_id, self.work, depth, on_conflict="replace")

    def call(self) -> None:
        """Call any method."""
        random = self.random
        scheduler = random.choice([self.root, *self.children])
        task_id = random.randrange(IDS)
        task = self.any_task()
        self.calls += 1
        calls: list[Callable[[], object]] = [
            *[lambda: self.schedule(scheduler)] * 12,
            lambda: scheduler.cancel(task_id, running=random.choice(["cancel", "leave"])),
            lambda: scheduler.reschedule_later(random.random(), task_id),
            lambda: scheduler.reschedule_at(datetime.now(UTC) + timedelta(seconds=random.random()), task_id),
            lambda: scheduler.pause(task_id),
            lambda: scheduler.resume(task_id),
            lambda: [scheduler.resume(held) for held in list(scheduler.tasks) if scheduler.tasks[held].paused],
            scheduler.statistics,
            (lambda: None) if task is None else task.cancel,
            lambda: task and task.due,
            lambda: repr(task),
            lambda: scheduler.cancel_all() if random.random() < 0.02 else None,
        ]
        random.choice(calls)()

    async def short_life(self) -> None:
        """Make a child, use it and close it, in one of the ways."""
        random = self.random
        self.serial += 1
        child = random.choice(self.children).child(f"child {self.serial}", max_running=random.choice([None, 1]))
        match random.randrange(4):
            case 0:
                async with child:
                    self.schedule(child)
                    await anyio.sleep(0.01)
            case 1:
                async with anyio.create_task_group() as group:
                    await group.start(child.run)
                    self.schedule(child)
                    await child.close(0.01)
            case 2:
                for _ in range(5):
                    self.schedule(child)
                await child.close(random.choice([0, 0.05]))
            case _:
                child.schedule_later(60, "forgotten", self.work)
                child.cancel_all()

    # Measuring

    async def measure(self, group: TaskGroup) -> None:
        """Take the samples, and end the load after the last."""
        for _ in range(SAMPLES):
            await anyio.sleep(self.seconds / SAMPLES)
            gc.collect()
            self.samples.append((resident(), len(gc.get_objects())))
        group.cancel_scope.cancel()

    async def main(self) -> None:
        async with self.root, anyio.create_task_group() as group:
            group.start_soon(self.measure, group)
            while True:
                for _ in range(10):
                    self.call()
                if self.random.random() < 0.1:
                    group.start_soon(self.short_life)
                self.most_held = max(self.most_held, sum(len(each.tasks) for each in (self.root, *self.children)))
                await anyio.sleep(0.004)

    def report(self, backend: str) -> dict[str, Any]:
        """Return the figures. The first quarter is the time in which caches and tables grow."""
        quarter = SAMPLES // 4
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        mebibyte = 1 << 20
        return {
            "backend": backend,
            "seconds": self.seconds,
            "calls": self.calls,
            "runs": self.counting.runs,
            "most_held": self.most_held,
            "rss": [round(fmean(each[0] for each in samples) / mebibyte, 2) for samples in (early, late)],
            "objects": [round(fmean(each[1] for each in samples)) for samples in (early, late)],
            "samples": [round(each[0] / mebibyte, 1) for each in self.samples],
        }


def each_tenth(now: datetime) -> Iterator[datetime]:
    """Yield each tenth of a second after a moment."""
    for number in range(1, 1_000):
        yield now + timedelta(seconds=number / 10)


def main() -> None:
    """Run the load, and print the figures."""
    backend, seconds, seed = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    logger = logging.getLogger("anysched")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    soak = Soak(seconds, Random(seed))
    started = time.process_time()
    anyio.run(soak.main, **BACKENDS[backend])
    print(json.dumps({**soak.report(backend), "cpu": round(time.process_time() - started, 1)}))


if __name__ == "__main__":
    main()
