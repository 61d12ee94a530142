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
Run a crontab in the foreground, without a daemon, a mailer or root: in a container, or to try it out.

FILE has the syntax of crontab(5): five fields or a name such as @hourly, and a command for the shell. Above it may be
assignments of environment variables, CRON_TZ among them. A % begins the standard input of the command. The expressions
are those that cronsim understands.

A line that still runs when it is due again is not started twice; it runs again when it has ended. The output of the
commands is passed on as it comes, each line with the name of its job: line-5 is that of line 5. If a line is wrong, it is
reported with its number, and nothing is run, or with --lenient nothing but the other lines.
"""

EPILOG: Final = """\
SIGHUP and SIGUSR2 read FILE again. Jobs that run go on, and lines that have not changed are not touched; if a line is
wrong, the old schedule stays. SIGUSR1 writes the running and the pending jobs to the standard error. Ctrl-C, SIGTERM and
SIGQUIT end the schedule: running commands may go on for the time of --grace and are then terminated and listed. A second
one cuts the grace short.

On a terminal a live table is shown, elsewhere, or with --log-format json, lines. Needs: pip install 'anysched[cli]'. The
documentation lists the differences from cron.

exit status:
  0      --test or --dry-run, and nothing is wrong
  1      a line is wrong, or with --strict suspicious
  2      the arguments are wrong, or FILE cannot be read
  128+N  ended by signal N (130: Ctrl-C, 143: SIGTERM)
"""


@dataclass(frozen=True, slots=True)
class CrontabArguments:
    """The arguments, checked.

    Attributes:
        file: The path of the crontab; ``"-"`` is the standard input.
        backend: What anyio runs on.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
        zone: The zone that was chosen; `None` for that of the machine.
        system: Whether the crontab has a column for the user.
        lenient: Whether the other lines are run if some are wrong.
        log_format: How it is reported.
        test: Whether to check the file only.
        strict: Whether a line that is suspicious is as bad as one that is wrong.
        dry_run: Whether to print when the commands would run, instead of running them.
        until: The time up to which to do so; without a zone if none was given.
        web: The host and the port of the page, if there is to be one.
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
    parser.add_argument("file", metavar="FILE", help='the crontab; "-" is the standard input')
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
        "--system", action="store_true", help="the lines have a sixth column, the user, who must be the current one"
    )
    parser.add_argument("--lenient", action="store_true", help="skip lines that are wrong, and run the others")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how to report (default: %(default)s)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--test", action="store_true", help="check FILE, and run nothing")
    parser.add_argument("--strict", action="store_true", help="with --test: fail also if a line is suspicious")
    instead.add_argument("--dry-run", action="store_true", help="print the next runs, and run nothing; needs --until")
    parser.add_argument(
        "--until",
        type=_time,
        metavar="TIME",
        help="how far to go: a time in ISO 8601; without a zone: that of the times",
    )


def checked_crontab_arguments(parser: ArgumentParser, options: dict[str, Any]) -> CrontabArguments:
    """Return the arguments if they fit together.

    Args:
        parser: What to refuse them with.
        options: What was given, by name.

    Raises:
        SystemExit: with status 2 if they do not, after a message.
    """
    if options["dry_run"] != (options["until"] is not None):
        parser.error("--dry-run and --until TIME go together")
    if options["strict"] and not options["test"]:
        parser.error("--strict goes with --test")
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
