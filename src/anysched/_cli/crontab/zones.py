"""Time zones by name, and the zone of this machine."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

__all__ = ["local_zone", "named_zone"]

LOCALTIME = "/etc/localtime"
DATABASE = "/zoneinfo/"
"""What precedes the name of a zone in the path of its file."""

REMEDY = "times are in UTC; --zone NAME chooses another zone, and --utc this one"


def named_zone(name: str) -> tzinfo:
    """Return the zone with a name of the IANA database.

    Raises:
        ValueError: if the zone is unknown.
    """
    from anysched.cron import Cron  # needs cronsim; without it, the arguments are refused with a message

    return Cron("@daily", name).timezone


def local_zone() -> tuple[tzinfo, str]:
    """Return the zone of this machine: that of the variable TZ, else that of `/etc/localtime`, as in the C library.

    Returns:
        The zone and a note. If the zone cannot be found, it is UTC and the note says so; else the note is empty.
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
        return UTC, f"the time zone of this machine is unknown ({source} names no readable zone): {REMEDY}"


def _zone_of_file(path: str) -> tzinfo:
    """Return the zone in a file.

    Raises:
        OSError, ValueError: if it does not have one.
    """
    file = Path(path).resolve(strict=True)
    _, _, name = str(file).rpartition(DATABASE)
    try:
        return named_zone(name)  # it has a name and is the same object each time
    except ValueError:
        with file.open("rb") as stream:
            return ZoneInfo.from_file(stream)
