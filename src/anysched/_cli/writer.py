"""Writing to a stream that may not be read, without blocking the event loop.

A thread writes. If it cannot be started, or the stream has no descriptor, texts are written at once.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, TextIO, final

from .streams import descriptor_of

__all__ = ["Writer"]

CAPACITY: Final = 1_000_000
"""The characters that may wait before text that may be dropped is dropped."""

BATCH: Final = 65_536

CHUNK: Final = 4096
"""How many bytes are written at once. A pipe accepts this many completely or not at all."""


@final
class Writer:
    """Writes text to a stream in the background.

    Args:
        stream: The stream. Its descriptor is written to directly: nothing is left in its buffer at exit.
        mark: Returns a text that says how many lines were dropped; it is written where they are missing.

    Attributes:
        error: Why lines could not be written; `None` if all could.
        lost: The number of lines that could not be written.
        is_broken: Whether the reader has closed the stream. Nothing more is written.
    """

    def __init__(self, stream: TextIO, mark: Callable[[int], str]) -> None:
        self._stream = stream
        self._descriptor = descriptor_of(stream)
        self._encoding = stream.encoding or "utf-8"
        self._mark = mark
        # Texts, each with the number of lines that it represents. A note on dropped lines represents all of them.
        self._queue: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._dropped = 0
        # The same for the texts that are being written.
        self._unwritten = memoryview(b"")
        self._unwritten_lines = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self.error: OSError | None = None
        self.lost = 0
        self.is_broken = False

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return self._size == 0

    def write(self, text: str, *, may_drop: bool = False) -> None:
        """Queue a text for writing. Characters that the encoding of the stream lacks are escaped.

        Args:
            text: The text, usually complete lines.
            may_drop: Whether the text may be dropped, and its lines counted, if the queue is too long.
        """
        if not text:
            return
        if may_drop and self._size > (CAPACITY // 2 if self._dropped else CAPACITY):
            self._dropped += text.count("\n")
            return
        self._add_mark()
        self._add(text, text.count("\n"))

    def flush(self, timeout: float) -> bool:
        """Wait until everything has been written; return whether it has.

        Args:
            timeout: How long to wait at most, in seconds.
        """
        self._add_mark()
        end = monotonic() + timeout
        with self._changed:
            while self._size and self._thread is not None:
                if not self._changed.wait(end - monotonic()) and monotonic() >= end:
                    return False
        return True

    def close(self, timeout: float) -> None:
        """Write the waiting texts, as far as the time suffices, and end the thread.

        Args:
            timeout: How long to wait at most, in seconds.
        """
        if not self.flush(timeout):
            with self._changed:
                # The thread is blocked in a write. It is a daemon and ends with the process.
                self.lost += self._unwritten_lines + sum(lines for _, lines in self._queue)
                self.error = self.error or TimeoutError("it is not read")
                self._queue.clear()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _add_mark(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._add(self._mark(dropped), dropped)

    def _add(self, text: str, lines: int) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            self._queue.append((data, lines))
            self._size += len(data)
            self._changed.notify_all()
        if self._thread is None and not self._start_thread():
            while self._write_batch():
                pass

    def _start_thread(self) -> bool:
        if self._descriptor is None:
            return False
        thread = threading.Thread(target=self._run, name="writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._is_closed:
                        return
                    self._changed.wait()
            self._write_batch()

    def _write_batch(self) -> bool:
        """Write some of the waiting texts; return whether there were any."""
        with self._changed:
            batch = bytearray()
            batch_lines = 0
            while self._queue and len(batch) < BATCH:
                data, lines = self._queue.popleft()
                batch += data
                batch_lines += lines
            self._unwritten_lines = batch_lines
        if not batch:
            return False
        try:
            if not self.is_broken:
                self._unwritten = memoryview(bytes(batch))
                self._write()
        finally:
            with self._changed:
                self._size -= len(batch)
                self._changed.notify_all()
        return True

    def _write(self) -> None:
        try:
            if self._descriptor is None:
                self._stream.write(bytes(self._unwritten).decode(self._encoding))
                self._stream.flush()
                return
            while self._unwritten:
                try:
                    written = os.write(self._descriptor, self._unwritten[:CHUNK])
                    self._unwritten_lines -= bytes(self._unwritten[:written]).count(b"\n")
                    self._unwritten = self._unwritten[written:]
                except BlockingIOError:  # another process has made it non-blocking
                    select.select([], [self._descriptor], [])
        except BrokenPipeError:
            self.is_broken = True
            # The system has sent it before, when it could not yet be seen that it was because of this stream.
            signal.raise_signal(signal.SIGPIPE)
        except OSError as error:  # a full disk, a terminal that has closed
            self.error = error
            self.lost += self._unwritten_lines
