"""A command as a subprocess, where it is cancelled at an awkward moment."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anysched._cli import buffers, orphans, subprocesses
from anysched._cli.buffers import LineBuffer
from anysched._cli.subprocesses import CommandResult, run_command


def test_cancelled_while_it_is_being_started_it_is_terminated(backend: str, gone: Callable[[int], bool]) -> None:
    started: list[int] = []
    ended: list[CommandResult] = []

    async def run() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_command(("sleep", "60"), started.append, ended.append)
        assert scope.cancelled_caught

    anyio.run(run, backend=backend)
    assert [ending.state for ending in ended] == ["cancelled"]
    assert ended[0].detail.startswith("ended by SIGTERM after ")
    assert gone(started[0])


def test_a_command_is_terminated_when_nobody_can_be_told(backend: str, gone: Callable[[int], bool]) -> None:
    pids: list[int] = []
    ended: list[CommandResult] = []

    def started(pid: int) -> None:
        pids.append(pid)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(run_command, ("sleep", "60"), started, ended.append, backend=backend)
    assert [ending.state for ending in ended] == ["cancelled"]
    assert gone(pids[0])


def passed_on(chunks: list[bytes]) -> list[list[str]]:
    calls: list[list[str]] = []
    stream = LineBuffer(lambda lines, stream: calls.append(list(lines)), "stdout")
    for chunk in chunks:
        stream.add(chunk)
    assert stream.lines() == ()
    return calls


def test_lines_are_passed_on_when_they_are_complete() -> None:
    assert passed_on([b"a", b"b\nc\n\nd", b"", b"\n", b"e"]) == [["ab", "c", ""], ["d"], ["e"]]
    assert passed_on([b"a\r", b"\nb\r\nc\rd"]) == [["a", "b", "c"], ["d"]]
    assert passed_on([b"a\x0cb\n"]) == [["a", "b"]]
    assert passed_on([b"\xc3", b"\xa4\xff\n\xc3"]) == [["\xe4\\xff"], ["\\xc3"]]
    assert passed_on([]) == []


def test_a_line_without_an_end_is_passed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "LINE_LIMIT", 3)
    assert passed_on([b"ab", b"c", b"defgh", b"i\n"]) == [["abc ...", "def ..."], ["ghi"]]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_wherever_the_chunks_end_the_lines_are_the_same(data: bytes, cuts: list[int]) -> None:
    chunks = [data[begin:end] for begin, end in pairwise([0, *sorted(cuts), len(data)])]
    lines = [line for call in passed_on(chunks) for line in call]
    assert lines == [line for call in passed_on([data]) for line in call]


def test_what_is_read_from_the_standard_input_and_where(backend: str, tmp_path: Path) -> None:
    lines: list[str] = []
    ended: list[CommandResult] = []

    async def run() -> None:
        await run_command(
            ("sh", "-c", 'pwd; echo "$A"; wc -c'), lambda pid: None, ended.append, printed=lambda new, stream: lines.extend(new),
            stdin=b"x" * 200_000, environment={"A": "b", "PATH": os.environ["PATH"]}, directory=str(tmp_path),
        )  # fmt: skip

    anyio.run(run, backend=backend)
    assert [line.strip() for line in lines] == [str(tmp_path), "b", "200000"]
    assert [(ending.state, ending.output, ending.fields["exit_status"]) for ending in ended] == [("finished", (), 0)]


def test_a_command_that_does_not_read_its_input_ends_all_the_same(backend: str) -> None:
    ended: list[CommandResult] = []

    async def run() -> None:
        await run_command(("true",), lambda pid: None, ended.append, stdin=b"x" * 200_000)

    anyio.run(run, backend=backend)
    assert [ending.state for ending in ended] == ["finished"]


@pytest.mark.parametrize("there_is", ["only memory", "only a disk", "memory that is refused"])
def test_the_standard_input_is_in_memory_or_in_a_file(
    there_is: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, there may be no file system to which a file can be written."""
    ended: list[CommandResult] = []

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if there_is == "only a disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif there_is == "memory that is refused":
        monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    elif hasattr(os, "memfd_create"):
        monkeypatch.setattr(subprocesses, "TemporaryFile", refuse)

    async def run() -> None:
        await run_command(("cat",), lambda pid: None, ended.append, stdin=b"hello\n")

    anyio.run(run, backend=backend)
    assert [(result.state, result.output) for result in ended] == [("finished", ("hello",))]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BlockingIOError(11, "Resource temporarily unavailable"), "[Errno 11] Resource temporarily unavailable"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_prevents_the_start_is_the_reason_of_a_failure(
    error: Exception, reason: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[CommandResult] = []

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("subprocess.Popen", refuse)

    async def run() -> None:
        await run_command(("true",), lambda pid: None, ended.append)

    anyio.run(run, backend=backend)
    assert [(result.state, result.detail) for result in ended] == [("failed", f"cannot be started: {reason}")]


def test_no_thread_is_needed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With asyncio's processes, a command ran unknown to the program if a thread could not be started."""
    ended: list[CommandResult] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        await run_command(("sh", "-c", "echo a; exit 3"), lambda pid: None, ended.append)

    anyio.run(run, backend=backend)
    assert [(result.state, result.output, result.fields["exit_status"]) for result in ended] == [("failed", ("a",), 3)]


def test_without_descriptors_for_processes_their_end_is_polled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[CommandResult] = []

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)

    async def run() -> None:
        await run_command(("sh", "-c", "exec >&- 2>&-; sleep 0.1"), lambda pid: None, ended.append)

    anyio.run(run, backend=backend)
    assert [result.state for result in ended] == ["finished"]


