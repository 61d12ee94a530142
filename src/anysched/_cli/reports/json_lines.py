"""Reporting in lines of JSON, for machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import final

from .events import Event
from .plain import LineReport

__all__ = ["JsonReport", "json_time"]


@final
class JsonReport(LineReport):
    """Reports in JSON objects, one a line, each flushed at once.

    Every object has a ``time``. An event has the task's ID as ``job`` and a ``state``; a line of output has ``job``
    and ``output``; anything else is a ``note``.

    Args:
        stream: Where to write.
    """

    def show(self, event: Event) -> None:
        """Write an event."""
        entry = {"state": event.state, "detail": event.detail}
        times = {"due": event.due, "next_due": event.next_due}
        entry |= {name: json_time(moment) for name, moment in times.items() if moment}
        self._write([*self._output(event), _line({"job": event.task_id, **entry, **event.fields})])

    def pass_on(self, event: Event) -> None:
        """Write the output in an event."""
        self._write(self._output(event))

    def note(self, text: str) -> None:
        """Write a note that is not about a single task."""
        self._write([_line({"note": text})])

    def _output(self, event: Event) -> list[str]:
        return [_line({"job": event.task_id, "output": line, **event.fields}) for line in event.output]


def json_time(moment: datetime) -> str:
    """Return an aware time in UTC, in ISO 8601 with milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _line(fields: dict[str, object]) -> str:
    return json.dumps({"time": json_time(datetime.now(UTC)), **fields})
