"""Virtual time for tests: a month passes in a millisecond, on asyncio and on trio.

The pytest plugin is part of the package. A module (or its ``conftest.py``) opts in by importing one fixture. All its
anyio tests then run in virtual time::

    from datetime import UTC, datetime, timedelta

    import pytest
    from anysched import Scheduler
    from anysched.testing import VirtualClock
    from anysched.testing import virtual_anyio_backend as anyio_backend  # on asyncio and on trio

    pytestmark = pytest.mark.anyio


    async def test_reminder(virtual_clock: VirtualClock) -> None:
        sent = []

        async def send() -> None:
            sent.append(virtual_clock.now())

        async with Scheduler("reminders") as scheduler:
            scheduler.schedule_later(timedelta(days=30), "reminder", send)
            await scheduler.join()

        assert sent == [datetime(2025, 1, 31, tzinfo=UTC)]  # each test starts on 1 January 2025

Here time jumps to the next deadline automatically. To check what happens on the way, move it yourself::

    async def test_not_too_early(virtual_clock: VirtualClock) -> None:
        virtual_clock.autojump = False
        async with Scheduler("reminders") as scheduler:
            scheduler.schedule_later(60, "reminder", sleep_forever)
            await virtual_clock.advance(59.999)
            assert scheduler.statistics().running == 0
            await virtual_clock.advance(0.001)
            assert scheduler.statistics().running == 1

These are not virtual: ``time.time()`` and ``datetime.now()`` in your own code (but see `VirtualClock.patch_datetime`),
real I/O (see `VirtualClock.hold`), and uvloop. Without pytest, use `VirtualClock.backend`.

Hypothesis does not work with function-scoped fixtures: call `VirtualClock.current()` instead of using
``virtual_clock``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._virtual.clock import VirtualClock
from ._virtual.timeline import DeadlockError, NeverIdleError

if TYPE_CHECKING:
    from .pytest_plugin import virtual_anyio_backend, virtual_clock

__all__ = ["DeadlockError", "NeverIdleError", "VirtualClock", "virtual_anyio_backend", "virtual_clock"]

_FIXTURES = frozenset({"virtual_anyio_backend", "virtual_clock"})


def __getattr__(name: str) -> object:
    # The fixtures require pytest; the clock does not.
    if name in _FIXTURES:
        from . import pytest_plugin

        return getattr(pytest_plugin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
