"""Times and durations of other libraries: Arrow, pandas, pendulum, whenever, NumPy. These are not imported."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

__all__ = ["EPOCH", "Moment", "duration_from", "moment_from"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(Protocol):
    """The common interface of moments of other libraries: Arrow, pandas, Pendulum, whenever."""

    def timestamp(self) -> float:
        """Return the seconds since 1970."""
        ...


def moment_from(value: Any) -> datetime | None:
    """Convert a moment of another library to a `datetime`; return `None` if it is not one.

    Args:
        value: An object with a ``datetime`` (Arrow), with ``to_stdlib()`` or ``py_datetime()`` (whenever), or with
            ``timestamp()``; or a ``numpy.datetime64``, which is interpreted as UTC.
    """
    if _numpy_kind(value) == "M":
        instant: datetime | None = _from_numpy(value, "datetime64[us]")
        return instant
    moment = getattr(value, "datetime", None)
    if isinstance(moment, datetime):
        return moment
    if isinstance(value, type):
        return None
    for name in ("to_stdlib", "py_datetime"):
        method = getattr(value, name, None)
        if callable(method) and isinstance(moment := method(), datetime):
            return moment
    timestamp = getattr(value, "timestamp", None)
    if callable(timestamp) and isinstance(seconds := timestamp(), (int, float)):
        return EPOCH + timedelta(seconds=seconds)
    return None


def duration_from(value: Any) -> timedelta | None:
    """Convert a ``numpy.timedelta64`` to a `timedelta`; return `None` if it is not one.

    `float` would interpret it as a number of seconds, whatever its unit.
    """
    return _from_numpy(value, "timedelta64[us]") if _numpy_kind(value) == "m" else None


def _numpy_kind(value: Any) -> object:
    return getattr(getattr(value, "dtype", None), "kind", None)


def _from_numpy(value: Any, unit: str) -> Any:
    return value.astype(unit).item()  # `None` for NaT
