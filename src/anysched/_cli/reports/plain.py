"""Reporting in plain lines, for a pipe or a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, final

import anyio

from .events import Event, event_lines, note_line, output_lines

__all__ = ["LineReport", "PlainReport", "redirect_to_devnull", "write_lines"]


class LineReport:
    """Writes lines and flushes them at once.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stream.flush()
        except OSError:  # the disk is still full
            redirect_to_devnull(self._stream)

    async def refresh(self) -> None:
        """Do nothing until cancelled: lines that were written need no refresh."""
        await anyio.sleep_forever()

    def _write(self, lines: list[str]) -> None:
        try:
            write_lines(self._stream, lines)
        except BrokenPipeError:  # the reader has closed it; SIGPIPE ends the schedule
            redirect_to_devnull(self._stream)
        except OSError:  # a full disk, a terminal that has closed: the commands matter more than the report
            pass


@final
class PlainReport(LineReport):
    """Reports in lines that are easy to read and to search.

    Args:
        stream: Where to write.
    """

    def show(self, event: Event) -> None:
        """Write an event."""
        self._write(event_lines(event))

    def pass_on(self, event: Event) -> None:
        """Write the output in an event."""
        self._write(output_lines(event))

    def note(self, text: str) -> None:
        """Write a note that is not about a single task."""
        self._write([note_line(text)])


def write_lines(stream: TextIO, lines: list[str]) -> None:
    """Write and flush lines; characters that the encoding of the stream lacks are escaped.

    Raises:
        OSError: if they cannot be written.
    """
    encoding = stream.encoding or "utf-8"
    stream.write("".join(line + "\n" for line in lines).encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def redirect_to_devnull(stream: TextIO) -> None:
    """Redirect a stream that cannot be written to the null device.

    Otherwise the interpreter fails at exit when it flushes the buffer.
    """
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
