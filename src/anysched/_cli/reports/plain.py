"""Reporting in lines, for a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TextIO, final

import anyio

from anysched._cli.streams import print_error
from anysched._cli.writer import Writer

from .events import Event, Level, event_lines, note_line, output_lines, state_lines
from .formats import TimeFormat, count_lines

__all__ = ["CLOSE_TIMEOUT", "ErrorReport", "LineReport", "PlainReport", "report_lost_lines"]

CLOSE_TIMEOUT = 2.0
"""The seconds that the reader of the report has at the end."""

ERROR_TIMEOUT = 0.5
"""The seconds that the reader of the standard error has at the end."""


class ErrorReport:
    """Writes to the standard error, in the background: what all reports have in common.

    Args:
        format_time: How times are shown.
    """

    def __init__(self, format_time: TimeFormat) -> None:
        self._format_time = format_time
        # The stream is missing if it was closed when the process started.
        self._errors = sys.stderr and Writer(sys.stderr, lambda count: f"... {count_lines(count)} not shown\n")

    @property
    def is_broken(self) -> bool:
        """Whether a reader has closed it."""
        return bool(self._errors and self._errors.is_broken)

    def error(self, text: str) -> None:
        """Write to the standard error."""
        if self._errors:
            self._errors.write(f"anysched: {text}\n", may_drop=True)

    def show_state(self, commands: Iterable[tuple[Event, datetime | None]]) -> None:
        """Write to the standard error which commands run and which are pending."""
        self.error("\n".join(state_lines(commands, self._format_time)))

    def _close_errors(self) -> None:
        if self._errors:
            self._errors.close(ERROR_TIMEOUT)


class Closed(Protocol):
    """A writer that has been closed."""

    @property
    def lost(self) -> int:
        """The number of lines that were not written."""
        ...

    @property
    def error(self) -> OSError | None:
        """The reason."""
        ...


class LineReport(ErrorReport):
    """Writes lines in the background.

    Args:
        stream: The stream.
        format_time: How times are shown.
    """

    separates_streams = False

    def __init__(self, stream: TextIO, format_time: TimeFormat = TimeFormat()) -> None:  # noqa: B008  # a value
        super().__init__(format_time)
        self._writer = Writer(stream, lambda count: self._note_text(f"... {count_lines(count)} not shown", "warning"))

    @property
    def is_broken(self) -> bool:
        """Whether a reader has closed it."""
        return self._writer.is_broken or super().is_broken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close(CLOSE_TIMEOUT)
        self._close_errors()
        report_lost_lines(self._writer)

    def note(self, text: str, level: Level = "info") -> None:
        """Write a note that is not about a single task."""
        self._writer.write(self._note_text(text, level))

    def suspend(self) -> None:
        """Do nothing: the terminal, if there is one, is as it was."""

    def resume(self) -> None:
        """Do nothing."""

    async def refresh(self) -> None:
        """Do nothing until cancelled: lines that were written need no refresh."""
        await anyio.sleep_forever()

    def _note_text(self, text: str, level: Level) -> str:
        raise NotImplementedError


@final
class PlainReport(LineReport):
    """Reports in lines that are easy to read and to search."""

    def show(self, event: Event) -> None:
        """Write an event."""
        *output, line = event_lines(event, self._format_time)
        self._writer.write(_text(output), may_drop=True)
        self._writer.write(_text([line]))

    def pass_on(self, event: Event) -> None:
        """Write the output in an event."""
        self._writer.write(_text(output_lines(event, self._format_time)), may_drop=True)

    def _note_text(self, text: str, level: Level) -> str:
        return _text([note_line(text, self._format_time)])


def report_lost_lines(writer: Closed) -> None:
    """Report to the standard error how many lines could not be written."""
    if writer.lost:
        assert writer.error is not None
        reason = writer.error.strerror or str(writer.error)
        print_error(f"{count_lines(writer.lost)} of the report could not be written: {reason}", timeout=ERROR_TIMEOUT)


def _text(lines: Iterable[str]) -> str:
    return "".join(line + "\n" for line in lines)
