"""The workloads, which are the same for every peer. Each returns its figures by name.

What a call or a task costs is processor time: these workloads never wait, so that on a dedicated machine this is the
elapsed time, and on a shared one it excludes the time of other processes. Waits of a task, and for a disk, are measured as
elapsed time.
"""

from __future__ import annotations

import gc
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from time import perf_counter, process_time

import anyio
from anyio.lowlevel import checkpoint

from .memory import resident_bytes
from .peers import CannotDoError, Peer, Work

__all__ = ["WORKLOADS", "Workload", "overheads"]

HOUR = 3600.0

Workload = Callable[[Peer, int], Awaitable[dict[str, float]]]


async def _nothing() -> None:
    pass


async def _settle() -> None:
    """Let the event loop do deferred work: first steps, unwinding, callbacks, clean-up of timers."""
    for _ in range(6):
        await checkpoint()


def _per(count: int, since: float) -> float:
    """Return microseconds of processor time for each of ``count``."""
    return (process_time() - since) / count * 1e6


async def pending(peer: Peer, count: int) -> dict[str, float]:
    """Schedule tasks an hour ahead, measure the memory of the pending tasks, and cancel them."""
    ids = list(range(count))
    await peer.later(HOUR, range(-50, 0), _nothing)  # objects and imports that are needed once must not count
    await _settle()
    resident, objects = resident_bytes(), len(gc.get_objects())

    start = process_time()
    await peer.later(HOUR, ids, _nothing)
    await _settle()
    figures = {"later": _per(count, start)}

    figures["objects"] = (len(gc.get_objects()) - objects) / count
    grown = resident_bytes() - resident
    if not math.isnan(grown):
        figures["bytes"] = grown / count

    start = process_time()
    await peer.cancel(ids)
    await _settle()
    figures["cancel"] = _per(count, start)
    return figures


async def debounce(peer: Peer, count: int) -> dict[str, float]:
    """Cancel pending tasks and schedule them again, three times; then postpone them, three times."""
    passes, ids = 3, list(range(count))
    await peer.later(HOUR, ids, _nothing)
    await _settle()

    start = process_time()
    for _ in range(passes):
        await peer.again(HOUR, ids, _nothing)
        await _settle()
    figures = {"again": _per(count * passes, start)}

    try:
        start = process_time()
        for _ in range(passes):
            await peer.postpone(HOUR, ids)
            await _settle()
        figures["postpone"] = _per(count * passes, start)
    except CannotDoError:
        pass
    return figures


async def durable(peer: Peer, count: int) -> dict[str, float]:
    """Schedule an hour ahead, then start tasks soon, a thousand at a time: in time that passes, for the disk is waited for."""
    await peer.later(HOUR, range(-50, 0), _nothing)
    start = perf_counter()
    await peer.later(HOUR, range(count), _nothing)
    stored = (perf_counter() - start) / count * 1e6
    ran = await _bursts(peer.soon, count, burst=1_000, first=count, clock=perf_counter)
    return {"stored": stored, **ran}


async def soon_bursts(peer: Peer, count: int) -> dict[str, float]:
    """Start tasks soon, a thousand at a time, until each burst has run."""
    return await _bursts(peer.soon, count, burst=1_000)


async def soon_at_once(peer: Peer, count: int) -> dict[str, float]:
    """Start tasks soon, all at once, until they have run."""
    return await _bursts(peer.soon, count, burst=count)


async def later_bursts(peer: Peer, count: int) -> dict[str, float]:
    """Schedule tasks a millisecond ahead, a thousand at a time, until each burst has run."""
    return await _bursts(partial(peer.later, 0.001), count, burst=1_000)


async def later_at_once(peer: Peer, count: int) -> dict[str, float]:
    """Schedule tasks a millisecond ahead, all of which are due when the event loop gets to them."""
    return await _bursts(partial(peer.later, 0.001), count, burst=count)


