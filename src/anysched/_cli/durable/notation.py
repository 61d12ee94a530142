"""How IDs and stores are written on the command line.

IDs are written in their stored form, JSON, and strings also without quotes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # what it imports, not every Python has
    from anysched.durable import TaskId

__all__ = ["format_id", "id_from", "is_database", "parse_id"]

SCHEMES = ("postgresql://", "postgres://")


def is_database(store: str) -> bool:
    """Return whether a store is a PostgreSQL database, and not a file."""
    return store.startswith(SCHEMES)


def parse_id(text: str) -> TaskId:
    """Return the ID that a text means: JSON, if it is that or begins like it; else the text is a string.

    Raises:
        TypeError: if it is JSON, but not of an ID.
        ValueError: if it begins like JSON, but is not.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text[:1] in ("[", "{", '"'):
            raise ValueError(f"it begins like JSON, but is not: {error}") from None
        return text
    return id_from(value)


def format_id(task_id: TaskId) -> str:
    """Return an ID in a form that `parse_id` takes: a string that is one plain word as it is, all else in JSON."""
    if isinstance(task_id, str) and task_id.isprintable() and not set(task_id) & set(" '\"\\") and task_id[:1] != "-":
        try:
            if task_id and parse_id(task_id) == task_id:
                return task_id
        except (TypeError, ValueError):
            pass
    return json.dumps(task_id, separators=(",", ":"))


def id_from(value: object) -> TaskId:
    """Return the ID that a value of JSON is.

    Raises:
        TypeError: if it is not one.
    """
    if isinstance(value, list):
        return tuple(id_from(element) for element in cast("list[object]", value))
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(
            f"an ID is a string, a whole number or a list of these, not {json.dumps(value)}; "
            f"the string is {json.dumps(json.dumps(value))}"
        )
    return value
