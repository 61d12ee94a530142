"""Choosing the report for a stream."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from typing import Final, TextIO

from .events import Report
from .formats import TimeFormat
from .plain import PlainReport

__all__ = ["for_stream"]

INCAPABLE: Final = ("dumb", "unknown")
"""The names of terminals that cannot move the cursor, as rich knows them."""


def for_stream(stream: TextIO, zone: tzinfo = UTC, *, live: bool = True) -> Report:
    """Return a live table if the stream is a capable terminal and rich is installed, else plain lines.

    Args:
        stream: The stream.
        zone: The zone in which times are shown.
        live: Whether a table may be shown.
    """
    is_terminal = stream.isatty()
    format_time = TimeFormat(zone, is_brief=is_terminal)
    if live and is_terminal and os.environ.get("TERM", "").lower() not in INCAPABLE:
        try:
            from .table import TableReport
        except ImportError:
            pass
        else:
            return TableReport(stream, format_time)
    return PlainReport(stream, format_time)
