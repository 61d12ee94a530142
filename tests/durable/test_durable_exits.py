"""Processes that are ended by a handler, or by Ctrl-C: they end, with the store closed and the run kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("ended_by_a_task.py")
STATUS = {"SystemExit": 3, "KeyboardInterrupt": -2, "SIGINT": -2}  # Python ends itself with the signal


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command: list[Any] = [sys.executable, PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def check(place: object, loop: str, host: str, how: str) -> None:
    ended = run(place, loop, host, how)
    assert ended.returncode == STATUS[how], ended.stderr
    assert ended.stdout.split("\n")[0] == "attempt 1"
    if host == "enter":
        assert ended.stdout.split("\n")[1:] == ["closed", ""]
    again = run(place, loop, host, how)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split("\n") == ["attempt 2", "closed", ""]


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("loop", ["asyncio", "anyio", "uvloop", "trio"])
def test_a_process_that_is_ended_by_a_handler_ends(tmp_path: Path, loop: str, how: str) -> None:
    check(tmp_path / "store.db", loop, "enter", how)


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_whose_scheduler_was_started_ends(tmp_path: Path, loop: str, how: str) -> None:
    check(tmp_path / "store.db", loop, "start", how)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_one_with_a_database_ends(database: str, loop: str) -> None:
    check(database, loop, "enter", "SystemExit")
