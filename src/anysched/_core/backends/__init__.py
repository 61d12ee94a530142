"""The few things that anyio does not offer on both backends alike: all that is specific to asyncio or to trio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import anyio

__all__ = ["Backend", "current_backend", "inside_task"]


@dataclass(frozen=True, slots=True)
class Backend:
    """What the running event loop offers.

    Attributes:
        name: Which one it is.
        monotonic: The loop's monotonic clock in seconds, as `anyio.current_time` without the look-up of the loop.
        timekeeper: The object that keeps this time: the asyncio event loop, or trio's clock. Unlike trio's run, it
            exists before the loop runs, so that a virtual clock can be bound to it.
        current_task: Returns the native task that is running.
        is_over: Tells whether a native task has ended. One that trio still knows has not.
        cancelled: The exception class of cancellations.
        starts_per_turn: How many tasks may be started before the event loop is let through. asyncio runs what becomes
            runnable in order, so this only has to be small enough for the other tasks. trio shuffles what becomes
            runnable in one turn, so that each start needs a turn of its own if the order is to hold.
        cancellation_left: Tells whether a native task has been cancelled and not been told yet. On asyncio it would be
            told when it ends, and its task group be cancelled with it.
    """

    name: Literal["asyncio", "trio"]
    monotonic: Callable[[], float]
    timekeeper: object
    current_task: Callable[[], Any]
    is_over: Callable[[Any], bool]
    cancelled: type[BaseException]
    starts_per_turn: int
    cancellation_left: Callable[[Any], bool]


def current_backend() -> Backend:
    """Return what the running event loop offers.

    Raises:
        anyio.NoEventLoopError: if none is running in this thread.
    """
    cancelled = anyio.get_cancelled_exc_class()
    if cancelled.__module__.partition(".")[0] == "trio":
        from trio import lowlevel

        clock = lowlevel.current_clock()
        return Backend(
            "trio", clock.current_time, clock, lowlevel.current_task, lambda _: False, cancelled, 1, lambda _: False
        )

    import asyncio

    loop = asyncio.get_running_loop()
    # The function behind asyncio's own method, which is not written in C: it is called for every task.
    monotonic = time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
    # A private attribute, as anyio reads it: there is no other way to know. A test fails when it goes.
    return Backend(
        "asyncio",
        monotonic,
        loop,
        asyncio.current_task,
        lambda task: task.done(),
        cancelled,
        16,
        lambda task: getattr(task, "_must_cancel", False),
    )


def inside_task(host: object) -> bool:
    """Tell whether the running task is the native task ``host``, or a descendant of it in task groups."""
    parents = {info.id: info.parent_id for info in anyio.get_running_tasks()}
    task: int | None = anyio.get_current_task().id
    while task is not None and task != id(host):
        task = parents.get(task)
    return task is not None
