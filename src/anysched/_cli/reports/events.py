"""The events of a running schedule, the interface of a report, and the lines that the reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from anysched._cli.entries import TaskId

from .formats import CommandLine, TimeFormat, format_command, format_duration, format_id

__all__ = ["Event", "Level", "Report", "State", "event_lines", "note_line", "output_lines", "state_lines"]

State: TypeAlias = Literal["pending", "running", "cancelling", "finished", "failed", "cancelled", "unfinished"]

Level: TypeAlias = Literal["info", "warning", "error"]


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
    command: CommandLine
    due: datetime | None = None
    detail: str = ""
    output: tuple[str, ...] = ()
    next_due: datetime | None = None
    fields: Mapping[str, object] = field(default_factory=dict[str, object])


class Report(Protocol):
    """Reports events to the user. Entered before the first event, left after the last one.

    No method waits until something has been written: a reader may never read.
    """

    @property
    def separates_streams(self) -> bool:
        """Whether it shows which lines a command wrote to its standard error."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether a reader has closed it. SIGPIPE is sent after that."""
        ...

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

    def note(self, text: str, /, level: Level = "info") -> None:
        """Report a note that is not about a single task."""
        ...

    def error(self, text: str, /) -> None:
        """Write to the standard error."""
        ...

    def show_state(self, commands: Iterable[tuple[Event, datetime | None]], /) -> None:
        """Write to the standard error which commands run and which are pending.

        Args:
            commands: An event about each, and when it started if it runs.
        """
        ...

    def suspend(self) -> None:
        """Leave the terminal as it was, since the process is about to be stopped."""
        ...

    def resume(self) -> None:
        """Undo `suspend`."""
        ...

    async def refresh(self) -> None:
        """Keep the display up to date until cancelled."""
        ...


def event_lines(event: Event, format_time: TimeFormat) -> list[str]:
    """Return the lines for an event: first the output, each line marked with a bar, then the state."""
    now = datetime.now(UTC)
    line = f"{_head(event, format_time, now)}{event.state:<10}  {_detail(event, format_time, now)}".rstrip()
    return [*output_lines(event, format_time), line]


def output_lines(event: Event, format_time: TimeFormat) -> list[str]:
    """Return the lines for the output in an event."""
    head = _head(event, format_time, datetime.now(UTC))
    return [f"{head}| {line}" for line in event.output]


def note_line(text: str, format_time: TimeFormat) -> str:
    """Return the line for a note."""
    now = datetime.now(UTC)
    return f"{format_time(now, now)}  # {text}"


def state_lines(commands: Iterable[tuple[Event, datetime | None]], format_time: TimeFormat) -> list[str]:
    """Return the lines for the state of commands: first those that run, then the others in due order."""
    now = datetime.now(UTC)
    running: list[str] = []
    pending: list[tuple[datetime, str]] = []
    for event, since in commands:
        command = format_command(event.command)
        name = format_id(event.task_id)
        if since is not None or event.due is None:
            begin = since or now  # it is just being started
            when = f"{format_time(begin, now)} ({format_duration((now - begin).total_seconds())})"
            running.append(f"  {name:<10}  running since {when}: {command}")
        else:
            pending.append((event.due, f"  {name:<10}  due {_format_due(event.due, format_time, now)}: {command}"))
    pending.sort(key=lambda entry: entry[0])
    counts = {"running": len(running), "pending": len(pending)}
    heading = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return [heading or "nothing is running or pending", *running, *(line for _, line in pending)]


def _head(event: Event, format_time: TimeFormat, now: datetime) -> str:
    return f"{format_time(now, now)}  {format_id(event.task_id):<10}  "


def _detail(event: Event, format_time: TimeFormat, now: datetime) -> str:
    due = f"due {_format_due(event.due, format_time, now)}" if event.due else ""
    again = f"due again {_format_due(event.next_due, format_time, now)}" if event.next_due else ""
    command = format_command(event.command) if event.state in ("pending", "unfinished") else ""
    words = ", ".join(part for part in (event.detail, due, again) if part)
    return ": ".join(part for part in (words, command) if part)


def _format_due(due: datetime, format_time: TimeFormat, now: datetime) -> str:
    left = (due - now).total_seconds()
    return format_time(due, now) + (f" (in {format_duration(left)})" if left > 0 else "")
