"""With a seed, ready tasks run in an order that depends on it, and the guarantees of anysched still hold."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any, cast

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from anysched import Scheduler
from anysched.testing import VirtualClock
from support import nothing

Order = list[object]

PROGRAM = """
import anyio
from anysched.testing import VirtualClock

async def main():
    order = []

    async def member(number):
        await anyio.sleep(number % 3)
        order.append(number)
        try:
            await anyio.sleep_forever()
        finally:
            order.append(-number)

    async with anyio.create_task_group() as group:
        for number in range(1, 30):
            group.start_soon(member, number)
        await anyio.sleep(5)
        group.cancel_scope.cancel()
    return order

for backend in ("asyncio", "trio"):
    name, options = VirtualClock(seed=7).backend(backend)
    print(anyio.run(main, backend=name, backend_options=options))
"""


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def run(clock: VirtualClock, backend: Any, function: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    name, options = clock.backend(backend)
    return anyio.run(function, backend=name, backend_options=options)


async def started_at_once() -> Order:
    order: Order = []

    async def member(number: int) -> None:
        order.append(number)
        await checkpoint()
        order.append(-number)

    async with anyio.create_task_group() as group:
        for number in range(1, 9):
            group.start_soon(member, number)
    return order


async def woken_at_once() -> Order:
    order: Order = []
    event = anyio.Event()

    async def member(number: int) -> None:
        await event.wait()
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(member, number)
        await anyio.sleep(1)
        event.set()
    return order


@pytest.mark.parametrize("program", [started_at_once, woken_at_once])
def test_the_order_depends_on_the_seed_alone(backend: Any, program: Callable[[], Coroutine[Any, Any, Order]]) -> None:
    orders = [run(VirtualClock(seed=seed), backend, program) for seed in range(20)]
    assert len({tuple(order) for order in orders}) > 15
    assert orders == [run(VirtualClock(seed=seed), backend, program) for seed in range(20)]
    clock = VirtualClock(seed=3)
    assert [run(clock, backend, program) for _ in range(2)] == [orders[3]] * 2  # each run starts again


def test_without_a_seed_asyncio_runs_tasks_in_their_order() -> None:
    assert run(VirtualClock(), "asyncio", woken_at_once) == list(range(8))


@pytest.mark.slow
def test_a_seed_gives_the_same_order_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        ).stdout
        for number in range(3)
    }
    assert len(outputs) == 1


def test_other_runs_of_trio_are_not_affected() -> None:
    import trio
    from trio._core import _run

    before = vars(_run)["_r"], vars(_run)["_ALLOW_DETERMINISTIC_SCHEDULING"]

    async def main() -> tuple[Order, Order]:
        first = await started_at_once()
        # In other threads: a run in real time, and one with another seed.
        await to_thread.run_sync(trio.run, started_at_once)
        assert await to_thread.run_sync(run, VirtualClock(seed=5), "trio", started_at_once) == alone
        return first, await started_at_once()

    async def twice() -> tuple[Order, Order]:
        first = await started_at_once()
        for _ in range(2):
            await to_thread.run_sync(nothing_at_all)
        return first, await started_at_once()

    def nothing_at_all() -> None: ...

    alone = run(VirtualClock(seed=5), "trio", started_at_once)
    assert run(VirtualClock(seed=6), "trio", main)[0] == run(VirtualClock(seed=6), "trio", twice)[0]
    assert (vars(_run)["_r"], vars(_run)["_ALLOW_DETERMINISTIC_SCHEDULING"]) == before


def test_callbacks_of_asyncio_keep_their_order() -> None:
    """asyncio guarantees this, and its own transports rely on it."""

    async def main() -> Order:
        order: Order = []
        loop = asyncio.get_running_loop()

        async def member(name: str) -> None:
            order.append(name)

        for number in range(10):
            loop.call_soon(order.append, number)
            # Tasks do not overtake callbacks.
            asyncio.create_task(member("a"))  # noqa: RUF006
            asyncio.create_task(member("b"))  # noqa: RUF006
        await asyncio.sleep(0.1)
        return order

    orders = [run(VirtualClock(seed=seed), "asyncio", main) for seed in range(10)]
    for order in orders:
        assert order[::3] == list(range(10))
        assert [sorted(order[index : index + 2]) for index in range(1, 30, 3)] == [["a", "b"]] * 10
    assert len(set(map(tuple, orders))) == 10


def test_tasks_that_the_loop_has_not_created_and_callbacks_of_tasks() -> None:
    async def main() -> Order:
        order: Order = []

        async def member(number: int) -> None:
            order.append(number)

        loop = asyncio.get_running_loop()
        tasks = [asyncio.Task(member(number), loop=loop) for number in range(5)]
        cancelled = asyncio.Task(anyio.sleep_forever(), loop=loop)
        loop.call_soon(cancelled.cancel)
        await asyncio.wait([*tasks, cancelled])
        assert cancelled.cancelled()
        return order

    assert len({tuple(run(VirtualClock(seed=seed), "asyncio", main)) for seed in range(20)}) > 10


@pytest.mark.parametrize("seed", range(10))
def test_scheduled_tasks_start_in_due_order(backend: Any, seed: int) -> None:
    async def main() -> None:
        started: Order = []

        async def task(number: int) -> None:
            started.append(number)
            await checkpoint()

        async with Scheduler("test", max_running=5) as scheduler:
            for number in range(0, 60, 2):
                scheduler.schedule_later(60, number, task, number)
                scheduler.schedule_at(clock.now() + anyio_minute, number + 1, task, number + 1)
            await scheduler.join()
            assert started == list(range(60))
            for number in range(60):
                scheduler.schedule(number, task, number)
            await scheduler.join()
        assert started == [*range(60), *range(60)]

    from datetime import timedelta

    anyio_minute = timedelta(minutes=1)
    clock = VirtualClock(seed=seed)
    run(clock, backend, main)


def test_a_seed_is_an_integer_and_can_be_seen() -> None:
    clock = VirtualClock(seed=7)
    assert clock.seed == 7
    assert repr(clock) == "<VirtualClock 2025-01-01T00:00:00+00:00 after 0.0 s, seed 7>"
    assert VirtualClock().seed is None
    with pytest.raises(TypeError, match="seed must be an integer, not str: '7'"):
        VirtualClock(seed=cast("Any", "7"))


def test_what_is_private_to_trio_is_still_there() -> None:
    from random import Random

    from trio._core import _run

    assert isinstance(vars(_run)["_r"], Random)
    assert isinstance(vars(_run)["_ALLOW_DETERMINISTIC_SCHEDULING"], bool)
    assert run(VirtualClock(seed=1), "trio", nothing) is None
