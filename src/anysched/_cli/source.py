"""Reading lines from a file, a pipe, a terminal or a socket."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .lines import LineSplitter

__all__ = ["Source", "open_input", "read_lines"]

Source: TypeAlias = Callable[[Callable[[bytes | None], None]], Awaitable[None]]
"""Calls a function with each line, or `None` for one that is too long, until the end. Not an async iterator, which would need closing."""

CHUNK = 16_384
"""In bytes. The lines of one chunk are handled in one iteration of the event loop."""

STANDARD_INPUT = 0


def open_input(path: str) -> int:
    """Open a file for `read_lines`, and return its descriptor.

    Args:
        path: The path; ``"-"`` is the standard input.

    Raises:
        OSError: if it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:  # it was closed when the process started
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return STANDARD_INPUT
    # Without O_NONBLOCK, opening a named pipe blocks until it has a writer.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


async def read_lines(descriptor: int, take: Callable[[bytes | None], None]) -> None:
    """Read the lines of an open file until its end.

    It waits until the file is readable and only then reads. A worker thread that blocks in a read could not be
    stopped and would keep the interpreter from ending.

    Args:
        descriptor: The file descriptor.
        take: Called with each line, without its end; with `None` for one that is too long.

    Raises:
        OSError: if it cannot be read.
    """
    # epoll and kqueue refuse descriptors that are always readable: regular files, and devices such as /dev/null.
    waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    splitter = LineSplitter()
    while True:
        if waits:
            try:
                await anyio.wait_readable(descriptor)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
                waits = False
        else:
            await checkpoint()
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:  # another process that shares the open file was quicker
            continue
        if not chunk:
            break
        for line in splitter.feed(chunk):
            take(line)
    for line in splitter.finish():
        take(line)