async def _bursts(
    schedule: Callable[[Iterable[int], Work], Awaitable[None]],
    count: int,
    burst: int,
    first: int = 0,
    clock: Callable[[], float] = process_time,
) -> dict[str, float]:
    left = 0
    done = anyio.Event()

    async def work() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async def run(ids: Iterable[int], size: int) -> None:
        nonlocal left, done
        left, done = size, anyio.Event()
        await schedule(ids, work)
        await done.wait()
        await _settle()

    burst = min(burst, count)
    await run(range(-100, -50), 50)
    bursts = count // burst
    start = clock()
    for number in range(bursts):
        await run(range(first + number * burst, first + (number + 1) * burst), burst)
    return {"run": (clock() - start) / (bursts * burst) * 1e6}


async def hold_up(peer: Peer, count: int) -> dict[str, float]:
    """Measure the longest wait of another task while all tasks become due at the same moment."""
    left = count
    done = anyio.Event()
    pauses: list[float] = []
    pause_start = 0.0

    async def work() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    def watch(phase: str, _info: object) -> None:
        nonlocal pause_start
        if phase == "start":
            pause_start = perf_counter()
        else:
            pauses.append(perf_counter() - pause_start)

    # The due time must come after the last scheduling call. A few calls show how long these take.
    rehearsal = range(-200, 0)
    start = perf_counter()
    await peer.later(HOUR, rehearsal, _nothing)
    await _settle()
    lead = 0.3 + 3 * count * (perf_counter() - start) / len(rehearsal)
    while True:
        due = perf_counter() + lead
        for first in range(0, count, 250):
            await peer.later(max(due - perf_counter(), 0.0), range(first, min(first + 250, count)), work)
            await _settle()
        if perf_counter() < due - 0.05:
            break
        if left < count:  # some tasks have already run
            raise RuntimeError("scheduling took longer than foreseen: the machine is too busy to measure a hold-up")
        await peer.cancel(range(count))
        lead *= 2
    await anyio.sleep(max(due - perf_counter() - 0.02, 0.0))

    gc.callbacks.append(watch)
    longest, last = 0.0, perf_counter()
    while not done.is_set():
        await checkpoint()
        now = perf_counter()
        longest, last = max(longest, now - last), now
    gc.callbacks.remove(watch)
    return {"hold_up": longest * 1e3, "collector": max(pauses, default=0.0) * 1e3}


async def lateness(peer: Peer, count: int) -> dict[str, float]:
    """Measure how late tasks start, at the 99th percentile, whose due times are spread over the next two seconds."""
    spread = 2.0
    late: list[tuple[float, float]] = []
    done = anyio.Event()
    generator = random.Random(5_000)  # noqa: S311  # the same moments for every peer
    delays = [generator.uniform(0, spread) for _ in range(count)]

    def work(due: float) -> Work:
        async def arrive() -> None:
            late.append((due, perf_counter() - due))
            if len(late) == count:
                done.set()

        return arrive

    for number, delay in enumerate(delays):
        await peer.later(delay, (number,), work(perf_counter() + delay))
    scheduled = perf_counter()
    await done.wait()
    # Tasks that became due while others were being scheduled are late by that time, with every peer but threads.
    return {
        "late": _percentile([seconds for _, seconds in late]) * 1e3,
        "late_scheduled": _percentile([seconds for due, seconds in late if due > scheduled + 0.1]) * 1e3,
    }


def _percentile(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


WORKLOADS: dict[str, Workload] = {
    "pending": pending,
    "many": pending,
    "debounce": debounce,
    "durable": durable,
    "soon-bursts": soon_bursts,
    "soon-at-once": soon_at_once,
    "later-bursts": later_bursts,
    "later-at-once": later_at_once,
    "hold-up": hold_up,
    "lateness": lateness,
}


def overheads(count: int) -> dict[str, float]:
    """Measure two parts of each scheduling call of `anysched` separately, without an event loop."""
    log = logging.getLogger("anysched.bench")
    contexts = []
    start = process_time()
    for _ in range(count):
        contexts.append(copy_context())  # noqa: PERF401  # a loop like those of the peers
    context = _per(count, start)

    start = process_time()
    for _ in range(count):
        if log.isEnabledFor(logging.DEBUG):
            raise RuntimeError("debug logging is on")
    return {"context": context, "log": _per(count, start)}
