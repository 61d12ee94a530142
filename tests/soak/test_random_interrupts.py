"""Ctrl-C at random moments, with real signals: a few here, a hundred for each backend in ``nox -s interrupts``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "interrupted.py"
COUNT = int(os.environ.get("INTERRUPTS", "3"))

# Of the event loop's own coroutines, a second signal interrupts asyncio before it awaits them.
NEVER_AWAITED = re.compile(r"coroutine '(?!BaseEventLoop)[^']*' was never awaited")


# A second signal interrupts uvloop so that asyncio cannot close it.
@pytest.mark.parametrize(
    ("backend", "signals"), [("asyncio", 1), ("uvloop", 1), ("trio", 1), ("asyncio", 2), ("trio", 2)]
)
def test_each_run_ends_with_keyboard_interrupt(backend: str, signals: int) -> None:
    seed = int.from_bytes(os.urandom(4))
    command = [sys.executable, str(PROGRAM), backend, str(COUNT), str(signals), str(seed)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60 + 30 * COUNT, check=False)
    assert process.returncode == 0, process.stderr  # if a run hangs, these are the stacks of all threads
    results = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(results) == COUNT
    for result in results:
        assert result["interrupted"], f"seed {seed}: {json.dumps(result, indent=1)}"
        assert not list(filter(NEVER_AWAITED.search, result["warnings"])), f"seed {seed}: {result}"
        # Two signals may interrupt two tasks, whose exceptions then come out together.
        assert signals > 1 or result["outcome"] == "KeyboardInterrupt()", f"seed {seed}: {result}"
