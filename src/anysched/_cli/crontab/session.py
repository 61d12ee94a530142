"""A crontab as it runs in the foreground, and the signals that it obeys."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import final

import anyio

from anysched import Scheduler
from anysched._cli.closing import EXIT_SIGNAL, ending_signals, hurry
from anysched._cli.report import Report

from .file import CrontabFile, RefusedError
from .runner import Runner
from .syntax import CronLine

__all__ = ["CrontabSession"]

TERMINAL = "/dev/tty"


@final
class CrontabSession:
    """Runs one crontab until a signal ends it.

    Args:
        file: The file, to be read again on SIGHUP.
        lines: What it says now.
        report: Who is told what happens.
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
        # What `nohup` has started outlives its terminal.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._may_lose_terminal = not ignored and _has_terminal()

    async def run(self) -> int:
        """Run the crontab until a signal ends it.

        Returns:
            The exit status for the process.
        """
        with anyio.open_signal_receiver(*ending_signals(), signal.SIGHUP) as signals, self._report:
            async with self._scheduler, anyio.create_task_group() as helpers:
                helpers.start_soon(self._report.animate)
                self._runner.start(self._lines)
                self._signal = await self._obey(signals)
                helpers.start_soon(hurry, signals, self._scheduler)
                await self._runner.close(self._signal, self._grace)
                helpers.cancel_scope.cancel()
            self._report.note(self._runner.summary())
        assert self._signal is not None
        return EXIT_SIGNAL + self._signal

    async def _obey(self, signals: AsyncIterator[signal.Signals]) -> signal.Signals:
        """Read the file again on SIGHUP; return the signal that ends the schedule."""
        number = await anext(signals)
        while number is signal.SIGHUP:
            # SIGHUP has two senders: a user who has changed the file, and a terminal that closes.
            if self._may_lose_terminal and not _has_terminal():
                break
            self._reload()
            number = await anext(signals)
        return number

    def _reload(self) -> None:
        name = self._file.name
        try:
            lines = self._file.load_again()
        except OSError as error:
            self._report.note(f"SIGHUP: cannot read {name}: {error.strerror}; the old schedule stays")
        except RefusedError as error:
            self._report.note(f"SIGHUP: {error}; the old schedule stays")
        else:
            changes = self._runner.adopt(lines)
            self._report.note(f"SIGHUP: {name} read again: {changes}")


def _has_terminal() -> bool:
    """Tell whether this process has a controlling terminal that is still there."""
    with suppress(OSError):
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
        return True
    return False
