"""Minutes of random load: the memory does not grow. Seconds here, ten minutes on each backend in ``nox -s soak``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "soaked.py"
SECONDS = float(os.environ.get("SOAK", "3"))

MAX_GROWTH = 0.04
"""How much the memory in the last quarter of the time may exceed that in the second, as a part of it."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory is read as on Linux")
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_the_memory_does_not_grow(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = os.environ.get("SOAK_SEED") or str(int.from_bytes(os.urandom(4)))
    command = [sys.executable, str(PROGRAM), backend, str(SECONDS), seed]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120 + 2 * SECONDS, check=False)
    assert process.returncode == 0, f"seed {seed}: {process.stderr}"
    assert not process.stderr, f"seed {seed}: {process.stderr}"
    figures = json.loads(process.stdout)
    with capsys.disabled():
        print(f"\n{backend}, seed {seed}: {json.dumps({key: figures[key] for key in figures if key != 'samples'})}")
    for early, late in (figures["rss"], figures["objects"]):
        # In a few seconds it does not become steady.
        assert late <= early * (1 + MAX_GROWTH * (1 if SECONDS >= 60 else 5)), f"seed {seed}: {figures}"
    assert figures["runs"] > 20 * SECONDS