def test_where_descriptors_cannot_be_waited_for_they_are_polled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[CommandResult] = []

    async def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(anyio, "wait_readable", refuse)

    async def run() -> None:
        await run_command(("sh", "-c", "echo a; sleep 0.1; echo b"), lambda pid: None, ended.append)

    anyio.run(run, backend=backend)
    assert [(result.state, result.output) for result in ended] == [("finished", ("a", "b"))]


def test_a_daemon_that_holds_the_output_open_does_not_hold_up_the_command(backend: str, tmp_path: Path) -> None:
    lines: list[str] = []
    ended: list[CommandResult] = []
    command = f"(setsid sh -c 'echo $$ > {tmp_path}/pid; while sleep 0.01; do echo more; done' &) ; echo done"

    async def run() -> None:
        await run_command(
            ("sh", "-c", command), lambda pid: None, ended.append, printed=lambda new, stream: lines.extend(new)
        )

    begin = time.monotonic()
    anyio.run(run, backend=backend)
    assert time.monotonic() - begin < 10
    assert ended[0].state == "finished"
    assert ended[0].detail.endswith(" s, its output is held open by another process and no longer read")
    assert "done" in lines
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_daemon_that_writes_without_end_does_not_either(backend: str, tmp_path: Path) -> None:
    ended: list[CommandResult] = []
    command = f"(setsid sh -c 'echo $$ > {tmp_path}/pid; exec yes' &); until [ -s {tmp_path}/pid ]; do sleep 0.01; done"

    async def run() -> None:
        await run_command(("sh", "-c", command), lambda pid: None, ended.append)

    anyio.run(run, backend=backend)
    assert ended[0].state == "finished"
    with suppress(ProcessLookupError):  # SIGPIPE has ended it
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_the_standard_error_can_be_kept_apart(backend: str) -> None:
    printed: list[tuple[str, tuple[str, ...]]] = []
    ended: list[CommandResult] = []

    async def run() -> None:
        await run_command(
            ("sh", "-c", "echo one; echo two >&2"), lambda pid: None, ended.append, separate=True,
            printed=lambda lines, stream: printed.append((stream, lines)),
        )  # fmt: skip

    anyio.run(run, backend=backend)
    assert sorted(printed) == [("stderr", ("two",)), ("stdout", ("one",))]
    assert [result.state for result in ended] == ["finished"]


def test_a_process_whose_id_is_given_to_another_one_is_forgotten_and_the_other_is_not(backend: str) -> None:
    other = cast("subprocess.Popen[bytes]", SimpleNamespace(returncode=None))
    pids: list[int] = []

    def started(pid: int) -> None:
        pids.append(pid)
        subprocesses._processes[pid] = other

    async def run() -> None:
        await run_command(("true",), started, lambda result: None)

    anyio.run(run, backend=backend)
    assert subprocesses._processes == {pids[0]: other}
    subprocesses._processes.clear()


def test_only_the_process_of_a_command_that_has_not_been_waited_for_is_polled() -> None:
    process = SimpleNamespace(returncode=None)
    process.poll = lambda: setattr(process, "returncode", 0)
    subprocesses._processes[7] = cast("subprocess.Popen[bytes]", process)
    assert not subprocesses.poll_process(8)
    assert subprocesses.poll_process(7)
    assert not subprocesses.poll_process(7)
    subprocesses._processes.clear()


def test_orphans_are_waited_for_and_commands_are_left_to_themselves(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ended commands come first: they are polled, and the orphans after them are still found."""
    waited: list[int] = []
    ended = [7, 8]
    process = SimpleNamespace(returncode=None)

    def poll() -> None:
        process.returncode = 0
        ended.remove(7)

    def waitid(kind: int, which: int, options: int) -> SimpleNamespace | None:
        assert options & os.WNOWAIT
        return SimpleNamespace(si_pid=ended[0]) if ended else None

    def waitpid(pid: int, options: int) -> None:
        waited.append(pid)
        ended.remove(pid)

    process.poll = poll
    monkeypatch.setitem(subprocesses._processes, 7, cast("subprocess.Popen[bytes]", process))
    monkeypatch.setattr(os, "waitid", waitid)
    monkeypatch.setattr(os, "waitpid", waitpid)
    monkeypatch.setattr(orphans, "is_reaper", lambda: True)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(orphans.reap_orphans)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    anyio.run(run, backend=backend)
    assert (waited, process.returncode) == ([8], 0)
