"""Finding the running event loop, and creating the interface to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING

import anyio

from . import Backend

if TYPE_CHECKING:
    import asyncio

__all__ = ["current_backend", "is_debugging"]

DEV_MODE = bool(sys.flags.dev_mode)

STARTS_PER_ITERATION = 16


def current_backend() -> Backend:
    """Return the interface to the running event loop.

    Raises:
        anyio.NoEventLoopError: if none is running in this thread.
    """
    try:
        cancelled = anyio.get_cancelled_exc_class()
    except anyio.NoEventLoopError:
        # In a callback of asyncio there is a loop but no task, which anyio's look-up may need.
        cancelled = _asyncio_cancelled()
    if cancelled.__module__.partition(".")[0] == "trio":
        from trio import lowlevel

        from . import trio as on_trio

        clock = lowlevel.current_clock()
        return Backend(
            name="trio",
            monotonic=clock.current_time,
            exact=None,
            is_replaced=type(clock).__module__ != "trio._core._run",  # of the clock with which trio runs by default
            debug=DEV_MODE,
            time_source=clock,
            cancelled_exc_class=cancelled,
            starts_per_iteration=STARTS_PER_ITERATION,
            keeps_order=False,
            current_task=on_trio.current_task,
            ancestors=on_trio.ancestors,
            is_done=lambda _: False,
            is_cancelling=lambda _: False,
            has_pending_cancellation=lambda _: False,
            leave_scopes=on_trio.leave_nurseries,  # trio has left the scopes
            protect=on_trio.protect,
            wake=lambda: None,  # every signal wakes trio
            call_soon=lowlevel.current_trio_token().run_sync_soon,
            create_task=None,
        )

    import asyncio

    from . import asyncio as on_asyncio

    loop = asyncio.get_running_loop()
    monotonic, exact, is_replaced = _asyncio_time(loop)

    def wake() -> None:
        # A signal handler is called in a task, in a callback, or while the loop sleeps. In a task the loop need not be
        # woken. Without a task it may be asleep; in a callback, waking it is not needed, but cheap.
        if asyncio.current_task() is None:
            loop.call_soon_threadsafe(lambda: None)

    return Backend(
        name="asyncio",
        monotonic=monotonic,
        exact=exact,
        is_replaced=is_replaced,
        debug=DEV_MODE or loop.get_debug(),
        time_source=loop,
        cancelled_exc_class=cancelled,
        starts_per_iteration=STARTS_PER_ITERATION,
        keeps_order=not getattr(loop, "shuffles_tasks", False),
        current_task=asyncio.current_task,
        ancestors=on_asyncio.ancestors,
        is_done=lambda task: task.done(),
        is_cancelling=lambda task: task.cancelling() > 0,
        # A private attribute, which anyio also reads. There is no other way to find out. A test fails if it is removed.
        has_pending_cancellation=lambda task: getattr(task, "_must_cancel", False),
        leave_scopes=on_asyncio.leave_scopes,
        protect=lambda _: None,
        wake=wake,
        call_soon=loop.call_soon,
        create_task=on_asyncio.create_host_task,
    )


def is_debugging() -> bool:
    """Return whether Python is in development mode, or the asyncio event loop that is running in debug mode."""
    import asyncio

    try:
        return DEV_MODE or asyncio.get_running_loop().get_debug()
    except RuntimeError:
        return False


def _asyncio_cancelled() -> type[BaseException]:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise anyio.NoEventLoopError from None
    return asyncio.CancelledError


def _asyncio_time(
    loop: asyncio.AbstractEventLoop, machine: Callable[[], float] = time.monotonic
) -> tuple[Callable[[], float], Callable[[], float] | None, bool]:
    """Return the clock of an event loop, an exact clock if that is coarse, and whether it was replaced."""
    # The default is bound at import, so that patches of `time.monotonic` do not affect it.
    import asyncio

    method = type(loop).time
    # A temporary patch may have left the loop's own method on the object.
    if getattr(loop, "__dict__", {}).get("time", loop.time) != method.__get__(loop):
        return loop.time, None, True
    if method is asyncio.BaseEventLoop.time:
        # The function that asyncio's own method calls, which is faster; it is called for every task.
        return time.monotonic, None, time.monotonic is not machine
    if isinstance(method, FunctionType):
        return loop.time, None, True
    # uvloop's own method, written in C, shows the machine's time in milliseconds.
    exact = machine if 0 <= machine() - loop.time() < 1 else None
    return loop.time, exact, False
