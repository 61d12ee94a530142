"""The result of a run of the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00  ", re.MULTILINE)


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of the report, without the times, and with single spaces."""
        return plain_lines(self.out)


def plain_lines(out: str) -> list[str]:
    assert all(TIME.match(line) for line in out.splitlines()), out
    return [" ".join(line.split()) for line in TIME.sub("", out).splitlines()]
