"""The contents of a store as JSON lines: the first line describes the store, every other line is a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Final, TypeVar, cast, get_origin

from anysched._cli.objects import MalformedLineError, check_keys, kind_of, parse_object
from anysched.durable.operations import Entry, Snapshot, State
from anysched.durable.values import check_text, encode_id, has_surrogate

from .notation import id_from

__all__ = ["parse_snapshot", "snapshot_lines"]

FORMAT: Final = 1
"""The version of the format."""

MAX_INTEGER: Final = 2**62
KINDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    str: "a string",
    list: "a list",
    dict: "an object",
}

T = TypeVar("T")


def snapshot_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield the lines of a snapshot."""
    yield _compact(
        {
            "anysched": FORMAT,
            "tasks": len(snapshot.entries),
            "identity": snapshot.identity,
            "generation": snapshot.generation,
            "seen": snapshot.seen,
        }
    )
    for entry in snapshot.entries:
        values = {
            "generation": entry.generation,
            "id": json.loads(entry.task_id),
            "holds": entry.holds,
            "state": entry.state.name.lower(),
            "paused": entry.paused,
            "due": entry.due,
            "time": entry.time,
            "handler": entry.handler,
            "args": json.loads(entry.args),
            "recurrence": None if entry.recurrence is None else json.loads(entry.recurrence),
            "expires": entry.expires,
            "run_count": entry.run_count,
            "attempts": entry.attempts,
            "kills": entry.kills,
            "problem": entry.problem,
        }
        yield _compact(values)


def parse_snapshot(lines: Iterable[bytes]) -> Snapshot:
    """Return the snapshot of lines; blank ones are skipped.

    Raises:
        MalformedLineError: if a line is wrong or missing. The message has its number.
    """
    header: Mapping[str, object] | None = None
    entries: list[Entry] = []
    holders: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            if not line.strip():
                continue
            if header is None:
                header = _parse_header(line)
                continue
            entry = _parse_entry(line)
            if not (entries[-1].generation if entries else 0) < entry.generation <= _integer(header, "generation"):
                raise MalformedLineError(
                    '"generation" must be greater than that of the line before, and not greater than that of the first line'
                )
            if entry.holds and entry.task_id in holders:
                raise MalformedLineError(f"a task of a line before holds the ID {entry.task_id} as well")
            if entry.holds:
                holders.add(entry.task_id)
            entries.append(entry)
        except MalformedLineError as error:
            raise MalformedLineError(f"line {number}: {error}") from None
    if header is None:
        raise MalformedLineError("it is empty")
    if len(entries) != header["tasks"]:
        raise MalformedLineError(f"it is incomplete: it has {len(entries)} of {header['tasks']} tasks")
    identity = _value(header, "identity", str)
    return Snapshot(identity, _integer(header, "generation"), _integer(header, "seen"), tuple(entries))


def _parse_header(line: bytes) -> Mapping[str, object]:
    header = parse_object(line)
    if "anysched" not in header:
        raise MalformedLineError("expected the first line of an export of anysched")
    if header["anysched"] != FORMAT:
        raise MalformedLineError(f"it is of version {json.dumps(header['anysched'])}, and this release reads {FORMAT}")
    check_keys(header, ("anysched", "tasks", "identity", "generation", "seen"))
    for key in ("tasks", "generation", "seen"):
        _integer(header, key)
    _value(header, "identity", str)
    return header


def _parse_entry(line: bytes) -> Entry:
    values = parse_object(line)
    check_keys(values, KEYS)
    try:
        task_id = encode_id(id_from(_present(values, "id")))
    except (TypeError, ValueError) as error:
        raise MalformedLineError(f'"id": {error}') from None
    state = _value(values, "state", str)
    if state.upper() not in State.__members__:
        raise MalformedLineError(f'"state" must be one of {", ".join(name.lower() for name in State.__members__)}')
    handler = _value(values, "handler", str)
    try:
        check_text(handler, '"handler"')
    except ValueError as error:
        raise MalformedLineError(str(error)) from None
    recurrence = _optional(values, "recurrence", dict[str, object])
    expires = None if _present(values, "expires") is None else _integer(values, "expires")
    return Entry(
        generation=_integer(values, "generation", 1),
        task_id=task_id,
        holds=_value(values, "holds", bool),
        state=State[state.upper()],
        paused=_value(values, "paused", bool),
        due=_integer(values, "due"),
        time=_integer(values, "time"),
        handler=handler,
        args=_compact(_value(values, "args", list[object])),
        recurrence=None if recurrence is None else _compact(recurrence),
        expires=expires,
        run_count=_integer(values, "run_count"),
        attempts=_integer(values, "attempts"),
        kills=_integer(values, "kills"),
        problem=_optional(values, "problem", str),
    )


KEYS: Final = frozenset({"id", *(field.name for field in fields(Entry))} - {"task_id"})


def _present(values: Mapping[str, object], key: str) -> object:
    if key not in values:
        raise MalformedLineError(f'"{key}" is missing')
    return values[key]


def _value(values: Mapping[str, object], key: str, kind: type[T]) -> T:
    value = _present(values, key)
    origin = get_origin(kind) or kind
    if type(value) is not origin:  # a bool is an int
        raise MalformedLineError(f'"{key}" must be {KINDS[origin]}, not {kind_of(value)}')
    if isinstance(value, str) and has_surrogate(value):
        raise MalformedLineError(f'"{key}" has characters that are not Unicode text')
    return cast("T", value)


def _optional(values: Mapping[str, object], key: str, kind: type[T]) -> T | None:
    return None if _present(values, key) is None else _value(values, key, kind)


def _integer(values: Mapping[str, object], key: str, least: int = 0) -> int:
    value = _value(values, key, int)
    if not least <= value < MAX_INTEGER:
        raise MalformedLineError(f'"{key}" must be at least {least} and less than 2 ** 62')
    return value


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
