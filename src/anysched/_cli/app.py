"""Running a schedule from a file: connects the source of lines, the report and the session."""

from __future__ import annotations

import os
import sys
from functools import partial

import anyio

from .arguments import Arguments
from .demo import feed_sample, feed_samples
from .exit_statuses import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from .reports.report import for_stream
from .session import Session
from .source import Source, open_input, read_lines
from .streams import print_error

__all__ = ["run"]


def run(arguments: Arguments) -> int:
    """Run the schedule that the arguments name.

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
            print_error(f"cannot open {name}: {error.strerror}")
            return EXIT_USAGE
        try:
            return _run_session(partial(read_lines, descriptor), arguments)
        finally:
            os.close(descriptor)
    except KeyboardInterrupt:  # outside of the session, which receives signals itself
        return EXIT_INTERRUPTED


def _run_demo(arguments: Arguments) -> int:
    status = _run_session(feed_sample if arguments.web is None else feed_samples, arguments)
    if status != EXIT_FAILURE:
        return status
    with for_stream(sys.stdout, live=False) as report:
        report.note("demo: one command was meant to fail; the exit status is 0, of a schedule it would be 1")
    return 0


def _run_session(source: Source, arguments: Arguments) -> int:
    session = Session(source, for_stream(sys.stdout), arguments.grace, arguments.web)
    return anyio.run(session.run, backend=arguments.backend)
