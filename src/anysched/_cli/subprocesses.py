"""Running a command as a subprocess: its output, its result, its termination.

Processes are started with `subprocess` and not by the event loop: with asyncio, if the thread that watches a process
cannot be started, the process runs without being known. Here a start either fails and leaves nothing, or returns a
process that is known until it has ended. Both backends wait for its end and its output through file descriptors.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Final, Literal, Protocol, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .buffers import LineBuffer, OnOutput, StreamName, TailBuffer

__all__ = ["CommandResult", "poll_process", "run_command"]

TERMINATE_TIMEOUT = 2.0
"""The seconds between SIGTERM and SIGKILL."""

DRAIN_TIMEOUT = 0.5
"""The seconds to wait for more output when a process has ended, since another process may keep the output open."""

POLL_INTERVAL: Final = 0.05
"""The seconds between two checks of a process whose end cannot be waited for."""

CHUNK: Final = 65_536

MAX_CHUNKS: Final = 16
"""The maximum number of chunks to read when the process has ended, which is what a pipe can hold."""

ResultState: TypeAlias = Literal["finished", "failed", "cancelled"]


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

    state: ResultState
    detail: str
    output: tuple[str, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict[str, object])


class Buffer(Protocol):
    """Receives the output of a command."""

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        ...

    def lines(self) -> tuple[str, ...]:
        """Return the lines that have not been passed on; called once, at the end."""
        ...


# The processes that have not been waited for, by their IDs.
_processes: dict[int, subprocess.Popen[bytes]] = {}


def poll_process(pid: int) -> bool:
    """Collect the exit status of a process that has ended, if it is the process of a command.

    Returns:
        Whether it was. Only other processes may be waited for elsewhere.
    """
    process = _processes.get(pid)
    if process is None or process.returncode is not None:  # in the latter case, the ID now belongs to another process
        return False
    process.poll()
    return True


async def run_command(
    command: tuple[str, ...],
    started: Callable[[int], None],
    ended: Callable[[CommandResult], None],
    *,
    printed: OnOutput | None = None,
    separate: bool = False,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> None:
    """Run a command until its process has ended.

    It runs in its own session, so Ctrl-C at the terminal does not reach it. On cancellation, all processes of the
    command's group receive SIGTERM and, if they do not end, SIGKILL.

    If other processes, such as a daemon that it has started, keep its output open when its own process has ended, the
    rest of the output is only read for a short time.

    Args:
        command: The program and its arguments.
        started: Called with the process ID once it runs.
        ended: Called once, also if the command could not be started or was cancelled.
        printed: Called with the lines of the output as they come; if `None`, they are in the result.
        separate: Whether to keep standard error separate from standard output. The relative order of their lines is
            then lost.
        stdin: The bytes of its standard input.
        environment: Its environment variables; `None` for those of this process.
        directory: Its working directory; `None` for that of this process.
    """
    begin = anyio.current_time()
    try:
        process = _start(command, stdin, environment, directory, separate)
    except Exception as error:
        # A missing program, no free process or descriptor, a NUL in an argument, no memory, ...
        ended(CommandResult("failed", f"cannot be started: {_reason(error)}"))
        await checkpoint()
        return
    pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
    names: tuple[StreamName, ...] = ("stdout", "stderr")
    outputs = {pipe.fileno(): _buffer(printed, name) for pipe, name in zip(pipes, names, strict=False)}
    was_stopped = False
    try:
        started(process.pid)
        await _wait(process, outputs)
    finally:
        if process.poll() is None:
            was_stopped = True
            with anyio.CancelScope(shield=True):
                await _stop(process, outputs)
        if _processes.get(process.pid) is process:  # otherwise its ID already belongs to another process
            del _processes[process.pid]
        ends = [_read(descriptor, buffer, MAX_CHUNKS) for descriptor, buffer in outputs.items()]
        for pipe in pipes:
            pipe.close()
        status = process.returncode
        state: ResultState = "cancelled" if was_stopped else "failed" if status else "finished"
        duration = anyio.current_time() - begin
        detail = f"{_describe(status)} after {duration:.2f} s"
        if not all(ends):
            detail += ", its output is held open by another process and no longer read"
        lines = tuple(line for buffer in outputs.values() for line in buffer.lines())
        ended(CommandResult(state, detail, lines, {**_fields(status), "duration": round(duration, 3)}))


def _start(
    command: tuple[str, ...],
    stdin: bytes,
    environment: Mapping[str, str] | None,
    directory: str | None,
    separate: bool,
) -> subprocess.Popen[bytes]:
    """Start a process. If this raises, no process was started."""
    with ExitStack() as stack:
        # A file takes all of the input at once; a pipe would need a task that writes to it and ends with the process.
        source: int | IO[bytes] = subprocess.DEVNULL
        if stdin:
            source = stack.enter_context(_input_file())
            source.write(stdin)
            source.seek(0)
        process = subprocess.Popen(  # noqa: S603  # running commands is the purpose of the program
            command,
            bufsize=0,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if separate else subprocess.STDOUT,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
    _processes[process.pid] = process
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
    return process


def _input_file() -> IO[bytes]:
    """Return an empty file without a name, in memory if possible: a container may have no directory for temporary files."""
    if hasattr(os, "memfd_create"):
        with suppress(PermissionError):  # in a sandbox
            return os.fdopen(os.memfd_create("stdin"), "w+b")
    return TemporaryFile()


def _buffer(printed: OnOutput | None, stream: StreamName) -> Buffer:
    return TailBuffer() if printed is None else LineBuffer(printed, stream)


async def _wait(process: subprocess.Popen[bytes], outputs: Mapping[int, Buffer]) -> bool:
    """Wait until a process has ended, then briefly for the rest of its output. Return whether the output has ended."""
    is_complete = False

    async def drain() -> None:
        nonlocal is_complete
        async with anyio.create_task_group() as drains:
            for descriptor, buffer in outputs.items():
                drains.start_soon(_drain, descriptor, buffer)
        is_complete = True

    async with anyio.create_task_group() as group:
        group.start_soon(drain)
        await _wait_exit(process)
        group.cancel_scope.deadline = anyio.current_time() + DRAIN_TIMEOUT
    return is_complete


async def _drain(descriptor: int, buffer: Buffer) -> None:
    """Read an output until its end."""
    await _wait_readable(descriptor)
    while not _read(descriptor, buffer, 1):
        await _wait_readable(descriptor)


def _read(descriptor: int, buffer: Buffer, chunks: int) -> bool:
    """Read the available output, up to a number of chunks; return whether the output has ended."""
    with suppress(BlockingIOError):
        for _ in range(chunks):
            chunk = os.read(descriptor, CHUNK)
            if not chunk:
                return True
            buffer.add(chunk)
    return False


async def _wait_exit(process: subprocess.Popen[bytes]) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, an old version, a sandbox, or too many descriptors
        while process.poll() is None:  # noqa: ASYNC110
            await anyio.sleep(POLL_INTERVAL)
        return
    try:
        while process.poll() is None:
            await _wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def _wait_readable(descriptor: int) -> None:
    try:
        await anyio.wait_readable(descriptor)
    except OSError:  # the limits of epoll are reached
        await anyio.sleep(POLL_INTERVAL)


async def _stop(process: subprocess.Popen[bytes], outputs: Mapping[int, Buffer]) -> None:
    """End all processes of a command: a shell does not forward the signal that ends it."""
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATE_TIMEOUT):
        if await _wait(process, outputs):
            return
    # The process, or others in its group that keep the output open.
    _signal_group(process, signal.SIGKILL)
    await _wait(process, outputs)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
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
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error) or type(error).__name__
