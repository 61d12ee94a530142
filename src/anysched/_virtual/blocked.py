"""Where tasks are blocked, and whether anything outside of the event loop could wake them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import CoroutineType, FrameType
from typing import Any, Literal
from weakref import WeakSet

from anyio.from_thread import BlockingPortal

__all__ = ["OtherThreads", "Outside", "describe", "frames", "waits_for_portal"]

Outside = Literal["nothing", "something", "portal"]
"""What could wake a task when all are blocked: nothing, perhaps a thread, I/O or a signal, or calls through a portal."""

LIBRARIES = frozenset({"anyio", "anysched", "asyncio", "trio", "outcome"})


def frames(coroutine: object) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, from the outermost to the innermost that can be reached."""
    while isinstance(coroutine, CoroutineType):
        frame: FrameType | None = coroutine.cr_frame
        yield from () if frame is None else (frame,)
        coroutine = coroutine.cr_await


def describe(name: str, coroutine: object) -> str:
    """Return the name of a task, and the place in the user's code where it is blocked."""
    place: FrameType | None = None
    for frame in frames(coroutine):
        if place is None or _is_users(frame):
            place = frame
    if place is None:
        return repr(name)
    code = place.f_code
    return f"{name!r} at {code.co_filename}:{place.f_lineno} in {code.co_qualname}"


def _is_users(frame: FrameType) -> bool:
    module: Any = frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] not in LIBRARIES


def waits_for_portal(coroutine: object) -> bool:
    """Return whether a task serves a blocking portal, so that it waits for calls from other threads."""
    code = BlockingPortal.sleep_until_stopped.__code__
    return any(frame.f_code is code for frame in frames(coroutine))


class OtherThreads:
    """The threads that have been started since an event loop began to run."""

    def __init__(self) -> None:
        self._before = WeakSet(threading.enumerate())

    def __iter__(self) -> Iterator[threading.Thread]:
        return (thread for thread in threading.enumerate() if thread not in self._before)
