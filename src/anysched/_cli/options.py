"""Options that several subcommands have, and how their help is laid out."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter
from importlib.util import find_spec
from typing import Literal, TypeAlias

__all__ = ["Backend", "ParagraphFormatter", "add_common_options", "check_platform"]

Backend: TypeAlias = Literal["asyncio", "trio"]


class ParagraphFormatter(HelpFormatter):
    """Fills paragraphs to the width of the terminal, and leaves those with an indented line as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph
            if "\n " in f"\n{paragraph}"
            else super(ParagraphFormatter, self)._fill_text(paragraph, width, indent)
            for paragraph in text.strip("\n").split("\n\n")
        )


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
