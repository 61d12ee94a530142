"""Running a crontab in the foreground until a signal ends it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import final

import anyio

from anysched import Scheduler
from anysched._cli.reports.events import Report
from anysched._cli.shutdown import EXIT_SIGNAL, cancel_on_second_signal, ending_signals

from .file import CrontabFile, RefusedError
from .runner import Runner
from .syntax import CronLine

__all__ = ["CrontabSession"]

TERMINAL = "/dev/tty"


@final
class CrontabSession:
    """Runs one crontab until a signal ends it.

    Args:
        file: The file, which is read again on SIGHUP.
        lines: Its lines.
        report: Where to report.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
    """

    def __init__(self, file: CrontabFile, lines: Iterable[CronLine], report: Report, grace: float) -> None:
        self._file = file
        self._lines = lines
        self._report = report
        self._grace = grace
        self._scheduler = Scheduler("cli")
        self._runner = Runner(self._scheduler, report)
        self._signal: signal.Signals | None = None
        # `nohup` ignores SIGHUP for its command.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._may_lose_terminal = not ignored and _has_terminal()

    async def run(self) -> int:
        """Run the crontab until a signal ends it.

        Returns:
            The exit status for the process.
        """
        with anyio.open_signal_receiver(*ending_signals(), signal.SIGHUP) as signals, self._report:
            async with self._scheduler, anyio.create_task_group() as helpers:
                helpers.start_soon(self._report.refresh)
                self._runner.start(self._lines)
                self._signal = await self._handle_signals(signals)
                helpers.start_soon(cancel_on_second_signal, signals, self._scheduler)
                await self._runner.close(self._signal, self._grace)
                helpers.cancel_scope.cancel()
            self._report.note(self._runner.summary())
        assert self._signal is not None
        return EXIT_SIGNAL + self._signal

    async def _handle_signals(self, signals: AsyncIterator[signal.Signals]) -> signal.Signals:
        """Read the file again on each SIGHUP; return the signal that ends the schedule."""
        number = await anext(signals)
        while number is signal.SIGHUP:
            # SIGHUP comes from a user who has changed the file, or from a terminal that closes.
            if self._may_lose_terminal and not _has_terminal():
                break
            self._reload()
            number = await anext(signals)
        return number

    def _reload(self) -> None:
        name = self._file.name
        try:
            lines = self._file.reload()
        except OSError as error:
            self._report.note(f"SIGHUP: cannot read {name}: {error.strerror}; the old schedule stays")
        except RefusedError as error:
            self._report.note(f"SIGHUP: {error}; the old schedule stays")
        else:
            changes = self._runner.reload(lines)
            self._report.note(f"SIGHUP: {name} read again: {changes}")


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still open."""
    with suppress(OSError):
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
        return True
    return False
