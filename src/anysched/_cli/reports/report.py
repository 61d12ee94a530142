"""Choosing the report for a stream."""

from __future__ import annotations

import os
from typing import TextIO

from .events import Report
from .plain import PlainReport

__all__ = ["for_stream"]


def for_stream(stream: TextIO) -> Report:
    """Return a live table if the stream is a capable terminal and rich is installed, else plain lines."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from .table import TableReport
        except ImportError:
            pass
        else:
            return TableReport(stream)
    return PlainReport(stream)
