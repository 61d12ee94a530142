"""What the process occupies."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["resident_bytes"]

_STATM = Path("/proc/self/statm")


def resident_bytes() -> float:
    """Return the resident set size of this process, or NaN where the kernel does not tell it as Linux does."""
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE")
