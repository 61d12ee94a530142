"""Parsing the lines of a schedule. Pure data: no clock, no event loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias, cast

from .objects import MalformedLineError, check_keys, kind_of, parse_object

__all__ = ["CancelEntry", "Entry", "MalformedLineError", "RunEntry", "TaskId", "parse_line"]

TaskId: TypeAlias = int | str

MAX_DELAY = 1e11
"""In seconds: three thousand years. A longer delay is a mistake in the unit."""


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A command to run.

    Attributes:
        task_id: The ID of its task.
        due: A delay in seconds, or an aware UTC time.
        command: The program and its arguments.
    """

    task_id: TaskId
    due: float | datetime
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelEntry:
    """A task to cancel.

    Attributes:
        task_id: Its ID.
    """

    task_id: TaskId


Entry: TypeAlias = RunEntry | CancelEntry


def parse_line(line: bytes) -> Entry | None:
    """Return the entry of a line, or `None` if the line is blank.

    Args:
        line: One JSON object, in UTF-8.

    Raises:
        MalformedLineError: if it is not a JSON object of one of the two kinds. Unknown keys are refused: each is likely
            a misspelt known one, and the command would run at a time that was not meant.
    """
    if not line.strip():
        return None
    fields = parse_object(line)
    if "cancel" in fields:
        check_keys(fields, {"cancel"}, ' next to "cancel"')
        return CancelEntry(_parse_id("cancel", fields["cancel"]))
    check_keys(fields, {"id", "in", "at", "run"})
    for key in ("id", "run"):
        if key not in fields:
            raise MalformedLineError(f'"{key}" is missing')
    return RunEntry(_parse_id("id", fields["id"]), _parse_due(fields), _parse_command(fields["run"]))


def _parse_id(key: str, value: object) -> TaskId:
    # A bool is an int in Python and would become the ID 0 or 1.
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise MalformedLineError(f'"{key}" must be a string or a whole number, not {kind_of(value)}')
    return value


def _parse_due(fields: dict[str, object]) -> float | datetime:
    if "in" in fields and "at" in fields:
        raise MalformedLineError('"in" and "at" exclude each other')
    if "at" in fields:
        return _parse_time(fields["at"])
    return _parse_delay(fields.get("in", 0))


def _parse_delay(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedLineError(f'"in" must be a number of seconds, not {kind_of(value)}')
    if not abs(value) <= MAX_DELAY:
        raise MalformedLineError(f'"in" must be at most {MAX_DELAY:.0e} seconds')
    return value


def _parse_time(value: object) -> datetime:
    if not isinstance(value, str):
        raise MalformedLineError(f'"at" must be a string with an ISO 8601 time, not {kind_of(value)}')
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedLineError(f'"at" is not an ISO 8601 time: {json.dumps(value)}') from None


def _parse_command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise MalformedLineError(f'"run" must be a list of strings, not {kind_of(value)}')
    words = cast("list[object]", value)
    if not words:
        raise MalformedLineError('"run" is empty: it must name a command')
    for word in words:
        if not isinstance(word, str):
            raise MalformedLineError(f'"run" must hold nothing but strings, not {kind_of(word)}')
    return tuple(cast("list[str]", words))
