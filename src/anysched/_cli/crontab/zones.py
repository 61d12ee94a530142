"""Time zones: by name, and the one of this machine."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["local_zone", "named_zone"]

LOCALTIME = "/etc/localtime"
DATABASE = "/zoneinfo/"
"""What precedes the name of a zone in the path of its file."""

REMEDY = "times are in UTC; --zone NAME chooses another zone, and --utc this one"


def named_zone(name: str) -> tzinfo:
    """Return the zone with a name of the IANA database.

    Raises:
        ValueError: if there is none.
    """
    if name in ("UTC", "Etc/UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory, or too long
        raise ValueError(
            f"unknown time zone {name!r} (if there is one of this name, the package tzdata is missing)"
        ) from None


def local_zone() -> tuple[tzinfo, str]:
    """Return the zone of this machine: that of the variable TZ, else that of `/etc/localtime`, as the C library does.

    Returns:
        The zone, and if it could not be found, so that it is UTC, a note that says so.
    """
    name = os.environ.get("TZ")
    try:
        if name is None:
            return _zone_of_file(LOCALTIME), ""
        name = name.removeprefix(":")
        if not name:
            return UTC, ""  # set, but empty
        return (_zone_of_file if name.startswith("/") else named_zone)(name), ""
    except (ValueError, OSError):
        source = LOCALTIME if name is None else f"TZ={name}"
        return UTC, f"the time zone of this machine is unknown ({source} names none that can be read): {REMEDY}"


def _zone_of_file(path: str) -> tzinfo:
    """Return the zone in a file.

    Raises:
        OSError, ValueError: if there is none.
    """
    file = Path(path).resolve(strict=True)
    _, _, name = str(file).rpartition(DATABASE)
    try:
        return named_zone(name)  # it knows its name, and is one object each time
    except ValueError:
        with file.open("rb") as stream:
            return ZoneInfo.from_file(stream)
