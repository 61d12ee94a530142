"""Putting the parts together: which file, in which zone, and whether to run it, check it or print its runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from signal import SIGPIPE

import anyio

from anysched._cli.closing import EXIT_INTERRUPTED, EXIT_SIGNAL, EXIT_TROUBLE, EXIT_UNREADABLE, complain
from anysched._cli.json_lines import JsonReport
from anysched._cli.plain import give_up, write_lines
from anysched._cli.showing import report_to

from .account import is_current_user
from .arguments import CrontabArguments
from .file import CrontabFile, RefusedError
from .preview import json_run, preview, text_run
from .session import CrontabSession
from .syntax import CronLine
from .zones import local_zone

__all__ = ["run_crontab"]


def run_crontab(arguments: CrontabArguments) -> int:
    """Do with a crontab what the arguments ask for.

    Returns:
        The exit status for the process.
    """
    try:
        zone = arguments.zone
        if zone is None:
            zone, note = local_zone()
            if note:
                complain(note)
        may_run_as = is_current_user if arguments.system else None
        file = CrontabFile(arguments.file, zone, may_run_as, arguments.lenient)
        try:
            lines = file.load()
        except OSError as error:
            complain(f"cannot read {file.name}: {error.strerror}")
            return EXIT_UNREADABLE
        except RefusedError as error:
            complain(str(error))
            return EXIT_TROUBLE
        if arguments.test:
            return _print([f"{file.name}: {len(lines)} command{'s' * (len(lines) != 1)}, and nothing is run"])
        if arguments.until is not None:
            return _print(_preview(lines, zone, arguments.until, arguments))
        report = JsonReport(sys.stdout) if arguments.log_format == "json" else report_to(sys.stdout)
        return anyio.run(CrontabSession(file, lines, report, arguments.grace).run, backend=arguments.backend)
    except KeyboardInterrupt:  # before signals are received in an orderly way, or after
        return EXIT_INTERRUPTED


def _preview(lines: Iterable[CronLine], zone: tzinfo, until: datetime, arguments: CrontabArguments) -> Iterable[str]:
    if until.utcoffset() is None:
        until = until.replace(tzinfo=zone)
    shown = json_run if arguments.log_format == "json" else text_run
    return map(shown, preview(lines, datetime.now(UTC), until.astimezone(UTC)))


def _print(lines: Iterable[str]) -> int:
    try:
        for line in lines:
            write_lines(sys.stdout, [line])
    except BrokenPipeError:  # the reader has seen enough
        give_up(sys.stdout)
        return EXIT_SIGNAL + SIGPIPE
    return 0
