"""Splitting bytes into lines, with a limit for their length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

__all__ = ["BYTE_ORDER_MARK", "LINE_LIMIT", "LineSplitter"]

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

LINE_LIMIT = 1 << 20
"""The bytes of the longest line. A longer one is not text that was meant to be read here."""


@final
class LineSplitter:
    """Splits bytes that come in pieces into lines, in linear time.

    A byte-order mark before the first line, as some editors write it, is dropped. A line that is too long is `None`; it
    is skipped to its end, and takes no memory.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._is_first = True

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the lines that a chunk completes, without their ends."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._add(line)
            yield self._take()
        self._add(rest)

    def finish(self) -> Iterator[bytes | None]:
        """Yield the last line, if it has no end."""
        if self._size:
            yield self._take()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > LINE_LIMIT:
            self._parts.clear()
        else:
            self._parts.append(part)

    def _take(self) -> bytes | None:
        line = None if self._size > LINE_LIMIT else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._is_first and line is not None:
            line = line.removeprefix(BYTE_ORDER_MARK)
        self._is_first = False
        return line
