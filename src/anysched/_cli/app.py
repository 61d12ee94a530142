"""Putting the parts together: where lines come from, who is told, and what runs it all."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TextIO

import anyio

from .arguments import Arguments
from .demo import feed_sample
from .plain import PlainReport
from .report import Report
from .session import EXIT_TROUBLE, EXIT_UNREADABLE, Session, complain
from .source import Source, open_input, read_lines

__all__ = ["run"]

EXIT_INTERRUPTED = 130


def run(arguments: Arguments) -> int:
    """Run what the arguments ask for.

    Returns:
        The exit status for the process.
    """
    try:
        if arguments.demo:
            return _run_demo(arguments)
        try:
            descriptor = open_input(arguments.file)
        except OSError as error:
            name = "the standard input" if arguments.file == "-" else arguments.file
            complain(f"cannot open {name}: {error.strerror}")
            return EXIT_UNREADABLE
        try:
            return _run_session(partial(read_lines, descriptor), arguments)
        finally:
            os.close(descriptor)
    except KeyboardInterrupt:  # before signals are received in an orderly way, or after
        return EXIT_INTERRUPTED


def _run_demo(arguments: Arguments) -> int:
    status = _run_session(feed_sample, arguments)
    if status != EXIT_TROUBLE:
        return status
    PlainReport(sys.stdout).note(
        "demo: one command was meant to fail; the exit status is 0, of a schedule it would be 1"
    )
    return 0


def _run_session(source: Source, arguments: Arguments) -> int:
    return anyio.run(Session(source, _report_to(sys.stdout), arguments.grace).run, backend=arguments.backend)


def _report_to(stream: TextIO) -> Report:
    """Return a table for a terminal, if it can show one and rich is there, else plain lines."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from .table import TableReport
        except ImportError:
            pass
        else:
            return TableReport(stream)
    return PlainReport(stream)
