"""Reporting on a terminal: a live table of the tasks, and above it the lines reported so far."""

from __future__ import annotations

import sys
from collections import Counter, deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from heapq import nsmallest
from math import ceil
from types import TracebackType
from typing import Self, TextIO, final

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .events import Event, State, event_lines, format_command, format_id, format_time, note_line, output_lines

__all__ = ["TableReport"]

INTERVAL = 0.1
"""The seconds between two checks for new lines."""

QUIET_INTERVALS = 10
"""The table is redrawn after this many checks without an event, to update the times in it."""

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
FRAME_ROWS = 6
"""The lines around the rows: borders, heading, caption, and the line of the cursor."""


@final
class TableReport:
    """Reports in a live table.

    Events are collected until the next refresh: drawing the table for each of a thousand events would delay the
    schedule.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        # No auto_refresh: rich would draw from its own thread, in the middle of a change. The standard error is
        # redirected only if it is a terminal, where it would be written across the table.
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=sys.stderr.isatty()
        )
        self._lines: list[Text] = []
        self._alive: dict[int, Event] = {}
        self._ended: deque[Event] = deque(maxlen=ENDED_ROWS)
        self._totals: Counter[State] = Counter()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._draw()
        with suppress(OSError):
            self._live.stop()

    def show(self, event: Event) -> None:
        """Add an event."""
        *output, line = event_lines(event)
        self._lines += (*map(Text.from_ansi, output), Text(line, style=STYLES[event.state]))
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
        self._lines += map(Text.from_ansi, output_lines(event))

    def note(self, text: str) -> None:
        """Add a note that is not about a single task."""
        self._lines.append(Text(note_line(text), style="bold"))

    async def refresh(self) -> None:
        """Redraw the table when needed, until cancelled."""
        quiet = 0
        while True:
            if self._lines or quiet == QUIET_INTERVALS:
                self._draw()
                quiet = 0
            quiet += 1
            await anyio.sleep(INTERVAL)

    def _draw(self) -> None:
        lines, self._lines = self._lines, []
        with suppress(OSError):  # the terminal has closed; SIGHUP ends the schedule
            if lines:
                self._console.print(Group(*lines), soft_wrap=True)
            self._live.update(self._table(), refresh=True)

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
                _format_due(event, now),
                Text(format_command(event.command)),
            )
        return table


def _format_due(event: Event, now: datetime) -> str:
    if event.due is None:
        return ""
    left = (event.due - now).total_seconds()
    wait = f" (in {ceil(left)} s)" if event.state == "pending" and left > 0 else ""
    return format_time(event.due, now) + wait
