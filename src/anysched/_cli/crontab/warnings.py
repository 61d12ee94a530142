"""Lines of a crontab that are valid but probably not what was meant."""

from __future__ import annotations

import pwd
import re
import shutil
from collections.abc import Callable, Iterable, Iterator

from .syntax import CronLine, Problem

__all__ = ["is_user", "warnings"]

FIELD = re.compile(r"(\*|\?|L|\d+(L|W|#\d)?|(?i:sun|mon|tue|wed|thu|fri|sat)|[A-Za-z]{3}-[A-Za-z]{3})([-/,]\S*)?")
"""The form of the sixth or seventh field of other runners, for seconds or years."""


def is_user(name: str) -> bool:
    """Return whether a name is that of a user of this machine, and not of a program."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: characters that no name has
        return False
    return shutil.which(name) is None


def warnings(lines: Iterable[CronLine], has_user: bool, is_user: Callable[[str], bool] = is_user) -> Iterator[Problem]:
    """Yield suspicious lines, with the reasons.

    Args:
        lines: The lines.
        has_user: Whether they have a column for the user.
        is_user: Returns whether a word is the name of a user.
    """
    for line in lines:
        word, *rest = line.command.split(None, 1) or [""]
        if FIELD.fullmatch(word):
            yield Problem(
                line.number,
                f"the command begins with {word!r}, which looks like a sixth field: there are five, "
                "none of them for seconds or years",
            )
        elif not has_user and rest and is_user(word):
            yield Problem(line.number, f"the command begins with {word!r}, the name of a user: is --system missing?")
        # In two steps, in linear time.
        if line.stdin and line.command.endswith("+") and re.search(r"\bdate\b", re.split("[|;&]", line.command)[-1]):
            yield Problem(line.number, r"the command ends before the first %, as in `date +`: write \% for a %")
