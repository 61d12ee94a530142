"""Running, checking or previewing a crontab, as the arguments ask."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import Final

import anyio

from anysched._cli.exit_statuses import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from anysched._cli.printing import print_lines
from anysched._cli.reports.json_lines import JsonReport
from anysched._cli.reports.report import for_stream
from anysched._cli.streams import print_error

from .arguments import CrontabArguments
from .environment import is_current_user
from .file import CrontabFile, RefusedError
from .preview import json_run, preview, text_run
from .session import CrontabSession
from .syntax import CronLine
from .warnings import warnings
from .zones import local_zone

__all__ = ["run_crontab"]

FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)


def run_crontab(arguments: CrontabArguments) -> int:
    """Run, check or preview a crontab, as the arguments ask.

    Returns:
        The exit status for the process.
    """
    try:
        zone = arguments.zone
        if zone is None:
            zone, note = local_zone()
            if note:
                print_error(note)
        may_run_as = is_current_user if arguments.system else None
        file = CrontabFile(arguments.file, zone, may_run_as, arguments.lenient)
        try:
            lines = file.load(print_error)
        except OSError as error:
            print_error(f"cannot read {file.name}: {error.strerror}")
            return EXIT_USAGE
        except RefusedError as error:
            print_error(str(error))
            return EXIT_FAILURE
        if arguments.test:
            suspicious = list(warnings(lines, has_user=arguments.system))
            for warning in suspicious:
                print_error(f"{file.name}: line {warning.number}: warning: {warning.reason}")
            if suspicious and arguments.strict:
                return EXIT_FAILURE
            return print_lines([f"{file.name}: {len(lines)} command{'s' * (len(lines) != 1)}, and nothing is run"])
        if arguments.until is not None:
            return print_lines(_preview(lines, zone, arguments.until, arguments))
        report = JsonReport(sys.stdout) if arguments.log_format == "json" else for_stream(sys.stdout, zone)
        session = CrontabSession(file, lines, report, arguments.grace, arguments.web)
        return anyio.run(session.run, backend=arguments.backend)
    except KeyboardInterrupt:  # outside of the session, which receives signals itself
        return EXIT_INTERRUPTED


def _preview(lines: Iterable[CronLine], zone: tzinfo, until: datetime, arguments: CrontabArguments) -> Iterable[str]:
    if until.utcoffset() is None:
        until = until.replace(tzinfo=zone)
    format_run = json_run if arguments.log_format == "json" else text_run
    return map(format_run, preview(lines, datetime.now(UTC), _as_utc(until)))


def _as_utc(time: datetime) -> datetime:
    """Return a time in UTC, or the nearest possible one, since the limits of the calendar depend on the zone."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return FIRST if time.year == FIRST.year else LAST
