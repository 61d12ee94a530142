"""The stored form of values: IDs and arguments as JSON, times and durations as whole microseconds."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

from anysched._moments import Moment, duration_from, moment_from

__all__ = [
    "MAX_DUE",
    "Moment",
    "TaskId",
    "check_text",
    "decode_args",
    "decode_id",
    "encode_args",
    "encode_id",
    "has_surrogate",
    "id_ranges",
    "microseconds_from_datetime",
    "microseconds_from_duration",
    "moment",
    "moment_from",
    "storable",
]

TaskId: TypeAlias = str | int | tuple["TaskId", ...]
"""What a durable ID may be: a string, an integer, or a tuple of these."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_ID = 2_000
"""The most characters of an ID, encoded: what fits into an index of every store."""

MAX_NESTING = 50
"""The deepest nesting of an ID: decoding one must not depend on how much of Python's stack is left."""

MAX_DUE = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The last time that a `datetime` can express."""

# These are called at every start, and the functions of the module check each time what they were passed.
_read = json.JSONDecoder().raw_decode
_compact = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def check_text(text: str, name: str) -> None:
    """Check that every store can keep a text that is stored as it is, such as a name.

    Args:
        text: The text.
        name: What it is, for error messages.

    Raises:
        ValueError: if it contains a NUL character or a lone surrogate.
    """
    if "\0" in text or has_surrogate(text):
        raise ValueError(f"{name} cannot be stored: it contains a NUL character or a lone surrogate: {text!r}")


def storable(text: str) -> str:
    """Return a text, such as that of an exception, with the characters escaped that `check_text` refuses."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def encode_id(task_id: object) -> str:
    """Return the stored text of an ID; different IDs have different texts.

    Raises:
        TypeError: if it is not a string, an integer or a tuple of these.
        ValueError: if it is too long to be indexed, is nested too deeply, or contains a lone surrogate.
    """
    if not _is_id(task_id, MAX_NESTING):
        raise TypeError(
            f"a durable ID is a string, an integer or a tuple of these, not {type(task_id).__name__}: {task_id!r}"
        )
    text = _compact(task_id)
    # Two lone surrogates would come back as one character.
    if "\\ud" in text and has_surrogate(task_id):
        raise ValueError(f"a durable ID must not contain a lone surrogate: {task_id!r}")
    if len(text) > MAX_ID:
        raise ValueError(f"a durable ID has at most {MAX_ID} characters, as JSON, not {len(text)}: {text[:40]}...")
    return text


def decode_id(text: str) -> TaskId:
    """Return the ID from its stored text."""
    return _with_tuples(_read(text)[0])


def id_ranges(prefix: object = None) -> list[tuple[str, str]]:
    """Return the ranges of stored texts that contain exactly the IDs with a prefix, as pairs of start and excluded end.

    Args:
        prefix: The beginning of a string, or the first elements of a tuple; `None` for all IDs.

    Raises:
        TypeError: if it is neither.
    """
    if prefix is None:
        return [("", "\x7f")]
    if not isinstance(prefix, (str, tuple)):
        raise TypeError(f"prefix must be a string or a tuple, not {type(prefix).__name__}: {prefix!r}")
    text = encode_id(cast("object", prefix))
    start = text[:-1]
    if isinstance(prefix, str) or not prefix:
        return [(start, start + "\x7f")]
    # The tuple itself, and the tuples with more elements. After a number, further digits would make it another number.
    return [(start + ",", start + "-"), (text, text + "\1")]


def encode_args(args: tuple[Any, ...]) -> str:
    """Return the stored text of arguments.

    Raises:
        TypeError: if they cannot be converted to JSON, or would come back as something else, like a tuple as a list.
    """
    try:
        text = _compact(args)
        decoded = json.loads(text)
        same = bool(decoded == list(args))
    except RecursionError:
        raise TypeError("the arguments of a durable task must be JSON that is not nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"the arguments of a durable task must be JSON: {error}; they are {args!r}") from None
    if not same:
        raise TypeError(
            f"the arguments of a durable task must come back from JSON as they are; of {args!r} comes {decoded!r}"
        )
    return text


def decode_args(text: str) -> tuple[Any, ...]:
    """Return the arguments from their stored text."""
    return tuple(_read(text)[0])


def microseconds_from_datetime(time: datetime | Moment, name: str = "time") -> int:
    """Return a time as microseconds of UTC since 1970; a naive time is interpreted as UTC.

    Args:
        time: A `datetime`, or a moment of another library, as in the core.
        name: The name of the parameter, for error messages.

    Raises:
        TypeError: if it is neither.
    """
    found = time if isinstance(time, datetime) else moment_from(time)
    # pandas' NaT is a datetime, and not equal to itself.
    if found is None or found != found:
        raise TypeError(f"{name} must be a datetime, not {type(time).__name__}: {time!r}")
    if found.utcoffset() is None:
        found = found.replace(tzinfo=UTC)
    return (found - EPOCH) // MICROSECOND


def microseconds_from_duration(duration: float | timedelta, name: str = "delay") -> int:
    """Return a duration in whole microseconds.

    Args:
        duration: In seconds, or a `timedelta`.
        name: The name of the parameter, for error messages.

    Raises:
        TypeError: if it is neither a number nor a `timedelta`.
        ValueError: if it is NaN or infinite.
    """
    given = duration if isinstance(duration, timedelta) else duration_from(duration)
    if given is not None:
        return max(min(given // MICROSECOND, MAX_DUE), -MAX_DUE)
    if not hasattr(duration, "__float__") and not hasattr(duration, "__index__"):
        raise TypeError(
            f"{name} must be a number of seconds or a timedelta, not {type(duration).__name__}: {duration!r}"
        )
    try:
        seconds = float(cast("float", duration))
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError):  # NumPy's NaT, a signaling NaN of `decimal`
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{name} must be a finite number of seconds, not {duration!r}")
    return round(max(min(seconds, MAX_DUE / 1e6), -MAX_DUE / 1e6) * 1e6)


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 (UTC) as an aware `datetime`, at most the last possible one."""
    return EPOCH + min(microseconds, MAX_DUE) * MICROSECOND


def _is_id(value: object, nesting: int) -> bool:
    if type(value) is tuple:
        if not nesting:
            raise ValueError(f"a durable ID is nested at most {MAX_NESTING} levels deep")
        return all(_is_id(element, nesting - 1) for element in cast("tuple[object, ...]", value))
    # No subclasses: an enum member or a bool would come back as something else.
    return type(value) is str or type(value) is int


def has_surrogate(value: object) -> bool:
    """Return whether a string, or one in a tuple, has a lone surrogate, which is not Unicode text."""
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, tuple) and any(map(has_surrogate, cast("tuple[object, ...]", value)))


def _with_tuples(value: object) -> TaskId:
    if isinstance(value, list):
        return tuple(_with_tuples(element) for element in cast("list[object]", value))
    return cast("TaskId", value)
