"""A program that schedules all the time and is interrupted: ``python interrupted.py BACKEND COUNT SIGNALS SEED``.

In each of COUNT runs, another thread sends SIGINT to the process at a random moment, SIGNALS times. For each run, a line of
JSON with what came out of it is printed.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from random import Random
from typing import Any

import anyio

from anysched import Scheduler

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
POLICIES = ("keep", "replace", "follow")
HANG = 30.0
"""After this many seconds a run is considered hung: the stacks of all threads are printed and the process ends."""


async def work(random: Random, scheduler: Scheduler, depth: int = 0) -> None:
    """Do what tasks do: sleep, schedule another one, fail."""
    await anyio.sleep(random.choice([0, 0, 0.0001, 0.001, 0.01]))
    if depth < 3:
        # Functions, not coroutines: an interruption between the two calls of `schedule(work())` is not the library's.
        scheduler.schedule(random.randrange(40), work, random, scheduler, depth + 1, on_conflict="replace")
    if random.random() < 0.05:
        raise ValueError


async def load(random: Random, running: threading.Event) -> None:
    """Keep a scheduler and its child busy, for ever."""
    async with Scheduler("load", max_running=random.choice([None, 7])) as scheduler:
        child = scheduler.child("child")
        scheduler.schedule_every(0.001, "every", work, random, child, 2)
        running.set()
        while True:
            try:
                for target in (scheduler, child):
                    call(random, target)
            except RuntimeError:
                if scheduler.state == "running":
                    raise
                # An interrupted task has stopped it, which this task learns at its next checkpoint.
            await anyio.sleep(random.choice([0, 0, 0.001]))


def call(random: Random, scheduler: Scheduler) -> None:
    """Call the methods that users call most."""
    for _ in range(random.randrange(10)):
        policy: Any = random.choice(POLICIES)
        delay = random.choice([0, 0.0005, 0.003])
        scheduler.schedule_later(delay, random.randrange(40), work, random, scheduler, on_conflict=policy)
    scheduler.cancel(random.randrange(40))
    scheduler.reschedule_later(0.001, random.randrange(40))


def interrupt(delays: list[float], running: threading.Event) -> None:
    """Send the signals, each after a delay."""
    running.wait()
    for delay in delays:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception is a `KeyboardInterrupt`, or several."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_interrupt, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def run(backend: str, signals: int, random: Random) -> dict[str, Any]:
    """Run the load until it is interrupted, and return the result."""
    unraisable: list[str] = []
    sys.unraisablehook = lambda info: unraisable.append(f"{info.err_msg} {info.object!r}: {info.exc_value!r}")
    running = threading.Event()
    delays = [random.uniform(0, 0.03)] + [random.uniform(0, 0.004) for _ in range(signals - 1)]
    thread = threading.Thread(target=interrupt, args=(delays, running))
    error: BaseException | None = None
    result: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.start()
        try:
            try:
                anyio.run(load, random, running, **BACKENDS[backend])
            except BaseException as raised:
                error = raised
            while thread.is_alive():  # the later signals may come after the end
                thread.join(0.001)
            time.sleep(0.001)
        except KeyboardInterrupt:
            pass
        thread.join()
        result["outcome"] = repr(error)
        result["interrupted"] = error is not None and is_interrupt(error)
        if not isinstance(error, KeyboardInterrupt) and error is not None:
            result["traceback"] = "".join(traceback.format_exception(error))
        error = None
        gc.collect()
    result["warnings"] = [str(warning.message) for warning in caught] + unraisable
    return result


def main() -> None:
    """Run it a number of times."""
    backend, count, signals, seed = sys.argv[1], *map(int, sys.argv[2:5])
    logging.getLogger("anysched").addHandler(logging.NullHandler())
    logging.getLogger("anysched").propagate = False
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    for number in range(count):
        faulthandler.dump_traceback_later(HANG, exit=True)
        result = run(backend, signals, Random(f"{seed} {number}"))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"number": number, **result}), flush=True)


if __name__ == "__main__":
    main()
