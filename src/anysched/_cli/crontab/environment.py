"""The user and the environment variables of the commands."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable

__all__ = ["is_current_user", "job_environment", "working_directory"]

SHELL = "/bin/sh"


def is_current_user(name: str) -> bool:
    """Return whether a name is the name of the user who runs this process."""
    try:
        return pwd.getpwnam(name).pw_uid == os.geteuid()
    except KeyError:
        return False


def job_environment(assignments: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the environment of a command: that of this process plus the assignments of the crontab.

    As with cron, ``SHELL`` is `/bin/sh` unless the crontab assigns it, and ``LOGNAME`` cannot be assigned.
    ``HOME`` is the working directory.

    Args:
        assignments: The names and values that the crontab assigns.
    """
    inherited = {**os.environ, "SHELL": SHELL}
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:  # common in a container
        return {"HOME": "/", **inherited, **dict(assignments)}
    name = user.pw_name
    return {"HOME": user.pw_dir, **inherited, "USER": name, **dict(assignments), "LOGNAME": name}


def working_directory(home: str) -> tuple[str, str]:
    """Return the working directory of a command, and, if it is not HOME, the reason.

    As with cron, a command whose HOME cannot be entered runs in the root directory.
    """
    if not home:
        return "/", "HOME is empty; it runs in /"
    try:
        os.stat(os.path.join(home, "."))  # noqa: PTH116, PTH118  # pathlib would drop the dot
    except (OSError, ValueError) as error:  # ValueError: a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return "/", f"HOME cannot be entered: {reason}: {home}; it runs in /"
    return home, ""
