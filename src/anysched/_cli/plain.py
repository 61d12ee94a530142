"""Reporting in plain lines, for a pipe or a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, final

import anyio

from .report import Event, event_lines, note_line

__all__ = ["PlainReport"]


@final
class PlainReport:
    """Reports in lines that are easy to read and to search, each written out at once.

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
        """Nothing is left to write."""

    def show(self, event: Event) -> None:
        """Write what happened to a task."""
        self._write(event_lines(event))

    def note(self, text: str) -> None:
        """Write what concerns no single task."""
        self._write([note_line(text)])

    async def animate(self) -> None:
        """Do nothing until cancelled: what was written is written."""
        await anyio.sleep_forever()

    def _write(self, lines: list[str]) -> None:
        # What the encoding of the stream cannot express must not stop the schedule.
        encoding = self._stream.encoding or "utf-8"
        text = "".join(line + "\n" for line in lines).encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            # The reader has gone; SIGPIPE tells the schedule. The interpreter would stumble over what is still in the
            # buffer when it ends.
            with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
