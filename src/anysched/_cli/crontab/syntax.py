"""What a crontab says, in the syntax of crontab(5). Pure data: no clock, no event loop, no file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo

from .times import check_expression
from .zones import named_zone

__all__ = ["CronLine", "Crontab", "Problem", "parse_crontab"]

ZONE = "CRON_TZ"

ASSIGNMENT = re.compile(
    r"""
    (?: "(?P<double>[^"=]+)" | '(?P<single>[^'=]+)' | (?P<plain>[^\s="'][^\s=]*) )
    \s* = \s*
    (?P<value>.*)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class CronLine:
    """A line with a command. Two are equal if they say the same, wherever they stand.

    Attributes:
        number: The number of the line.
        schedule: When it is due: five fields, or a name such as ``"@hourly"``.
        zone: The zone that it means.
        command: The command, for the shell.
        stdin: What the command reads from its standard input.
        environment: The assignments above it, the last one of each name.
    """

    number: int = field(compare=False)
    schedule: str
    zone: tzinfo
    command: str
    stdin: str
    environment: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What its job is called."""
        return f"line-{self.number}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a line.

    Attributes:
        number: The number of the line.
        reason: Why it is refused, in words.
    """

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Crontab:
    """What a crontab says.

    Attributes:
        lines: The lines with commands.
        problems: The lines that are wrong.
    """

    lines: tuple[CronLine, ...]
    problems: tuple[Problem, ...]


def parse_crontab(data: bytes, zone: tzinfo, may_run_as: Callable[[str], bool] | None = None) -> Crontab:
    """Parse a crontab.

    Args:
        data: The file.
        zone: The zone of the lines that no CRON_TZ stands above.
        may_run_as: Whether commands may run as a user, for a system crontab, with a column for the user; `None` for one
            without it.
    """
    parser = _Parser(zone, may_run_as)
    lines: list[CronLine] = []
    problems: list[Problem] = []
    # Bytes that are no text reach the command as they are.
    for number, text in enumerate(os.fsdecode(data).split("\n"), 1):
        try:
            line = parser.parse(number, text)
        except ValueError as error:
            problems.append(Problem(number, str(error)))
        else:
            if line is not None:
                lines.append(line)
    return Crontab(tuple(lines), tuple(problems))


class _Parser:
    """Knows what has been assigned so far."""

    def __init__(self, zone: tzinfo, may_run_as: Callable[[str], bool] | None) -> None:
        self._default_zone = zone
        self._zone: tzinfo | None = zone
        """`None` where it is unknown: no line runs in a zone that was not meant."""
        self._may_run_as = may_run_as
        self._environment: dict[str, str] = {}

    def parse(self, number: int, text: str) -> CronLine | None:
        """Return the line if it has a command.

        Raises:
            ValueError: if it is wrong.
        """
        text = text.lstrip(" \t")
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
        check_expression(schedule)
        rest = columns[count:]
        if self._may_run_as is not None:
            if not rest:
                raise ValueError("neither a user nor a command")
            user = rest.pop(0)
            if not self._may_run_as(user):
                raise ValueError(f"it is to run as {user!r}, and this process is run by somebody else")
        if not rest:
            raise ValueError("it has no command")
        if self._zone is None:
            raise ValueError("it means the time zone of the CRON_TZ above it, which is unknown")
        command, stdin = _split_command(rest[0])
        return CronLine(number, schedule, self._zone, command, stdin, tuple(self._environment.items()))


def _unquoted(value: str) -> str:
    """Return the value of an assignment.

    Raises:
        ValueError: if it begins with a quote that nothing or not the end of the line follows.
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
    r"""Return the command and its standard input, with the rules of cronie to the letter.

    In the command a backslash covers the character after it, and is dropped if that is a ``%``: ``\\%`` ends the command.
    In the input only ``\%`` means something, also after a backslash; what does not end with a newline is given one.
    (The cron of Debian also makes one backslash of two in the command, which no manual mentions.)
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
