"""Coroutines and helpers that the tests share."""

import inspect
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from anysched import ScheduledTask, Scheduler
from anysched._core.backends import Backend, Startable
from anysched._core.backends.group import GroupStarter
from anysched._core.dispatcher import Dispatcher
from anysched._virtual.timeline import Timeline
from anysched.testing import VirtualClock

EVENT_LOOPS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there"),
    ),
    pytest.param(("trio", {}), id="trio"),
]
"""The parameters of a fixture ``anyio_backend`` with all event loops, in real time."""


async def settle(iterations: int = 30) -> None:
    """Yield to the event loop often enough for everything that can happen without time passing."""
    for _ in range(iterations):
        await checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Yield to the event loop until a condition holds, which must not take time."""
    for _ in range(1000):
        if condition():
            return
        await checkpoint()
    raise TimeoutError


async def nothing() -> None:
    """Do nothing."""


async def value(result: Any) -> Any:
    """Return the argument."""
    return result


async def fail(error: BaseException) -> None:
    """Raise an exception."""
    raise error


async def forever() -> None:
    """Run until cancelled."""
    await anyio.sleep_forever()


def dispatcher_of(scheduler: Scheduler) -> Dispatcher:
    """Return the dispatcher of a scheduler that has been entered."""
    dispatcher = scheduler._registry.dispatcher
    assert dispatcher is not None
    return dispatcher


def refuse_starts(scheduler: Scheduler, failure: Exception) -> None:
    """Make the event loop refuse to start tasks from now on."""

    def refuse(run: Startable, name: str, context: Context) -> None:
        raise failure

    dispatcher_of(scheduler).starter.start = refuse  # type: ignore[method-assign]


def timeline_of(clock: VirtualClock) -> Timeline:
    """The timeline of a virtual clock, for tests that move time as no event loop would."""
    return clock._timeline


def group_starter(_group: TaskGroup, _backend: Backend) -> GroupStarter:
    """Start tasks with anyio's own function, instead of `anysched._core.backends.starter.starter_for`."""
    return GroupStarter()


def is_closed(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Return whether a coroutine has been closed or has run to its end."""
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def records(caplog: pytest.LogCaptureFixture, level: int = logging.NOTSET) -> list[logging.LogRecord]:
    """Return the records of the package at a level or above. (On a busy machine, asyncio's debug mode also warns.)"""
    return [
        record
        for record in caplog.records
        if record.levelno >= level and (record.name == "anysched" or record.name.startswith("anysched."))
    ]


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """All errors in the log, including asyncio's about tasks whose exceptions were never retrieved."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def split_message(record: logging.LogRecord) -> tuple[str, str]:
    """A message and, in debug mode, where the task was scheduled: a test file and a line."""
    found = re.fullmatch(r"(.*?)(?: It was scheduled at (.*):(\d+)\.)?", record.getMessage(), re.DOTALL)
    assert found is not None
    message, file, line = found.groups()
    if file is None:
        return message, ""
    assert Path(__file__).parent in Path(file).parents
    return message, f"{Path(file).name}:{line}"


def message_of(record: logging.LogRecord) -> str:
    """A message, without where the task was scheduled."""
    return split_message(record)[0]


class Gate:
    """A coroutine function that reports its start, runs until it is released, and continues when it is cancelled."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.started = anyio.Event()
        self.open = anyio.Event()
        self.cancelled = False
        self.ended = False
        self._stubborn = stubborn

    async def __call__(self) -> str:
        self.started.set()
        try:
            await self.open.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            if self._stubborn:
                with anyio.CancelScope(shield=True):
                    await self.open.wait()
            raise
        finally:
            self.ended = True
        return "through"


Work = Callable[[], Awaitable[Any]]


async def outcome(task: ScheduledTask[Any]) -> str:
    """Wait for the end of a task, and return the name of its status."""
    await task.wait()
    return task.status.name
