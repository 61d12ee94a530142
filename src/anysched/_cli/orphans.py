"""Waiting for processes that others have left behind, where that is the duty of this process: as process 1 of a container.

What commands leave in the background becomes a child of process 1 (or of the nearest subreaper), and stays a zombie until
that waits for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import Final

import anyio

from .subprocesses import poll_process

__all__ = ["is_reaper", "reap_orphans"]

PR_GET_CHILD_SUBREAPER: Final = 37


def is_reaper() -> bool:
    """Return whether orphans become children of this process: it is process 1, or a subreaper of Linux."""
    if os.getpid() == 1:
        return True
    flag = ctypes.c_int(0)
    with suppress(AttributeError, OSError):  # another system
        ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value != 0


async def reap_orphans() -> None:
    """Wait for all orphans until cancelled; do nothing if they do not become children of this process."""
    if not is_reaper():
        return
    with anyio.open_signal_receiver(signal.SIGCHLD) as signals:
        _reap()
        async for _ in signals:
            _reap()


def _reap() -> None:
    """Wait for all children that have ended, except for the commands: their exit statuses are theirs."""
    with suppress(ChildProcessError):  # there are none
        while True:
            child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if child is None:
                return
            if not poll_process(child.si_pid):
                os.waitpid(child.si_pid, os.WNOHANG)
