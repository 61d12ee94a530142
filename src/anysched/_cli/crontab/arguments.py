"""The arguments of ``anysched crontab``."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from importlib.util import find_spec
from typing import Any, Final, Literal

from anysched._cli.options import Backend, add_common_options
from anysched._cli.page import Address

from .zones import named_zone

__all__ = ["CrontabArguments", "add_crontab_arguments", "checked_crontab_arguments"]

DESCRIPTION: Final = """\
Run a crontab in the foreground, without a daemon, a mailer or root, for example in a container.

FILE has the syntax of crontab(5): five fields or a name such as @hourly, followed by a command for the shell. Lines
above it can assign environment variables, including CRON_TZ. A % in the command starts its standard input. Expressions
are parsed by cronsim.

A line that is due while it is still running is not started twice; it runs again when it has ended. The output of
commands is passed on line by line, each line with the name of its job, such as line-5 for line 5. If a line is
invalid, it is reported with its number and nothing is run, or, with --lenient, only the other lines.
"""

EPILOG: Final = """\
SIGHUP and SIGUSR2 read FILE again. Running jobs continue, and unchanged lines are not affected; if a line is invalid,
the old schedule stays in force. SIGUSR1 writes the running and the pending jobs to standard error. Ctrl-C, SIGTERM and
SIGQUIT end the schedule: running commands may continue for the --grace period and are then terminated and listed. A
second signal ends the grace period at once.

On a terminal a live table is shown; otherwise, or with --log-format json, lines. Requires: pip install
'anysched[cli]'. The documentation lists the differences from cron.

exit status:
  0      --test or --dry-run, and no line is invalid
  1      a line is invalid or, with --strict, suspicious
  2      the arguments are wrong, or FILE cannot be read
  128+N  ended by signal N (130: Ctrl-C, 143: SIGTERM)
"""


@dataclass(frozen=True, slots=True)
class CrontabArguments:
    """The arguments, checked.

    Attributes:
        file: The path of the crontab; ``"-"`` is standard input.
        backend: The event loop.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
        zone: The chosen zone; `None` for that of the machine.
        system: Whether the crontab has a user column.
        lenient: Whether to skip invalid lines and run the others.
        log_format: The format of the report.
        test: Whether to only check the file.
        strict: Whether suspicious lines are errors.
        dry_run: Whether to print when the commands would run, instead of running them.
        until: The end of the dry run; without a zone if none was given.
        web: The host and the port of the page, if requested.
    """

    file: str
    backend: Backend
    grace: float
    zone: tzinfo | None
    system: bool
    lenient: bool
    log_format: Literal["text", "json"]
    test: bool
    strict: bool
    dry_run: bool
    until: datetime | None
    web: Address | None = None


def add_crontab_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of ``anysched crontab``, and its help."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("file", metavar="FILE", help='the crontab; "-" is standard input')
    add_common_options(parser)
    zone = parser.add_mutually_exclusive_group()
    zone.add_argument("--utc", dest="zone", action="store_const", const=UTC, help="times are in UTC")
    zone.add_argument(
        "--zone",
        type=_zone,
        metavar="NAME",
        help="times are in this zone, such as Europe/Paris (default: the machine's)",
    )
    parser.add_argument(
        "--system", action="store_true", help="lines have a sixth column for the user, who must be the current user"
    )
    parser.add_argument("--lenient", action="store_true", help="skip invalid lines and run the others")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="the format of the report (default: %(default)s)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--test", action="store_true", help="check FILE without running anything")
    parser.add_argument("--strict", action="store_true", help="with --test: also fail if a line is suspicious")
    instead.add_argument(
        "--dry-run", action="store_true", help="print the next runs without running anything; requires --until"
    )
    parser.add_argument(
        "--until",
        type=_time,
        metavar="TIME",
        help="the end of the dry run: a time in ISO 8601 format, by default in the time zone of the schedule",
    )


def checked_crontab_arguments(parser: ArgumentParser, options: dict[str, Any]) -> CrontabArguments:
    """Return the arguments if they fit together.

    Args:
        parser: The parser, which reports errors.
        options: The options, by name.

    Raises:
        SystemExit: with status 2 and a message if they do not.
    """
    if options["dry_run"] != (options["until"] is not None):
        parser.error("--dry-run and --until TIME require each other")
    if options["strict"] and not options["test"]:
        parser.error("--strict requires --test")
    if find_spec("cronsim") is None:
        parser.error("crontab needs cronsim: pip install 'anysched[cli]'")
    return CrontabArguments(**options)


def _zone(name: str) -> tzinfo:
    try:
        return named_zone(name)
    except (ValueError, ModuleNotFoundError) as error:  # the latter: cronsim is missing
        raise ArgumentTypeError(str(error)) from None


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a time in ISO 8601, not {text!r}") from None
