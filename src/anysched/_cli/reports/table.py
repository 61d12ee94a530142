"""Reporting on a terminal: a live table of the tasks, and above it the lines reported so far."""

from __future__ import annotations

import io
import sys
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime
from heapq import nsmallest
from math import ceil
from types import TracebackType
from typing import Final, Self, TextIO, final

import anyio
from rich.console import Console, Group
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from anysched._cli.writer import Writer

from .events import Event, Level, State, event_lines, note_line, output_lines
from .formats import TimeFormat, count_lines, format_command, format_duration, format_id
from .plain import CLOSE_TIMEOUT, ErrorReport
from .terminal import EchoControl

__all__ = ["TableReport"]

INTERVAL = 0.1
"""The seconds between two checks for new lines."""

QUIET_INTERVALS = 10
"""The table is redrawn after this many checks without an event, to update the times in it."""

MAX_OUTPUT_LINES: Final = 1000
"""The lines of output that are shown between two refreshes; more cannot be read anyway."""

STYLES: dict[State, str] = {
    "pending": "cyan",
    "running": "bold yellow",
    "cancelling": "magenta",
    "finished": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "unfinished": "bold magenta",
}

ALIVE: dict[State, int] = {"cancelling": 0, "running": 1, "pending": 2}
"""The states of tasks that have not ended, in the order of the table."""

ENDED_ROWS = 10
FRAME_ROWS = 7
"""The lines around the rows: borders, heading, caption, the line of the cursor, and `FREE_ROWS`."""

FREE_ROWS: Final = 1
"""The lines above the table. If tmux is told to clear the whole terminal, it adds the lines to its history."""

MIN_WIDTH: Final = 70
"""In a narrower terminal, due times are not also shown as durations, so that there is room for the other columns."""

PICTURES: Final = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | dict.fromkeys(
    range(127, 160), 0xFFFD
)
"""The characters shown instead of control characters other than tabs and line breaks."""

HIDE_CURSOR: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"
CLEAR_BELOW: Final = "\r\x1b[J"

SUSPEND_TIMEOUT = 0.5
"""The seconds that the terminal has for the last bytes before the process is stopped."""


