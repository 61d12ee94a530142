"""Reporting in lines of JSON, for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import final

from .events import Event, Level, State
from .plain import LineReport

__all__ = ["JsonReport", "json_line", "json_time"]

LEVELS: dict[State, Level] = {"failed": "error", "cancelled": "warning", "unfinished": "warning"}
"""The levels of events, where they are not ``"info"``."""


@final
class JsonReport(LineReport):
    """Reports in JSON objects, one a line.

    Every object has a ``time`` and a ``level``. An event has the task's ID as ``job`` and a ``state``; a line of output
    has ``job``, ``output`` and ``stream``; anything else is a ``note``.
    """

    separates_streams = True

    def show(self, event: Event) -> None:
        """Write an event."""
        entry = {"state": event.state, "detail": event.detail}
        times = {"due": event.due, "next_due": event.next_due}
        entry |= {name: json_time(moment) for name, moment in times.items() if moment}
        self.pass_on(event)
        self._writer.write(_line(LEVELS.get(event.state, "info"), {"job": event.task_id, **entry, **event.fields}))

    def pass_on(self, event: Event) -> None:
        """Write the output in an event."""
        lines = [_line("info", {"job": event.task_id, "output": line, **event.fields}) for line in event.output]
        self._writer.write("".join(lines), may_drop=True)

    def _note_text(self, text: str, level: Level) -> str:
        return _line(level, {"note": text})


def json_time(moment: datetime) -> str:
    """Return an aware time in UTC, in ISO 8601 with milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def json_line(fields: Mapping[str, object]) -> str:
    """Return an object in JSON, without lone surrogates, which are not Unicode text: they are escaped."""
    return json.dumps({key: _clean(value) if isinstance(value, str) else value for key, value in fields.items()})


def _line(level: Level, fields: Mapping[str, object]) -> str:
    return json_line({"time": json_time(datetime.now(UTC)), "level": level, **fields}) + "\n"


def _clean(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
