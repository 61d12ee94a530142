"""Check the package as users get it: installed from the wheel, without extras; ``nox -s package`` runs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path

LIMIT = 1.3
"""The limit for the import time, as a multiple of that of asyncio and anyio in the same process."""
TRIES = 15

IMPORT = """
import time

start = time.process_time()
import asyncio, anyio
middle = time.process_time()
import anysched
print((time.process_time() - middle) / (middle - start))
"""

PROGRAM = """
import sys
from anysched import Scheduler

assert not {"asyncio", "trio", "pytest", "rich", "hypothesis", "time_machine"} & set(sys.modules)

import anyio
import anysched.testing

async def main():
    async with Scheduler("test") as scheduler:
        await scheduler.schedule_later(3600, "id", anyio.sleep, 3600)
        print(anyio.current_time())

clock = anysched.testing.VirtualClock()
backend, options = clock.backend("asyncio")
anyio.run(main, backend=backend, backend_options=options)
assert not {"trio", "pytest", "rich", "hypothesis", "time_machine"} & set(sys.modules)
"""


def python(*arguments: str) -> str:
    """Run this Python with warnings as errors, outside of the source tree; return its output."""
    command = [sys.executable, "-I", "-W", "error", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=sys.prefix)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def check_environment() -> None:
    """Check that no other packages are installed, which could hide a missing requirement."""
    found = {distribution.name.lower() for distribution in distributions()}
    assert found <= {"anysched", "anyio", "idna", "sniffio", "typing_extensions", "pip", "setuptools"}, found
    assert find_spec("trio") is None
    origin = find_spec("anysched")
    assert origin is not None
    assert Path(str(origin.origin)).is_relative_to(sys.prefix), origin


def check_use() -> None:
    """Check that it can be imported and run, and that it says how to install missing extras."""
    python("-c", "import anysched")
    assert python("-c", PROGRAM) == "7200.0\n"
    assert "usage: " in python("-m", "anysched", "--help")
    script = Path(sys.executable).parent / "anysched"
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout.split() == [
        "anysched",
        version("anysched"),
    ]


def check_import_time() -> None:
    """Check how long the import takes: the best of many, since other work on the machine can only make it slower."""
    best = min(float(python("-c", IMPORT)) for _ in range(TRIES))
    print(f"import anysched takes {best:.2f} times as long as asyncio and anyio, on which it stands")
    assert best < LIMIT, best


if __name__ == "__main__":
    check_environment()
    check_use()
    check_import_time()
