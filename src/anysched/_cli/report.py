"""What there is to tell while a schedule runs, in which words, and to whom."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from .entries import TaskId

__all__ = [
    "Command",
    "Event",
    "Report",
    "State",
    "event_lines",
    "note_line",
    "output_lines",
    "shown_command",
    "shown_id",
    "shown_time",
]

Command: TypeAlias = tuple[str, ...] | str
"""A program and its arguments, or a line for a shell."""

State: TypeAlias = Literal["pending", "running", "cancelling", "finished", "failed", "cancelled", "unfinished"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a task.

    Attributes:
        key: Tells apart two tasks with one ID: the number of the line that scheduled it, or the like.
        task_id: The ID.
        state: The state that it has now.
        command: The command.
        due: When it is due (aware UTC); `None` once it has started.
        detail: More about it, in words.
        output: The lines that the command wrote, unless they were passed on before.
        next_due: When it is due again (aware UTC), if it recurs and a run of it has ended.
        facts: More about it, for machines.
    """

    key: int
    task_id: TaskId
    state: State
    command: Command
    due: datetime | None = None
    detail: str = ""
    output: tuple[str, ...] = ()
    next_due: datetime | None = None
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


class Report(Protocol):
    """Tells the user what happens. Entered before the first event, left after the last one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def show(self, event: Event, /) -> None:
        """Tell what happened to a task."""
        ...

    def pass_on(self, event: Event, /) -> None:
        """Pass on the output in an event, and nothing else: nothing happened to the task."""
        ...

    def note(self, text: str, /) -> None:
        """Tell what concerns no single task."""
        ...

    async def animate(self) -> None:
        """Keep what is on show up to date, until cancelled."""
        ...


def shown_id(task_id: TaskId) -> str:
    """Return an ID as it is shown: as it is if that is one plain word, else in JSON.

    The string "1" is shown in JSON, since it is another ID than the number 1.
    """
    plain = str(task_id)
    if isinstance(task_id, int):
        return plain
    word = plain.isprintable() and not any(character in ' "' for character in plain)
    return plain if word and plain and not plain.lstrip("-").isdecimal() else json.dumps(plain)


def shown_command(command: Command) -> str:
    """Return a command as one would type it in a shell, on one line whatever is in it."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in (command if isinstance(command, str) else shlex.join(command))
    )


def shown_time(moment: datetime, now: datetime) -> str:
    """Return a moment (UTC), with its date if that is not today's."""
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return text.partition("T")[2] if moment.date() == now.date() else text


def event_lines(event: Event) -> list[str]:
    """Return the lines that tell of an event: first the output, each line marked with a bar, then what happened."""
    now = datetime.now(UTC)
    return [*output_lines(event), f"{_head(event, now)}{event.state:<10}  {_detail(event, now)}".rstrip()]


def output_lines(event: Event) -> list[str]:
    """Return the lines that pass on the output in an event."""
    head = _head(event, datetime.now(UTC))
    return [f"{head}| {line}" for line in event.output]


def note_line(text: str) -> str:
    """Return the line that tells what concerns no single task."""
    now = datetime.now(UTC)
    return f"{shown_time(now, now)}  # {text}"


def _head(event: Event, now: datetime) -> str:
    return f"{shown_time(now, now)}  {shown_id(event.task_id):<10}  "


def _detail(event: Event, now: datetime) -> str:
    due = f"due {shown_time(event.due, now)}" if event.due else ""
    again = f"due again {shown_time(event.next_due, now)}" if event.next_due else ""
    command = shown_command(event.command) if event.state in ("pending", "unfinished") else ""
    words = ", ".join(part for part in (event.detail, due, again) if part)
    return ": ".join(part for part in (words, command) if part)
