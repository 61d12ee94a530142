"""Buffers for the output of a command: kept until its end, or passed on line by line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Literal, TypeAlias

__all__ = ["LineBuffer", "OnOutput", "StreamName", "TailBuffer"]

StreamName: TypeAlias = Literal["stdout", "stderr"]

OnOutput: TypeAlias = Callable[[tuple[str, ...], StreamName], object]
"""Called with lines that a command wrote, and the stream; that is standard output if the two are not kept apart."""

OUTPUT_LIMIT = 1_000_000
"""The bytes of output that are kept, counted from its end: a command may run for weeks."""

LINE_LIMIT = 65_536
"""The characters of a line without an end that are held before they are passed on."""

CUT = " ..."
"""The mark of a line that continues in the next one."""


class TailBuffer:
    """Keeps the end of an output until the output is complete."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lost = 0

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._kept += chunk
        if len(self._kept) > 2 * OUTPUT_LIMIT:  # rarely, so that not every chunk moves the whole buffer
            self._cut()

    def lines(self) -> tuple[str, ...]:
        """Return the lines; if the start of the output was discarded, the first line says how much."""
        if len(self._kept) > OUTPUT_LIMIT:
            self._cut()
        lines = tuple(self._kept.decode(errors="backslashreplace").splitlines())
        return (f"... ({self._lost} bytes before this were left out)", *lines) if self._lost else lines

    def _cut(self) -> None:
        excess = len(self._kept) - OUTPUT_LIMIT
        del self._kept[:excess]
        self._lost += excess


class LineBuffer:
    """Passes an output on, line by line.

    Args:
        printed: Called with the lines of each chunk.
        stream: The stream that the output comes from.
    """

    def __init__(self, printed: OnOutput, stream: StreamName) -> None:
        self._printed = printed
        self._stream: StreamName = stream
        # A character, or a CRLF, may be split between two chunks.
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""

    def add(self, chunk: bytes) -> None:
        """Add the next bytes and pass on the lines that they complete."""
        self._take(self._decoder.decode(chunk))

    def lines(self) -> tuple[str, ...]:
        """Pass on the last line, if it had no end, and return no lines."""
        self._take(self._decoder.decode(b"", final=True))
        self._pass_on([self._rest] if self._rest else [])
        self._rest = ""
        return ()

    def _take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        while len(self._rest) > LINE_LIMIT:
            lines.append(self._rest[:LINE_LIMIT] + CUT)
            self._rest = self._rest[LINE_LIMIT:]
        self._pass_on(lines)

    def _pass_on(self, lines: list[str]) -> None:
        if lines:  # a form feed or the like also ends a line
            self._printed(tuple(part for line in lines for part in line.splitlines() or [""]), self._stream)
