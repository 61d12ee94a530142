"""Putting the parts together: where lines come from, who is told, and what runs it all."""

from __future__ import annotations

import os
import sys
from functools import partial

import anyio

from .arguments import Arguments
from .closing import EXIT_INTERRUPTED, EXIT_TROUBLE, EXIT_UNREADABLE, complain
from .demo import feed_sample
from .plain import PlainReport
from .session import Session
from .showing import report_to
from .source import Source, open_input, read_lines

__all__ = ["run"]


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
    return anyio.run(Session(source, report_to(sys.stdout), arguments.grace).run, backend=arguments.backend)
