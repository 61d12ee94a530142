"""Running a crontab in the foreground until a signal ends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import final

import anyio

from anysched import Scheduler
from anysched._cli.exit_statuses import EXIT_SIGNAL, EXIT_USAGE
from anysched._cli.logs import logs_to
from anysched._cli.orphans import reap_orphans
from anysched._cli.page import Address, start_page
from anysched._cli.reports.events import Report
from anysched._cli.shutdown import (
    STATE_SIGNALS,
    Actions,
    cancel_on_second_signal,
    ending_signals,
    first_ending_signal,
    state_actions,
)

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
        web: The host and the port of the page, if requested.
    """

    def __init__(
        self, file: CrontabFile, lines: Iterable[CronLine], report: Report, grace: float, web: Address | None = None
    ) -> None:
        self._file = file
        self._lines = lines
        self._report = report
        self._grace = grace
        self._scheduler = Scheduler("cli")
        self._web = web
        self._runner = Runner(self._scheduler, report, fails=web is not None)
        # `nohup` ignores SIGHUP for its command.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._may_lose_terminal = not ignored and _has_terminal()

    async def run(self) -> int:
        """Run the crontab until a signal ends it.

        Returns:
            The exit status for the process.
        """
        number: signal.Signals | None = None
        received = (*ending_signals(), *STATE_SIGNALS, signal.SIGHUP, signal.SIGUSR2)
        with anyio.open_signal_receiver(*received) as signals, self._report, logs_to(self._report.error):
            async with self._scheduler, anyio.create_task_group() as helpers:
                helpers.start_soon(self._report.refresh)
                helpers.start_soon(reap_orphans)
                if not await start_page(helpers, self._scheduler, self._web, self._report):
                    helpers.cancel_scope.cancel()
                    return EXIT_USAGE
                self._runner.start(self._lines)
                actions = state_actions(self._report, lambda: self._runner.jobs)
                reloads: Actions = {signal.SIGHUP: self._hang_up, signal.SIGUSR2: partial(self._reload, "SIGUSR2")}
                number = await first_ending_signal(signals, {**actions, **reloads})
                helpers.start_soon(cancel_on_second_signal, signals, lambda: self._runner.tasks, actions)
                await self._runner.close(number, self._grace)
                helpers.cancel_scope.cancel()
            self._report.note(self._runner.summary())
        assert number is not None
        return EXIT_SIGNAL + number

    def _hang_up(self) -> bool:
        """Read the file again, or end if the terminal has closed, which also sends SIGHUP."""
        if self._may_lose_terminal and not _has_terminal():
            return True
        return self._reload("SIGHUP")

    def _reload(self, cause: str) -> bool:
        name = self._file.name
        try:
            lines = self._file.reload(self._report.error)
        except OSError as error:
            self._report.note(f"{cause}: cannot read {name}: {error.strerror}; the old schedule stays", level="error")
        except RefusedError as error:
            self._report.note(f"{cause}: {error}; the old schedule stays", level="error")
        else:
            changes = self._runner.reload(lines)
            self._report.note(f"{cause}: {name} read again: {changes}")
        return False


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still open."""
    with suppress(OSError):
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
        return True
    return False
