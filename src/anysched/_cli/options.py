"""Options of several subcommands, and the layout of their help."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

__all__ = ["DEFAULT_ADDRESS", "Backend", "ParagraphFormatter", "add_common_options", "check_platform"]

Backend: TypeAlias = Literal["asyncio", "trio"]

DEFAULT_ADDRESS: Final = ("127.0.0.1", 8080)


class ParagraphFormatter(HelpFormatter):
    """Fills paragraphs to the width of the terminal, and leaves those with an indented line as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph
            if "\n " in f"\n{paragraph}"
            else super(ParagraphFormatter, self)._fill_text(paragraph, width, indent)
            for paragraph in text.strip("\n").split("\n\n")
        )


def add_common_options(parser: ArgumentParser, *, needs_address: bool = True) -> None:
    """Add the options that do not depend on the kind of schedule: ``--backend``, ``--grace`` and ``--web``.

    Args:
        parser: The parser.
        needs_address: Whether ``--web`` must be followed by an address. It is optional if there are no other arguments.
    """
    parser.add_argument(
        "--backend",
        choices=("asyncio", "trio"),
        default="asyncio",
        help="the event loop to run on (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long running commands may take after a signal (default: %(default)g; inf: no limit)",
    )
    parser.add_argument(
        "--web",
        type=_address,
        nargs=None if needs_address else "?",
        const=None if needs_address else DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="show the schedule on a page in the browser; everyone who can reach it can read it",
    )


def check_platform(parser: ArgumentParser, backend: Backend, web: object) -> None:
    """Check that the platform and the installed packages support the options.

    Args:
        parser: The parser, which reports errors.
        backend: The chosen backend.
        web: The address of the page, if requested.

    Raises:
        SystemExit: with status 2 and a message if they do not.
    """
    if backend == "trio" and find_spec("trio") is None:
        parser.error("--backend trio needs trio: pip install 'anysched[trio]'")
    if web is not None and not (find_spec("starlette") and find_spec("hypercorn")):
        parser.error("--web needs Starlette and Hypercorn: pip install 'anysched[web]'")
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


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or ":" in host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:8080, not {text!r}")
    return host, int(port)