@final
class TableReport(ErrorReport):
    """Reports in a live table.

    Events are collected until the next refresh: drawing the table for each of a thousand events would delay the
    schedule. While the terminal does not take what was drawn, nothing more is drawn. In the background of a shell, there
    are only lines, since a table would be drawn over what the shell shows.

    Args:
        stream: The terminal.
        format_time: How times are shown.
    """

    separates_streams = False

    def __init__(self, stream: TextIO, format_time: TimeFormat = TimeFormat(is_brief=True)) -> None:  # noqa: B008
        super().__init__(format_time)
        self._writer = Writer(stream, lambda count: "")
        self._picture = _Picture(stream.encoding)
        self._console = Console(file=self._picture, highlight=False)
        self._echo = EchoControl(stream)
        # The standard error is shown above the table if it is a terminal, which would otherwise be written across it.
        self._shows_errors = sys.stderr is not None and sys.stderr.isatty()
        # The rows that the table has on the terminal, and the width in which it was drawn.
        self._rows = 0
        self._width = self._console.width
        self._is_in_background = False
        self._lines: list[Text] = []
        self._output_lines = 0
        self._alive: dict[int, Event] = {}
        self._ended: deque[Event] = deque(maxlen=ENDED_ROWS)
        self._totals: Counter[State] = Counter()

    def __enter__(self) -> Self:
        self.resume()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._draw()
        self._writer.write(SHOW_CURSOR)
        self._writer.close(CLOSE_TIMEOUT)
        self._echo.restore()
        self._close_errors()

    def show(self, event: Event) -> None:
        """Add an event."""
        *output, line = event_lines(event, self._format_time)
        self._add_output(output)
        self._lines.append(Text(line, style=STYLES[event.state]))
        was_alive = self._alive.pop(event.key, None)
        if event.state in ALIVE:
            self._alive[event.key] = event
        elif was_alive:  # a task that was cancelled at the end is reported again, as unfinished
            self._ended.append(event)
            self._totals[event.state] += 1
        if event.next_due:
            self._alive[event.key] = replace(event, state="pending", due=event.next_due, next_due=None)

    def pass_on(self, event: Event) -> None:
        """Add the output in an event."""
        self._add_output(output_lines(event, self._format_time))

    def note(self, text: str, level: Level = "info") -> None:
        """Add a note that is not about a single task."""
        self._lines.append(Text(note_line(text, self._format_time), style="bold" if level == "info" else "bold red"))

    def error(self, text: str) -> None:
        """Add an error message, or write it to the standard error if that is not a terminal."""
        if self._shows_errors:
            self._lines += (Text(line, style="bold") for line in f"anysched: {text}".splitlines())
        else:
            super().error(text)

    def suspend(self) -> None:
        """Leave the terminal as it was, since the process is about to be stopped."""
        self._draw()
        self._writer.write(SHOW_CURSOR)
        self._writer.flush(SUSPEND_TIMEOUT)
        self._echo.restore()

    def resume(self) -> None:
        """Begin a new table, below what the terminal shows now."""
        self._echo.disable()
        self._rows = 0
        self._writer.write(HIDE_CURSOR)
        self._draw()

    async def refresh(self) -> None:
        """Redraw the table when needed, until cancelled."""
        quiet = 0
        while True:
            has_changed = self._lines or self._console.width != self._width
            if self._writer.is_idle and (has_changed or quiet >= QUIET_INTERVALS):
                self._draw()
                quiet = 0
            quiet += 1
            await anyio.sleep(INTERVAL)

    def _add_output(self, lines: list[str]) -> None:
        room = max(MAX_OUTPUT_LINES - self._output_lines, 0)
        self._output_lines += len(lines)
        self._lines += map(_output_text, lines[:room])

    def _draw(self) -> None:
        self._notice_job_control()
        lines, self._lines = self._lines, []
        dropped, self._output_lines = self._output_lines - MAX_OUTPUT_LINES, 0
        if dropped > 0:
            lines.append(Text(note_line(f"... {count_lines(dropped)} not shown", self._format_time), style="bold red"))
        width, height = self._console.size
        # A terminal that has become narrower has wrapped each row.
        above = min(self._rows * ceil(self._width / width), height - 1)
        self._width = width
        if lines:
            self._console.print(Group(*lines), soft_wrap=True)
        if self._is_in_background:
            self._writer.write(self._picture.take())
            return
        table = self._console.render_lines(self._table())[: max(height - 1 - FREE_ROWS, 1)]
        self._rows = len(table)
        self._console.print(SegmentLines(table, new_lines=True), end="")
        self._writer.write((f"\x1b[{above}A" if above else "") + CLEAR_BELOW + self._picture.take())

    def _notice_job_control(self) -> None:
        """Find out whether the shell has moved this process to the background or to the foreground."""
        is_in_background = self._echo.is_in_background()
        if is_in_background != self._is_in_background:
            self._is_in_background = is_in_background
            self._rows = 0  # the shell may have written below the table
            self._echo.disable()
            self._writer.write(SHOW_CURSOR if is_in_background else HIDE_CURSOR)

    def _table(self) -> Table:
        now = datetime.now(UTC)
        room = max(self._console.height - FRAME_ROWS, 2)
        alive = nsmallest(room, self._alive.values(), key=lambda event: (ALIVE[event.state], event.due or now))
        ended = list(self._ended)[-(room - len(alive)) :] if room > len(alive) else []
        counts = Counter(event.state for event in self._alive.values()) + self._totals
        table = Table(expand=True, caption=", ".join(f"{count} {state}" for state, count in counts.items()))
        table.add_column("ID", no_wrap=True, max_width=20)
        table.add_column("State", no_wrap=True)
        table.add_column("Due", no_wrap=True)
        table.add_column("Command", no_wrap=True, ratio=1)  # the column that shrinks on a narrow terminal
        for event in (*ended, *alive):
            table.add_row(
                Text(format_id(event.task_id)),
                Text(event.state, style=STYLES[event.state]),
                self._format_due(event, now),
                Text(format_command(event.command)),
            )
        return table

    def _format_due(self, event: Event, now: datetime) -> str:
        if event.due is None:
            return ""
        left = (event.due - now).total_seconds()
        has_room = self._console.width >= MIN_WIDTH
        wait = f" (in {format_duration(left)})" if has_room and event.state == "pending" and left > 0 else ""
        return self._format_time(event.due, now) + wait


def _output_text(line: str) -> Text:
    """Return a line of output with its colours. Control characters that rich leaves could change the terminal."""
    text = Text.from_ansi(line)
    text.plain = text.plain.translate(PICTURES)
    return text


class _Picture(io.TextIOWrapper):
    """The stream that rich draws on; the drawing is read as a whole. It has the encoding of the terminal for rich.

    Args:
        encoding: The encoding.
    """

    def __init__(self, encoding: str | None) -> None:
        super().__init__(io.BytesIO(), encoding or "utf-8", "backslashreplace", newline="\n")

    def isatty(self) -> bool:
        """Return true: escape sequences are for a terminal."""
        return True

    def take(self) -> str:
        """Return what was drawn, and remove it."""
        self.seek(0)
        text = self.read()
        self.seek(0)
        self.truncate()
        return text
