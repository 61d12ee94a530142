"""The events of a running schedule, the interface of a report, and the formats that the reports share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from anysched._cli.entries import TaskId

__all__ = [
    "Command",
    "Event",
    "Report",
    "State",
    "event_lines",
    "format_command",
    "format_id",
    "format_time",
    "note_line",
    "output_lines",
]

Command: TypeAlias = tuple[str, ...] | str
"""A program with its arguments, or a command line for a shell."""

State: TypeAlias = Literal["pending", "running", "cancelling", "finished", "failed", "cancelled", "unfinished"]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a task's state, or output of its command.

    Attributes:
        key: Distinguishes two tasks with one ID, such as by the number of the line that scheduled each.
        task_id: The ID.
        state: Its state now.
        command: The command.
        due: The due time (aware UTC); `None` once it has started.
        detail: Details for people.
        output: Lines that the command wrote, unless they were passed on before.
        next_due: The next due time (aware UTC), if it recurs and a run has ended.
        fields: Details for machines.
    """

    key: int
    task_id: TaskId
    state: State
    command: Command
    due: datetime | None = None
    detail: str = ""
    output: tuple[str, ...] = ()
    next_due: datetime | None = None
    fields: Mapping[str, object] = field(default_factory=dict[str, object])


class Report(Protocol):
    """Reports events to the user. Entered before the first event, left after the last one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def show(self, event: Event, /) -> None:
        """Report an event."""
        ...

    def pass_on(self, event: Event, /) -> None:
        """Report the output in an event; its state has not changed."""
        ...

    def note(self, text: str, /) -> None:
        """Report a note that is not about a single task."""
        ...

    async def refresh(self) -> None:
        """Keep the display up to date until cancelled."""
        ...


def format_id(task_id: TaskId) -> str:
    """Return an ID for display: unchanged if it is one plain word, else in JSON.

    The string "1" is shown in JSON, since it is not the same ID as the number 1.
    """
    plain = str(task_id)
    if isinstance(task_id, int):
        return plain
    word = plain.isprintable() and not any(character in ' "' for character in plain)
    return plain if word and plain and not plain.lstrip("-").isdecimal() else json.dumps(plain)


def format_command(command: Command) -> str:
    """Return a command as it would be typed in a shell, always on one line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in (command if isinstance(command, str) else shlex.join(command))
    )


def format_time(moment: datetime, now: datetime) -> str:
    """Return a time (UTC), with its date unless that is today."""
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return text.partition("T")[2] if moment.date() == now.date() else text


def event_lines(event: Event) -> list[str]:
    """Return the lines for an event: first the output, each line marked with a bar, then the state."""
    now = datetime.now(UTC)
    return [*output_lines(event), f"{_head(event, now)}{event.state:<10}  {_detail(event, now)}".rstrip()]


def output_lines(event: Event) -> list[str]:
    """Return the lines for the output in an event."""
    head = _head(event, datetime.now(UTC))
    return [f"{head}| {line}" for line in event.output]


def note_line(text: str) -> str:
    """Return the line for a note."""
    now = datetime.now(UTC)
    return f"{format_time(now, now)}  # {text}"


def _head(event: Event, now: datetime) -> str:
    return f"{format_time(now, now)}  {format_id(event.task_id):<10}  "


def _detail(event: Event, now: datetime) -> str:
    due = f"due {format_time(event.due, now)}" if event.due else ""
    again = f"due again {format_time(event.next_due, now)}" if event.next_due else ""
    command = format_command(event.command) if event.state in ("pending", "unfinished") else ""
    words = ", ".join(part for part in (event.detail, due, again) if part)
    return ": ".join(part for part in (words, command) if part)
