"""What the tests of other schedulers share: a run in virtual time, and what notes what happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from anysched.testing import VirtualClock

Main = Callable[[], Coroutine[Any, Any, None]]


def in_virtual_time(main: Main) -> None:
    async def run() -> None:
        with VirtualClock.current().patch_datetime():
            await main()

    backend, options = VirtualClock().backend("asyncio")
    anyio.run(run, backend=backend, backend_options=options)


def now() -> float:
    """The seconds since the run began."""
    return anyio.current_time()


class Runs:
    """Notes when it is run, and takes some time for it."""

    def __init__(
        self, *seconds: float, error: Exception | None = None, cleanup: float = 0, shield: bool = True
    ) -> None:
        self.starts: list[float] = []
        self.ends: list[str] = []
        self._seconds = list(seconds)
        self._error = error
        self._cleanup = cleanup
        self._shield = shield

    async def __call__(self, *_: object) -> int:
        return await self.run()

    async def run(self) -> int:
        self.starts.append(now())
        end = "failed"
        try:
            await asyncio.sleep(self._seconds.pop(0) if self._seconds else 0)
            if self._error is not None:
                raise self._error
            end = "done"
        except asyncio.CancelledError:
            end = "cancelled"
            with anyio.CancelScope(shield=self._shield):
                await asyncio.sleep(self._cleanup)
            end = "cleaned up"
            raise
        finally:
            self.ends.append(end)
        return 42


class LogHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname}: {record.getMessage()}")

    def __enter__(self) -> list[str]:
        logging.getLogger().addHandler(self)
        return self.lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
