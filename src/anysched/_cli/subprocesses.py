"""Running a command as a subprocess: its output, its result, its termination."""

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

__all__ = ["CommandResult", "OnOutput", "run_command"]

OnOutput: TypeAlias = Callable[[tuple[str, ...]], object]
"""Called with lines that a command wrote."""

TERMINATE_TIMEOUT = 2.0
"""The seconds between SIGTERM and SIGKILL."""

DRAIN_TIMEOUT = 0.5
"""The seconds to wait for the rest of the output of a killed command: a process outside of its group may hold it open."""

OUTPUT_LIMIT = 1_000_000
"""The bytes of output that are kept, counted from its end: a command may run for weeks."""

LINE_LIMIT = 65_536
"""The characters of a line without an end that are held before they are passed on."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command.

    Attributes:
        state: ``"finished"`` with exit status 0, ``"failed"`` with another or if it could not be started, or
            ``"cancelled"``.
        detail: A description of how it ended.
        output: The lines of its standard output and standard error, unless they were passed on before.
        fields: `detail` in machine-readable form: ``exit_status`` or ``signal``, and ``duration`` in seconds.
    """

    state: Literal["finished", "failed", "cancelled"]
    detail: str
    output: tuple[str, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict[str, object])


class Output(Protocol):
    """Receives the output of a command."""

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        ...

    def lines(self) -> tuple[str, ...]:
        """Return the lines that have not been passed on; called once, at the end."""
        ...


class TailBuffer:
    """Keeps the end of an output until the output is complete."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lost = 0

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._kept += chunk
        if len(self._kept) > 2 * OUTPUT_LIMIT:  # rarely, so that not every chunk moves the whole buffer
            self._cut()

    def lines(self) -> tuple[str, ...]:
        """Return the lines; if the start of the output was discarded, the first line says how much."""
        if len(self._kept) > OUTPUT_LIMIT:
            self._cut()
        lines = tuple(self._kept.decode(errors="backslashreplace").splitlines())
        return (f"... ({self._lost} bytes before this were left out)", *lines) if self._lost else lines

    def _cut(self) -> None:
        excess = len(self._kept) - OUTPUT_LIMIT
        del self._kept[:excess]
        self._lost += excess


class LineBuffer:
    """Passes an output on as it comes, line by line.

    Args:
        printed: Called with the lines of each chunk.
    """

    def __init__(self, printed: OnOutput) -> None:
        self._printed = printed
        # A character, or a CRLF, may be split between two chunks.
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""

    def add(self, chunk: bytes) -> None:
        """Add the next bytes and pass on the lines that they complete."""
        self._take(self._decoder.decode(chunk))

    def lines(self) -> tuple[str, ...]:
        """Pass on the last line, if it had no end, and return no lines."""
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
        if lines:  # a form feed or the like also ends a line
            self._printed(tuple(part for line in lines for part in line.splitlines() or [""]))


async def run_command(
    command: tuple[str, ...],
    started: Callable[[int], None],
    ended: Callable[[CommandResult], None],
    *,
    printed: OnOutput | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> None:
    """Run a command until its process has ended and its output is closed.

    It runs in its own session, so Ctrl-C at the terminal does not reach it. On cancellation, all processes of the
    command's group receive SIGTERM and, if they do not end, SIGKILL.

    Args:
        command: The program and its arguments.
        started: Called with the process ID once it runs.
        ended: Called once, also if the command could not be started or was cancelled.
        printed: Called with the lines of the output as they come; if `None`, they are in the result.
        stdin: The bytes of its standard input.
        environment: Its environment variables; `None` for those of this process.
        directory: Its working directory; `None` for that of this process.
    """
    begin = anyio.current_time()
    output: Output = TailBuffer() if printed is None else LineBuffer(printed)
    # A cancellation halfway through the start would leave a process that is not recorded anywhere.
    with anyio.CancelScope(shield=True) as scope:
        try:
            # A file takes all of it at once; a pipe would need a task that feeds it and ends with the process.
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
            ended(CommandResult("failed", f"cannot be started: {_reason(error)}"))
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
            fields = {**_fields(status), "duration": round(duration, 3)}
            ended(CommandResult(state, f"{_describe(status)} after {duration:.2f} s", output.lines(), fields))


def _file_of(data: bytes) -> IO[bytes] | nullcontext[None]:
    """Return an open, unnamed file with the data, or a null context if there is none."""
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
    """End all processes of a command: a shell does not forward the signal that ends it."""
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATE_TIMEOUT):
        await _drain(process, output)
        await process.wait()
        return
    _signal_group(process, signal.SIGKILL)
    with anyio.move_on_after(DRAIN_TIMEOUT):
        await _drain(process, output)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # no process is left, or only zombies or those of other users
        os.killpg(process.pid, number)


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"ended by {_signal_name(-status)}"


def _fields(status: int) -> dict[str, object]:
    return {"exit_status": status} if status >= 0 else {"signal": _signal_name(-status)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _reason(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
