"""How tasks of a store are shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from anysched._cli.reports.formats import format_duration, printable
from anysched._cli.reports.json_lines import json_time
from anysched.durable.operations import Entry
from anysched.durable.values import decode_id, moment

from .notation import format_id

__all__ = ["json_task", "list_tasks", "show_task"]

SECOND: Final = 1_000_000


def json_task(entry: Entry) -> str:
    """Return a task as a line of JSON."""
    fields = {
        "id": json.loads(entry.task_id),
        "status": entry.status,
        "due": json_time(moment(entry.due)),
        "handler": entry.handler,
        "args": json.loads(entry.args),
        "recurrence": None if entry.recurrence is None else json.loads(entry.recurrence),
        "expires": None if entry.expires is None else entry.expires / SECOND,
        "run_count": entry.run_count,
        "attempts": entry.attempts,
        "problem": entry.problem,
        "generation": entry.generation,
    }
    return json.dumps(fields)


def list_tasks(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a line for each task, and one with their numbers."""
    counts = Counter[str]()
    for entry in entries:
        counts[entry.status] += 1
        task_id = format_id(decode_id(entry.task_id))
        problem = "" if entry.problem is None else f"  # {printable(entry.problem)}"
        yield f"{entry.status:<8} {_format_time(entry.due)}  {printable(entry.handler):<12}  {task_id}{problem}"
    total = counts.total()
    parts = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    yield f"{total:,} task{'s' * (total != 1)}{': ' * bool(total)}{parts}"


def show_task(entry: Entry) -> Iterator[str]:
    """Yield lines about a task."""
    fields = {
        "ID": format_id(decode_id(entry.task_id)),
        "status": entry.status if entry.problem is None else f"{entry.status}: {printable(entry.problem)}",
        "due": _format_time(entry.due),
        "handler": printable(entry.handler),
        "arguments": entry.args,
        "recurs": None if entry.recurrence is None else _format_recurrence(json.loads(entry.recurrence)),
        "expires": None if entry.expires is None else f"{_format_microseconds(entry.expires)} after it is due",
        "runs": str(entry.run_count),
        "attempts": f"{entry.attempts} at the current run" if entry.attempts else None,
    }
    for name, value in fields.items():
        if value is not None:
            yield f"{name:<9}  {value}"


def _format_time(microseconds: int) -> str:
    return moment(microseconds).replace(tzinfo=None).isoformat(" ", "seconds")


def _format_recurrence(recurrence: dict[str, Any]) -> str:
    match recurrence:
        case {"every": int(period), "from": measured_from}:
            text = f"every {_format_microseconds(period)}{' from the end of a run' * (measured_from == 'end')}"
        case {"cron": str(expression), "zone": str(zone)}:
            text = f"{expression} ({zone})"
        case {"times": [*times]}:
            text = f"at {len(times):,} times"
        case _:
            text = json.dumps(recurrence)
    jitter = recurrence.get("jitter")
    delayed = f", delayed by up to {_format_microseconds(jitter)}" if isinstance(jitter, int) and jitter else ""
    return f"{printable(text)}{delayed}, missed: {recurrence.get('missed')}"


def _format_microseconds(microseconds: int) -> str:
    seconds, rest = divmod(microseconds, SECOND)
    return f"{microseconds / SECOND:g} s" if rest else format_duration(seconds)
