"""Parsing a crontab in the syntax of crontab(5). Pure data: no clock, no event loop, no file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo
from itertools import chain

from anysched._cli.lines import LINE_LIMIT, LineSplitter

from .times import check_expression
from .zones import named_zone

__all__ = ["CronLine", "Crontab", "Problem", "parse_crontab"]

ZONE = "CRON_TZ"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ASSIGNMENT = re.compile(
    r"""
    (?: "(?P<double>[^"=]+)" | '(?P<single>[^'=]+)' | (?P<plain>[^\s="'][^\s=]*) )
    \s* = \s*
    (?P<value>.*)
    """,
    re.VERBOSE | re.DOTALL,
)


COMMAND = re.compile(r"[/.~$]+[\w-]{2}|[A-Za-z_]{4}")
"""Text with which a command can begin, but not a field."""


@dataclass(frozen=True, slots=True)
class CronLine:
    """A line with a command. Lines are equal if only their numbers differ.

    Attributes:
        number: The number of the line.
        schedule: Five fields, or a name such as ``"@hourly"``.
        zone: The zone of its times.
        command: The command, for the shell.
        stdin: The standard input of the command.
        environment: The assignments above it; of two with one name, the last.
    """

    number: int = field(compare=False)
    schedule: str
    zone: tzinfo
    command: str
    stdin: str
    environment: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The name of its job."""
        return f"line-{self.number}"

    def runs_same(self, other: CronLine) -> bool:
        """Return whether another line has the same command, whenever and in whatever environment it runs."""
        return (self.command, self.stdin) == (other.command, other.stdin)


@dataclass(frozen=True, slots=True)
class Problem:
    """A malformed line.

    Attributes:
        number: The number of the line.
        reason: Why it is refused.
    """

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Crontab:
    """A parsed crontab.

    Attributes:
        lines: The lines with commands.
        problems: The malformed lines.
    """

    lines: tuple[CronLine, ...]
    problems: tuple[Problem, ...]


def parse_crontab(data: bytes, zone: tzinfo, may_run_as: Callable[[str], bool] | None = None) -> Crontab:
    """Parse a crontab.

    Args:
        data: The file.
        zone: The zone of the lines without a CRON_TZ above them.
        may_run_as: Returns whether commands may run as a user, for a system crontab, which has a column for the user;
            `None` for a crontab without it.
    """
    parser = _Parser(zone, may_run_as)
    lines: list[CronLine] = []
    problems: list[Problem] = []
    splitter = LineSplitter()
    for number, data_of_line in enumerate(chain(splitter.feed(data), splitter.finish()), 1):
        try:
            if data_of_line is None:
                raise ValueError(f"it is longer than {LINE_LIMIT:,} bytes")
            # Bytes that are not UTF-8 reach the command unchanged.
            line = parser.parse(number, os.fsdecode(data_of_line))
        except ValueError as error:
            problems.append(Problem(number, str(error)))
        else:
            if line is not None:
                lines.append(line)
    return Crontab(tuple(lines), tuple(problems))


class _Parser:
    """Parses line after line; holds the assignments so far."""

    def __init__(self, zone: tzinfo, may_run_as: Callable[[str], bool] | None) -> None:
        self._default_zone = zone
        self._zone: tzinfo | None = zone
        """`None` below an unknown CRON_TZ, so that lines do not run in a wrong zone."""
        self._may_run_as = may_run_as
        self._environment: dict[str, str] = {}

    def parse(self, number: int, text: str) -> CronLine | None:
        """Return the line if it has a command, else `None`.

        Raises:
            ValueError: if it is malformed.
        """
        text = text.lstrip(" \t")
        if text.startswith("\ufeff"):  # invisible, and ignored only at the start of the file
            raise ValueError("it begins with a byte-order mark")
        if not text.strip() or text.startswith("#"):
            return None
        if text.endswith("\r"):
            raise ValueError("it ends with a carriage return: the lines of the file end as on Windows")
        if "\0" in text:
            raise ValueError("it has a NUL in it")
        assignment = ASSIGNMENT.fullmatch(text)
        if assignment:
            name = assignment["double"] or assignment["single"] or assignment["plain"]
            self._assign(name, _unquoted(assignment["value"]))
            return None
        return self._entry(number, text)

    def _assign(self, name: str, value: str) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"not a name of a variable, which has letters, digits and underscores: {name[:80]!r}")
        if name == ZONE:
            self._zone = None
            self._zone = named_zone(value) if value else self._default_zone
        self._environment[name] = value

    def _entry(self, number: int, text: str) -> CronLine:
        count = 1 if text.startswith("@") else 5
        columns = text.split(None, count if self._may_run_as is None else count + 1)
        schedule = " ".join(columns[:count])
        if len(columns) < count:
            raise ValueError(f"neither an assignment nor five fields and a command: {text[:80]!r}")
        try:
            check_expression(schedule)
        except ValueError as error:
            hint = ""
            if count == 5 and COMMAND.match(columns[4]):
                hint = f": only four fields come before the command {columns[4][:80]!r}"
            raise ValueError(f"{error}{hint}") from None
        rest = columns[count:]
        if self._may_run_as is not None:
            if not rest:
                raise ValueError("neither a user nor a command")
            user = rest.pop(0)
            if not self._may_run_as(user):
                raise ValueError(f"it must run as {user!r}, and this process runs as another user")
        if not rest:
            raise ValueError("it has no command")
        if self._zone is None:
            raise ValueError("it means the time zone of the CRON_TZ above it, which is unknown")
        command, stdin = _split_command(rest[0])
        return CronLine(number, schedule, self._zone, command, stdin, tuple(self._environment.items()))


def _unquoted(value: str) -> str:
    """Return the value of an assignment.

    Raises:
        ValueError: if it begins with a quote that is not closed, or is closed before the end of the line.
    """
    value = value.strip()
    if value[:1] not in ("'", '"'):
        return value
    inside, end, after = value[1:].partition(value[0])
    if not end:
        raise ValueError(f"the quote {value[0]} is not closed")
    if after:
        raise ValueError(f"something follows the value in quotes: {after[:80]!r}")
    return inside


def _split_command(text: str) -> tuple[str, str]:
    r"""Return the command and its standard input, by exactly the rules of cronie.

    In the command a backslash escapes the next character; it is removed only before a ``%``: ``\\%`` ends the command.
    In the input only ``\%`` is an escape, also after a backslash; a final newline is added if there is none.
    (The cron of Debian also turns two backslashes of the command into one, which is undocumented.)
    """
    command = ""
    position = 0
    for found in re.finditer(r"\\.|%", text):
        command += text[position : found.start()]
        position = found.end()
        if found[0] == "%":
            break
        command += "%" if found[0] == r"\%" else found[0]
    else:
        return command + text[position:], ""
    stdin = re.sub(r"\\%|%", lambda found: "%" if found[0] == r"\%" else "\n", text[position:])
    return command, stdin if not stdin or stdin.endswith("\n") else stdin + "\n"
