"""Who runs the commands, and in which environment."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable

__all__ = ["is_current_user", "job_environment"]

SHELL = "/bin/sh"


def is_current_user(name: str) -> bool:
    """Tell whether a name is that of the user who runs this process."""
    try:
        return pwd.getpwnam(name).pw_uid == os.geteuid()
    except KeyError:
        return False


def job_environment(assignments: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the environment of a command: that of this process, and what the crontab assigns.

    As with cron, the shell is `/bin/sh` unless the crontab says otherwise, and ``LOGNAME`` is not for it to choose.
    ``HOME`` is where the command runs.

    Args:
        assignments: What the crontab assigns.
    """
    inherited = {**os.environ, "SHELL": SHELL}
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:  # in a container, any number will do
        return {"HOME": "/", **inherited, **dict(assignments)}
    name = user.pw_name
    return {"HOME": user.pw_dir, **inherited, "USER": name, **dict(assignments), "LOGNAME": name}
