"""Parsing lines that are JSON objects, with clear error messages."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import cast

__all__ = ["MalformedLineError", "check_keys", "kind_of", "parse_object"]


class MalformedLineError(ValueError):
    """Raised for a malformed line; the message says why."""


def parse_object(line: bytes) -> dict[str, object]:
    """Return the JSON object of a line.

    Raises:
        MalformedLineError: if it is not one.
    """
    try:
        value: object = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except MalformedLineError:
        raise
    except UnicodeDecodeError as error:
        raise MalformedLineError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise MalformedLineError(f"not JSON: {error.msg}, at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, brackets a thousand deep
        raise MalformedLineError(f"not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        raise MalformedLineError(f"expected a JSON object, not {kind_of(value)}")
    return cast("dict[str, object]", value)


def check_keys(fields: Mapping[str, object], known: Collection[str], where: str = "") -> None:
    """Check that an object has no other keys.

    Args:
        fields: The object.
        known: The keys that it may have.
        where: What to add to the message.

    Raises:
        MalformedLineError: if it has others.
    """
    unknown = [json.dumps(key) for key in fields if key not in known]
    if unknown:
        raise MalformedLineError(f"unknown key{'s' * (len(unknown) > 1)}{where}: {', '.join(unknown)}")


def kind_of(value: object) -> str:
    """Return the name of a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return "a number"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object with these pairs; without this hook, the last of two equal keys would silently win."""
    fields: dict[str, object] = {}
    for key, value in pairs:
        if key in fields:
            raise MalformedLineError(f"duplicate key {json.dumps(key)}")
        fields[key] = value
    return fields


def _no_constant(name: str) -> object:
    raise MalformedLineError(f"{name} is not JSON")
