"""Sources of lines other than files and an open standard input."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from anysched._cli import lines, source
from anysched._cli.source import open_input, read_lines


def read_all(descriptor: int, backend: str) -> list[bytes | None]:
    lines: list[bytes | None] = []
    try:
        anyio.run(read_lines, descriptor, lines.append, backend=backend)
    finally:
        os.close(descriptor)
    return lines


def test_a_named_pipe_waits_for_its_writer(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "schedule"
    os.mkfifo(path)
    came = threading.Event()

    def write() -> None:
        came.set()
        path.write_bytes(b"one\ntwo\n\nthree")

    writer = threading.Timer(0.2, write)
    writer.start()
    descriptor = open_input(str(path))
    assert not came.is_set()
    assert read_all(descriptor, backend) == [b"one", b"two", b"", b"three"]
    writer.join()


def test_a_line_in_many_chunks(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK", 3)
    (tmp_path / "schedule").write_bytes(b"one\nlonger line\nx\n")
    assert read_all(open_input(str(tmp_path / "schedule")), backend) == [b"one", b"longer line", b"x"]


def test_somebody_else_was_quicker(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may share a pipe, and both may be told that there is something to read."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    really: Callable[[int], Awaitable[None]] = anyio.wait_readable
    waits = 0

    async def wait(descriptor: int) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            os.write(theirs, b"x\n")
        if waits == 3:
            os.close(theirs)
        if waits > 1:
            await really(descriptor)

    monkeypatch.setattr(anyio, "wait_readable", wait)
    assert read_all(ours, backend) == [b"x"]
    assert waits == 3


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_what_cannot_be_waited_for_is_read(backend: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first is the answer of epoll, the second that of kqueue, which macOS has."""

    async def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(anyio, "wait_readable", refuse)
    assert read_all(os.open(os.devnull, os.O_RDONLY), backend) == []


def test_another_error_of_waiting_is_raised(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(anyio, "wait_readable", refuse)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_all(os.open(os.devnull, os.O_RDONLY), backend)


def test_waiting_for_a_line_can_be_cancelled_at_once(backend: str) -> None:
    ours, theirs = os.pipe()

    async def wait() -> float:
        begin = time.monotonic()
        with anyio.move_on_after(0.01):
            await read_lines(ours, lambda line: None)
        return time.monotonic() - begin

    assert anyio.run(wait, backend=backend) < 1
    os.close(ours)
    os.close(theirs)


def test_a_device_is_always_readable(backend: str) -> None:
    assert read_all(open_input(os.devnull), backend) == []


def test_a_line_that_is_too_long_is_skipped_to_its_end_and_takes_no_memory(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 10)
    monkeypatch.setattr(source, "CHUNK", 4)
    (tmp_path / "schedule").write_bytes(b"0123456789\n0123456789a\nb\n" + b"x" * 100)
    assert read_all(open_input(str(tmp_path / "schedule")), backend) == [b"0123456789", None, b"b", None]


def test_while_it_is_read_a_line_is_not_copied_again_and_again() -> None:
    splitter = lines.LineSplitter()
    for count in range(20):
        assert list(splitter.feed(b"x" * 60_000)) == []
        assert len(splitter._parts) == (count + 1 if (count + 1) * 60_000 <= lines.LINE_LIMIT else 0)
    assert list(splitter.feed(b"x\ny")) == [None]
    assert list(splitter.finish()) == [b"y"]


def test_a_byte_order_mark_is_dropped_before_the_first_line_only(backend: str, tmp_path: Path) -> None:
    (tmp_path / "schedule").write_bytes(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo")
    assert read_all(open_input(str(tmp_path / "schedule")), backend) == [b"one", b"\xef\xbb\xbftwo"]
