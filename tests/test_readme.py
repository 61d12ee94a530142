"""The examples of the README run."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
PROGRAMS = [code for kind, code in BLOCKS if not kind]
FRAGMENTS = [code for kind, code in BLOCKS if kind == "fragment"]
TESTS = [code for kind, code in BLOCKS if kind == "test"]

# What the fragments speak of.
SURROUNDINGS = """
import sys
from datetime import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import anyio
from cronsim import CronSim

from anysched import Scheduler

reminder = SimpleNamespace(id=1)
user = SimpleNamespace(id=2)
document = SimpleNamespace(id=3)
url = "https://example.org"


async def greet(user): ...
async def save(document): ...
async def send(reminder): ...
async def fetch(url): return url


async def main():
    async with Scheduler("readme") as scheduler, anyio.create_task_group() as task_group:
        with anyio.move_on_after(0.05):
{fragment}
        task_group.cancel_scope.cancel()

anyio.run(main, backend=sys.argv[1])
"""


def run(code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def test_the_program_prints_what_it_should() -> None:
    (program,) = PROGRAMS
    for backend in ("", ', backend="trio"'):
        output = run(program.replace("anyio.run(main)", f"anyio.run(main{backend})"))
        assert output == "Reminder: the tea is ready\nThe first reminder was delivered\n"


def test_every_block_is_run() -> None:
    assert len(PROGRAMS) + len(FRAGMENTS) + len(TESTS) == README.read_text().count("```python")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_fragments_run(fragment: str, backend: str) -> None:
    run(SURROUNDINGS.format(fragment=indent(fragment, " " * 12)), backend)


def test_the_test_passes(tmp_path: Path) -> None:
    (code,) = TESTS
    (tmp_path / "test_reminder.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", "-p", "no:trio", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert "2 passed" in result.stdout, result.stdout


def test_the_output_of_the_demo_is_the_real_one() -> None:
    def shape(output: str) -> list[str]:
        # Times and process IDs differ, and what happens at the same time may change places.
        return sorted(re.sub(r"[\d:.]+Z|pid \d+|after [\d.]+ s", "...", line) for line in output.splitlines())

    (shown,) = re.findall(r"^```text\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shape(run("import sys; from anysched.__main__ import main; sys.exit(main(['--demo']))")) == shape(shown)
