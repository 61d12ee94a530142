"""The standard streams of the process, which may be closed or may not be read, and what else it inherits."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import TextIO

__all__ = ["closed_streams", "descriptor_of", "leave_streams", "prepare_process", "print_error", "write_line"]

STDERR = 2


def prepare_process() -> None:
    """Repair inherited streams and signal handlers, before anything is opened or started."""
    # Otherwise, the next file to be opened would get the number of a closed stream, and receive its output.
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)
    # Inherited, an ignored SIGCHLD would lose the exit status of every command.
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # The system ignores signals for process 1 unless it handles them, which a schedule does only when it runs.
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _exit_by_signal)


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def closed_streams() -> set[str]:
    """Return which of the standard streams were closed when the process started, by name."""
    names = ("stdin", "stdout", "stderr")
    return {name for name in names if getattr(sys, name) is None}


def print_error(text: str, timeout: float | None = None) -> None:
    """Write an error message to the standard error, if that can be written.

    Args:
        text: The message.
        timeout: How long to wait at most until it can be written, in seconds; `None` for no limit.
    """
    stream: TextIO | None = sys.stderr
    if stream is None:  # closed; `print` would take the standard output
        return
    with suppress(OSError):
        descriptor = descriptor_of(stream)
        if timeout is None or descriptor is None or select.select([], [descriptor], [], timeout)[1]:
            write_line(stream, f"anysched: {text}")


def write_line(stream: TextIO, line: str) -> None:
    """Write a line at once and wholly, also where that takes its time; characters that the encoding lacks are escaped.

    It is written to the descriptor of the stream: what the stream cannot write it would try to write again at exit, and
    end with status 120.

    Raises:
        OSError: if it cannot be written.
    """
    encoding = stream.encoding or "utf-8"
    data = f"{line}\n".encode(encoding, "backslashreplace")
    descriptor = descriptor_of(stream)
    if descriptor is None:
        stream.write(data.decode(encoding))
        stream.flush()
        return
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another process has made it non-blocking
            select.select([], [descriptor], [])


def descriptor_of(stream: TextIO) -> int | None:
    """Return the descriptor of a stream, if it has one."""
    try:
        return stream.fileno()
    except (AttributeError, OSError):
        return None


def leave_streams() -> OSError | None:
    """Flush the standard streams; redirect one that cannot be written to the null device.

    The interpreter would otherwise fail in this at exit, and end with status 120.

    Returns:
        Why the rest of the standard output could not be written; `None` if it could, or if the reader has closed it.
    """
    failure: OSError | None = None
    streams: tuple[TextIO | None, ...] = (sys.stdout, sys.stderr)
    for stream in filter(None, streams):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                failure = error
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return failure
