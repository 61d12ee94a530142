"""A command as a subprocess, where it is cancelled at an awkward moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anysched._cli import subprocesses
from anysched._cli.subprocesses import CommandResult, LineBuffer, run_command


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
    stream = LineBuffer(lambda lines: calls.append(list(lines)))
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
    monkeypatch.setattr(subprocesses, "LINE_LIMIT", 3)
    assert passed_on([b"ab", b"c", b"defgh", b"i\n"]) == [["abc", "def"], ["ghi"]]


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
            ("sh", "-c", 'pwd; echo "$A"; wc -c'), lambda pid: None, ended.append, printed=lines.extend,
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
