"""Choosing how a schedule is reported."""

from __future__ import annotations

import os
from typing import TextIO

from .plain import PlainReport
from .report import Report

__all__ = ["report_to"]


def report_to(stream: TextIO) -> Report:
    """Return a table for a terminal, if it can show one and rich is there, else plain lines."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from .table import TableReport
        except ImportError:
            pass
        else:
            return TableReport(stream)
    return PlainReport(stream)
