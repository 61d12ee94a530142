"""Running a command as a subprocess, and what comes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Literal

import anyio
from anyio.abc import Process

__all__ = ["Ending", "run_command"]

TERMINATION_TIME = 2.0
"""How long a command that was asked to end may take, in seconds, before it is killed."""

LAST_WORDS_TIME = 0.5
"""How long to wait for the output of a killed command: what left its process group may hold it open for ever."""

OUTPUT_LIMIT = 1_000_000
"""How much of the output is kept, in bytes: the end of it. A command may run for weeks."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a command.

    Attributes:
        state: ``"finished"`` with exit status 0, ``"failed"`` with another or if it could not be started, or
            ``"cancelled"``.
        detail: How it ended, in words.
        output: The lines that it wrote to its standard output and standard error.
    """

    state: Literal["finished", "failed", "cancelled"]
    detail: str
    output: tuple[str, ...] = ()


class Tail:
    """The end of an output."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lost = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._kept += chunk
        if len(self._kept) > 2 * OUTPUT_LIMIT:  # not at once, lest every chunk moves all of it
            self._cut()

    def lines(self) -> tuple[str, ...]:
        """Return the lines; the first tells how much there was before them, if it was too much."""
        if len(self._kept) > OUTPUT_LIMIT:
            self._cut()
        lines = tuple(self._kept.decode(errors="backslashreplace").splitlines())
        return (f"... ({self._lost} bytes before this were left out)", *lines) if self._lost else lines

    def _cut(self) -> None:
        excess = len(self._kept) - OUTPUT_LIMIT
        del self._kept[:excess]
        self._lost += excess


async def run_command(
    command: tuple[str, ...], started: Callable[[int], None], ended: Callable[[Ending], None]
) -> None:
    """Run a command to its end, which is when its process has ended and its output is closed.

    It has no standard input, and a session of its own: a Ctrl-C at the terminal does not reach it. When this is
    cancelled, all processes of the command are asked to terminate, and killed if they do not.

    Args:
        command: The program and its arguments.
        started: Called with the process ID once it runs.
        ended: Called once, at the end, also if the command could not be started or was cancelled.
    """
    begin = anyio.current_time()
    tail = Tail()
    # Cancelled halfway through its start, there would be a process that nobody knows.
    with anyio.CancelScope(shield=True) as scope:
        try:
            process = await anyio.open_process(
                command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL, or characters that no file name can have
            ended(Ending("failed", f"cannot be started: {_reason(error)}"))
            return
        state: Literal["finished", "failed", "cancelled"] = "cancelled"
        try:
            started(process.pid)
            scope.shield = False
            await _drain(process, tail)
            state = "failed" if await process.wait() else "finished"
        finally:
            scope.shield = True
            if state == "cancelled":
                await _stop(process, tail)
            await process.aclose()
            status = process.returncode
            assert status is not None
            detail = f"{_describe(status)} after {anyio.current_time() - begin:.2f} s"
            ended(Ending(state, detail, tail.lines()))


async def _drain(process: Process, tail: Tail) -> None:
    assert process.stdout is not None
    with suppress(anyio.EndOfStream):
        while True:
            tail.add(await process.stdout.receive())


async def _stop(process: Process, tail: Tail) -> None:
    """End all processes of a command: a shell does not pass on the signal that ends it."""
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATION_TIME):
        await _drain(process, tail)
        await process.wait()
        return
    _signal_group(process, signal.SIGKILL)
    with anyio.move_on_after(LAST_WORDS_TIME):
        await _drain(process, tail)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left, or nobody but zombies or other users
        os.killpg(process.pid, number)


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"ended by signal {-status}"


def _reason(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
