"""Reporting in lines, for a pipe or a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, final

import anyio

from .report import Event, event_lines, note_line, output_lines

__all__ = ["LineReport", "PlainReport", "give_up", "write_lines"]


class LineReport:
    """Writes lines out at once.

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
            give_up(self._stream)

    async def animate(self) -> None:
        """Do nothing until cancelled: what was written is written."""
        await anyio.sleep_forever()

    def _write(self, lines: list[str]) -> None:
        try:
            write_lines(self._stream, lines)
        except BrokenPipeError:  # the reader has gone; SIGPIPE tells the schedule
            give_up(self._stream)
        except OSError:  # a full disk, a terminal that has gone: the commands matter more than the report
            pass


@final
class PlainReport(LineReport):
    """Reports in lines that are easy to read and to search.

    Args:
        stream: Where to write.
    """

    def show(self, event: Event) -> None:
        """Write what happened to a task."""
        self._write(event_lines(event))

    def pass_on(self, event: Event) -> None:
        """Write what a command wrote."""
        self._write(output_lines(event))

    def note(self, text: str) -> None:
        """Write what concerns no single task."""
        self._write([note_line(text)])


def write_lines(stream: TextIO, lines: list[str]) -> None:
    """Write lines out at once; what the encoding of the stream cannot express is escaped.

    Raises:
        OSError: if they cannot be written.
    """
    encoding = stream.encoding or "utf-8"
    stream.write("".join(line + "\n" for line in lines).encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def give_up(stream: TextIO) -> None:
    """Let a stream that cannot be written end nowhere.

    The interpreter would stumble, when it ends, over what is still in the buffer.
    """
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
