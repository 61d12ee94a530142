"""The arguments of the command line: the subcommands ``run``, ``crontab``, ``demo`` and ``durable``.

They are parsed by `argparse`, since an installation without extras has no other parser; argcomplete, from the extra
``cli``, completes them in the shell.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from .crontab.arguments import CrontabArguments, add_crontab_arguments, checked_crontab_arguments
from .durable.arguments import DurableArguments, add_durable_arguments
from .options import Backend, ParagraphFormatter, add_common_options, check_platform
from .page import Address

__all__ = ["Arguments", "build_parser", "parse_arguments"]

COMMANDS: Final = ("run", "crontab", "demo", "durable")

DESCRIPTION: Final = """\
Run commands on a schedule: JSON objects, one per line, or a crontab. Or look into the store of a durable scheduler.
"""

EPILOG: Final = """\
"anysched COMMAND --help" explains a command. Without one, "anysched FILE" is "anysched run FILE".

Shell completion requires the extra "cli":

  eval "$(register-python-argcomplete anysched)"
"""

RUN: Final = """\
Run commands under IDs, now or in the future. The schedule has one JSON object on each line:

  {"id": ID, "run": ["command", "argument", ...]}    now
  {"id": ID, "in": SECONDS, "run": [...]}            after a delay
  {"id": ID, "at": TIME, "run": [...]}               at a time
  {"cancel": ID}                                     drop or terminate it

An ID is a string or a whole number. A time is in ISO 8601 format, such as "2030-01-01T12:00:00+01:00"; without a zone,
it is in UTC.

A line with an ID that is still held replaces the task that holds it; a running command is terminated first. A malformed
line is reported with its number and skipped. Standard input may stay open and provide lines while the schedule runs.
Commands have no standard input; their output is shown when they have ended.
"""

RUN_EPILOG: Final = """\
Ctrl-C, SIGTERM, SIGQUIT and SIGHUP end the schedule: pending commands are dropped, and running ones may continue for
the --grace period. Then they are terminated, and those that did not finish are listed. A second signal ends the grace
period at once. SIGUSR1 writes the running and the pending commands to standard error.

On a terminal a live table is shown (requires rich: pip install 'anysched[cli]'), otherwise plain lines.

exit status:
  0      all commands ended with exit status 0, or were cancelled by the
         schedule
  1      a command failed, or a line was malformed
  2      the arguments are wrong, or the schedule cannot be read
  128+N  ended by signal N (130: Ctrl-C, 143: SIGTERM)
"""

DEMO: Final = """\
Run a built-in schedule of two seconds: a delay, a replacement, cancellations and a command that fails. With --web it is
repeated until interrupted.
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of ``run`` and ``demo``, checked.

    Attributes:
        file: The path of the schedule; ``"-"`` is standard input.
        backend: The event loop.
        grace: How long running commands may take when a signal ends the schedule, in seconds.
        demo: Whether to run the built-in sample instead.
        web: The host and the port of the page, if requested.
    """

    file: str
    backend: Backend
    grace: float
    demo: bool
    web: Address | None = None


def parse_arguments(argv: Sequence[str]) -> Arguments | CrontabArguments | DurableArguments:
    """Return the arguments of the command line.

    Args:
        argv: The arguments, without the program's name.

    Raises:
        SystemExit: with status 2 and a message if they are wrong; with status 0 after ``--help`` and ``--version``, and
            after the help if there are no arguments and standard input is a terminal.
    """
    parser, commands = build_parser()
    if not argv and sys.stdin is not None and sys.stdin.isatty():
        parser.print_help()
        raise SystemExit(0)
    # Without a command, it is a file, as before there were commands, or an option of `run`.
    has_command = bool(argv) and argv[0] in (*COMMANDS, "-h", "--help", "--version")
    options = vars(parser.parse_args([*argv] if has_command else ["run", *argv]))
    command = options.pop("command")
    if command == "durable":
        return DurableArguments.of(options)
    check_platform(commands[command], options["backend"], options["web"])
    if command == "crontab":
        return checked_crontab_arguments(commands[command], options)
    if command == "run" and options["demo"] and options["file"] is not None:
        commands[command].error("--demo runs its own schedule: give no FILE with it")
    return Arguments(options["file"] or "-", options["backend"], options["grace"], options["demo"], options["web"])


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser, and the parsers of the subcommands by name. During shell completion, it does not return."""
    parser = ArgumentParser(prog="anysched", description=DESCRIPTION, epilog=EPILOG, formatter_class=ParagraphFormatter)
    parser.add_argument("--version", action="version", version=f"anysched {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a schedule of JSON lines",
        description=RUN,
        epilog=RUN_EPILOG,
        formatter_class=ParagraphFormatter,
    )
    run.add_argument("file", metavar="FILE", nargs="?", help='the schedule; "-", the default, is standard input')
    run.add_argument("--demo", action="store_true", help=SUPPRESS)  # before there was a command for it
    add_common_options(run)
    crontab = commands.add_parser("crontab", help="run a crontab in the foreground", formatter_class=ParagraphFormatter)
    add_crontab_arguments(crontab)
    demo = commands.add_parser(
        "demo", help="run a built-in sample", description=DEMO, formatter_class=ParagraphFormatter
    )
    demo.set_defaults(file=None, demo=True)
    add_common_options(demo, needs_address=False)
    durable = commands.add_parser(
        "durable", help="look into the store of a durable scheduler", formatter_class=ParagraphFormatter
    )
    add_durable_arguments(durable)
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser, {"run": run, "crontab": crontab, "demo": demo, "durable": durable}


def _version() -> str:
    try:
        return version("anysched")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"
