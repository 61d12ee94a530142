"""The arguments of the command line."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, TypeAlias

__all__ = ["Arguments", "Backend", "add_common_options", "check_platform", "parse_arguments"]

Backend: TypeAlias = Literal["asyncio", "trio"]

DESCRIPTION = """\
Run commands, now or in the future, each under an ID, as a schedule says.

The schedule has one JSON object on each line:

  {"id": ID, "run": ["command", "argument", ...]}               now
  {"id": ID, "in": SECONDS, "run": ["command", ...]}            after a delay
  {"id": ID, "at": "2030-01-01T12:00:00Z", "run": [...]}        at a time (ISO 8601; without a zone: UTC)
  {"cancel": ID}                                                drop it, or terminate it if it runs

An ID is a string or a whole number. A line with an ID that is still held replaces the task that holds it; a command that
runs is terminated first. A malformed line is reported with its number, and skipped. Standard input may stay open, and
bring lines while the schedule runs. A command has no standard input; what it writes is shown when it has ended.

"anysched crontab FILE" runs a crontab instead; "anysched crontab --help" tells of it.
"""

EPILOG = """\
Ctrl-C, SIGTERM and SIGHUP end the schedule: what is pending is dropped, what runs may go on for the time of --grace and
is then terminated, and what did not finish is listed. A second signal cuts the grace short.

On a terminal a live table is shown (needs rich: pip install 'anysched[cli]'), elsewhere plain lines.

exit status:
  0      all commands ended with exit status 0, or were cancelled by the schedule
  1      a command failed, or a line was malformed
  2      the arguments are wrong, or the schedule cannot be read
  128+N  ended by signal N (130: Ctrl-C, 143: SIGTERM)
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments, checked.

    Attributes:
        file: The path of the schedule; ``"-"`` is the standard input.
        backend: What anyio runs on.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
        demo: Whether to run the built-in sample instead.
    """

    file: str
    backend: Backend
    grace: float
    demo: bool


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Return the arguments of the command line.

    Args:
        argv: The arguments, without the program's name; `None` for those of the process.

    Raises:
        SystemExit: with status 2 if they are wrong, after a message; with status 0 after ``--help`` and ``--version``.
    """
    parser = ArgumentParser(
        prog="anysched", description=DESCRIPTION, epilog=EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help='the schedule; "-", the default, is the standard input')
    add_common_options(parser)
    parser.add_argument("--demo", action="store_true", help="run a built-in sample of a few seconds instead of FILE")
    parser.add_argument("--version", action="version", version=f"anysched {_version()}")
    options = parser.parse_args(argv)
    if options.demo and options.file is not None:
        parser.error("--demo runs its own schedule: give no FILE with it")
    check_platform(parser, options.backend)
    return Arguments(options.file or "-", options.backend, options.grace, options.demo)


def add_common_options(parser: ArgumentParser) -> None:
    """Add what can be chosen whatever the schedule is: ``--backend`` and ``--grace``."""
    parser.add_argument(
        "--backend", choices=("asyncio", "trio"), default="asyncio", help="what to run on (default: %(default)s)"
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long running commands may take after a signal (default: %(default)g; inf: no limit)",
    )


def check_platform(parser: ArgumentParser, backend: Backend) -> None:
    """Refuse to run where it cannot be done.

    Args:
        parser: What to refuse it with.
        backend: The backend that was chosen.

    Raises:
        SystemExit: with status 2, after a message.
    """
    if backend == "trio" and find_spec("trio") is None:
        parser.error("--backend trio needs trio: pip install 'anysched[trio]'")
    if sys.platform == "win32":
        parser.error("the command line needs POSIX signals and process groups; the library itself runs on Windows")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ArgumentTypeError(f"expected a number of seconds, zero or more, not {text!r}")
    return seconds


def _version() -> str:
    try:
        return version("anysched")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"
