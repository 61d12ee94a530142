"""The echo of control characters on a terminal, and whether the terminal is that of this process."""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from typing import TextIO, final

from anysched._cli.streams import descriptor_of

__all__ = ["EchoControl"]

LOCAL_FLAGS = 3


@final
class EchoControl:
    """Keeps a terminal from showing ``^C`` where the cursor is, in the middle of a table that is redrawn there.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        descriptor = descriptor_of(stream)
        self._descriptor = -1 if descriptor is None else descriptor
        self._was_on = False

    def is_in_background(self) -> bool:
        """Return whether the terminal belongs to another job of the shell, or to the shell."""
        with suppress(OSError):  # it has closed, or is not the terminal of this session
            return os.tcgetpgrp(self._descriptor) != os.getpgrp()
        return False

    def disable(self) -> None:
        """Switch the echo of control characters off, if it is on and this process is in the foreground."""
        self._was_on = self._change(on=False)

    def restore(self) -> None:
        """Switch it on again if it was."""
        if self._was_on:
            self._change(on=True)
            self._was_on = False

    def _change(self, *, on: bool) -> bool:
        """Switch the echo; return whether it was the other way."""
        with suppress(OSError, termios.error):  # the terminal has closed, or is none
            if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                return False  # a change from the background would stop the process
            attributes = termios.tcgetattr(self._descriptor)
            flags = attributes[LOCAL_FLAGS]
            attributes[LOCAL_FLAGS] = flags | termios.ECHOCTL if on else flags & ~termios.ECHOCTL
            termios.tcsetattr(self._descriptor, termios.TCSANOW, attributes)
            return bool(flags & termios.ECHOCTL) != on
        return False
