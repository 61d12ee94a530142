"""Running a command as a subprocess, and what comes of it."""

from __future__ import annotations

import codecs
import io
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from subprocess import DEVNULL, PIPE, STDOUT
from tempfile import TemporaryFile
from typing import IO, Literal, Protocol, TypeAlias

import anyio
from anyio.abc import Process

__all__ = ["Ending", "Printed", "run_command"]

Printed: TypeAlias = Callable[[tuple[str, ...]], object]
"""Takes lines that a command wrote."""

TERMINATION_TIME = 2.0
"""How long a command that was asked to end may take, in seconds, before it is killed."""

LAST_WORDS_TIME = 0.5
"""How long to wait for the output of a killed command: what left its process group may hold it open for ever."""

OUTPUT_LIMIT = 1_000_000
"""How much of the output is kept, in bytes: the end of it. A command may run for weeks."""

LINE_LIMIT = 65_536
"""How many characters of a line that has no end are held before they are passed on."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a command.

    Attributes:
        state: ``"finished"`` with exit status 0, ``"failed"`` with another or if it could not be started, or
            ``"cancelled"``.
        detail: How it ended, in words.
        output: The lines that it wrote to its standard output and standard error, unless they were passed on before.
        facts: What `detail` says, for machines: ``exit_status`` or ``signal``, and ``duration`` in seconds.
    """

    state: Literal["finished", "failed", "cancelled"]
    detail: str
    output: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


class Output(Protocol):
    """Where the output of a command goes."""

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    def lines(self) -> tuple[str, ...]:
        """Return, at the end, the lines that have not been passed on."""
        ...


class Tail:
    """The end of an output, kept until all of it is there."""

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


class Stream:
    """An output that is passed on as it comes, line by line.

    Args:
        printed: Called with the lines of each chunk.
    """

    def __init__(self, printed: Printed) -> None:
        self._printed = printed
        # Neither a character nor the two of a line end are torn apart where chunks meet.
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""

    def add(self, chunk: bytes) -> None:
        """Take the next bytes, and pass on the lines that are complete with them."""
        self._take(self._decoder.decode(chunk))

    def lines(self) -> tuple[str, ...]:
        """Pass on what is left; nothing is."""
        self._take(self._decoder.decode(b"", final=True))
        self._pass_on([self._rest] if self._rest else [])
        self._rest = ""
        return ()

    def _take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        while len(self._rest) > LINE_LIMIT:
            lines.append(self._rest[:LINE_LIMIT])
            self._rest = self._rest[LINE_LIMIT:]
        self._pass_on(lines)

    def _pass_on(self, lines: list[str]) -> None:
        if lines:  # each of them on one line, also where a form feed or the like is in it
            self._printed(tuple(part for line in lines for part in line.splitlines() or [""]))


async def run_command(
    command: tuple[str, ...],
    started: Callable[[int], None],
    ended: Callable[[Ending], None],
    *,
    printed: Printed | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> None:
    """Run a command to its end, which is when its process has ended and its output is closed.

    It has a session of its own: a Ctrl-C at the terminal does not reach it. When this is cancelled, all processes of
    the command are asked to terminate, and killed if they do not.

    Args:
        command: The program and its arguments.
        started: Called with the process ID once it runs.
        ended: Called once, at the end, also if the command could not be started or was cancelled.
        printed: Called with the lines of the output as they come; without it they are in the ending.
        stdin: What it reads from its standard input.
        environment: Its environment; `None` for that of this process.
        directory: Where it runs; `None` for where this process does.
    """
    begin = anyio.current_time()
    output: Output = Tail() if printed is None else Stream(printed)
    # Cancelled halfway through its start, there would be a process that nobody knows.
    with anyio.CancelScope(shield=True) as scope:
        try:
            # From a file, which takes all at once: a pipe would have to be fed, by a task that ends with the process.
            with _file_of(stdin) as source:
                process = await anyio.open_process(
                    command,
                    stdin=DEVNULL if source is None else source,
                    stdout=PIPE,
                    stderr=STDOUT,
                    env=environment,
                    cwd=directory,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:  # ValueError: a NUL, or characters that no file name can have
            ended(Ending("failed", f"cannot be started: {_reason(error)}"))
            return
        state: Literal["finished", "failed", "cancelled"] = "cancelled"
        try:
            started(process.pid)
            scope.shield = False
            await _drain(process, output)
            state = "failed" if await process.wait() else "finished"
        finally:
            scope.shield = True
            if state == "cancelled":
                await _stop(process, output)
            await process.aclose()
            status = process.returncode
            assert status is not None
            duration = anyio.current_time() - begin
            facts = {**_facts(status), "duration": round(duration, 3)}
            ended(Ending(state, f"{_describe(status)} after {duration:.2f} s", output.lines(), facts))


def _file_of(data: bytes) -> IO[bytes] | nullcontext[None]:
    """Return an open file without a name that holds the data; nothing if there is none."""
    if not data:
        return nullcontext()
    file = TemporaryFile()  # noqa: SIM115  # the caller closes it
    file.write(data)
    file.seek(0)
    return file


async def _drain(process: Process, output: Output) -> None:
    assert process.stdout is not None
    with suppress(anyio.EndOfStream):
        while True:
            output.add(await process.stdout.receive())


async def _stop(process: Process, output: Output) -> None:
    """End all processes of a command: a shell does not pass on the signal that ends it."""
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATION_TIME):
        await _drain(process, output)
        await process.wait()
        return
    _signal_group(process, signal.SIGKILL)
    with anyio.move_on_after(LAST_WORDS_TIME):
        await _drain(process, output)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left, or nobody but zombies or other users
        os.killpg(process.pid, number)


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"ended by {_signal_name(-status)}"


def _facts(status: int) -> dict[str, object]:
    return {"exit_status": status} if status >= 0 else {"signal": _signal_name(-status)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _reason(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
