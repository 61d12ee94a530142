"""Writing lines to the standard output, whose reader may close it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable

from .exit_statuses import EXIT_FAILURE, EXIT_SIGNAL
from .streams import print_error, write_line

__all__ = ["print_lines"]

SIGPIPE = getattr(signal, "SIGPIPE", 13)  # not every system has it


def print_lines(lines: Iterable[str]) -> int:
    """Write lines to the standard output.

    Returns:
        The exit status for the process.
    """
    try:
        for line in lines:
            write_line(sys.stdout, line)
    except BrokenPipeError:  # the reader has closed it
        return EXIT_SIGNAL + SIGPIPE
    except OSError as error:
        print_error(f"cannot write to the standard output: {error.strerror}")
        return EXIT_FAILURE
    return 0
