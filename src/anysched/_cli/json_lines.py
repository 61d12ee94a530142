"""Reporting in lines of JSON, for machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import final

from .plain import LineReport
from .report import Event

__all__ = ["JsonReport", "json_time"]


@final
class JsonReport(LineReport):
    """Reports in JSON objects, one a line, each written out at once.

    Every one has a ``time``. One that tells what happened to a task has its ID as ``job`` and a ``state``; one that
    passes on output has ``job`` and ``output``, a line; all else is a ``note``.

    Args:
        stream: Where to write.
    """

    def show(self, event: Event) -> None:
        """Write what happened to a task."""
        told = {"state": event.state, "detail": event.detail}
        times = {"due": event.due, "next_due": event.next_due}
        told |= {name: json_time(moment) for name, moment in times.items() if moment}
        self._write([*self._output(event), _line({"job": event.task_id, **told, **event.facts})])

    def pass_on(self, event: Event) -> None:
        """Write what a command wrote."""
        self._write(self._output(event))

    def note(self, text: str) -> None:
        """Write what concerns no single task."""
        self._write([_line({"note": text})])

    def _output(self, event: Event) -> list[str]:
        return [_line({"job": event.task_id, "output": line, **event.facts}) for line in event.output]


def json_time(moment: datetime) -> str:
    """Return an aware moment as it is written: in UTC, to the millisecond."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _line(fields: dict[str, object]) -> str:
    return json.dumps({"time": json_time(datetime.now(UTC)), **fields})
