"""How IDs, commands, times and durations are shown to people."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from math import ceil
from typing import TypeAlias

from anysched._cli.entries import TaskId

__all__ = ["CommandLine", "TimeFormat", "count_lines", "format_command", "format_duration", "format_id", "printable"]

CommandLine: TypeAlias = tuple[str, ...] | str
"""A program with its arguments, or a command line for a shell."""

UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How times are shown.

    Attributes:
        zone: The zone of the schedule.
        is_brief: Whether the reader sees them at once, on a terminal, and needs no date of today and no offset.
    """

    zone: tzinfo = UTC
    is_brief: bool = False

    def __call__(self, time: datetime, now: datetime) -> str:
        """Return an aware time; if brief, with its date unless that is today."""
        time = time.astimezone(self.zone)
        if not self.is_brief:
            return time.isoformat(timespec="milliseconds")
        is_today = time.date() == now.astimezone(self.zone).date()
        return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``14 h 11 min``."""
    rest = ceil(seconds)
    counts: list[str] = []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not counts):
            counts.append(f"{count} {unit}")
        elif counts:
            break
        if len(counts) == 2:
            break
    return " ".join(counts)


def format_id(task_id: TaskId) -> str:
    """Return an ID for display: unchanged if it is one plain word, else in JSON.

    The string "1" is shown in JSON, since it is not the same ID as the number 1.
    """
    plain = str(task_id)
    if isinstance(task_id, int):
        return plain
    word = plain.isprintable() and not any(character in ' "' for character in plain)
    return plain if word and plain and not plain.lstrip("-").isdecimal() else json.dumps(plain)


def format_command(command: CommandLine) -> str:
    """Return a command as it would be typed in a shell, always on one line."""
    return printable(command if isinstance(command, str) else shlex.join(command))


def printable(text: str) -> str:
    """Return a text with line breaks and other control characters escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def count_lines(count: int) -> str:
    """Return a number of lines in words."""
    return f"{count:,} line{'s' * (count != 1)}"
