"""Loading a crontab from a file, at the start and again on SIGHUP."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import final

from .syntax import CronLine, parse_crontab

__all__ = ["CrontabFile", "RefusedError"]


class RefusedError(ValueError):
    """Raised when a whole crontab is refused, after its malformed lines have been reported.

    Attributes:
        name: The name of the file.
        wrong: The number of malformed lines.
    """

    def __init__(self, name: str, wrong: int) -> None:
        super().__init__(f"{name} is refused, {_lines(wrong)} wrong")
        self.name = name
        self.wrong = wrong


@final
class CrontabFile:
    """A crontab in a file.

    Args:
        path: The path; ``"-"`` is the standard input.
        zone: The zone of the lines without a CRON_TZ above them.
        may_run_as: Returns whether commands may run as a user; `None` without a column for the user.
        lenient: Whether to skip malformed lines.
    """

    def __init__(self, path: str, zone: tzinfo, may_run_as: Callable[[str], bool] | None, lenient: bool) -> None:
        self._path = path
        self._zone = zone
        self._may_run_as = may_run_as
        self._lenient = lenient
        self.name = "the standard input" if path == "-" else path

    def load(self, error: Callable[[str], None]) -> tuple[CronLine, ...]:
        """Read the file, report its malformed lines, and return the lines with commands.

        Args:
            error: Called with a message about each malformed line.

        Raises:
            OSError: if it cannot be read.
            RefusedError: if lines are malformed, unless `lenient`.
        """
        data = _read_stdin() if self._path == "-" else Path(self._path).read_bytes()
        crontab = parse_crontab(data, self._zone, self._may_run_as)
        for problem in crontab.problems:
            skipped = ", skipped" if self._lenient else ""
            error(f"{self.name}: line {problem.number} is wrong{skipped}: {problem.reason}")
        if crontab.problems and not self._lenient:
            raise RefusedError(self.name, len(crontab.problems))
        return crontab.lines

    def reload(self, error: Callable[[str], None]) -> tuple[CronLine, ...]:
        """Read the file again. It must be a regular file: reading a pipe would block the schedule.

        Args:
            error: Called with a message about each malformed line.

        Raises:
            OSError: if it cannot be read, or is not a regular file.
            RefusedError: as above.
        """
        if self._path == "-" or (Path(self._path).exists() and not Path(self._path).is_file()):
            raise OSError(0, "only a regular file can be read again")
        return self.load(error)


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{count} lines are"
