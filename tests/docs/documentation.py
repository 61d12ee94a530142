"""The Python blocks of the README and of the pages in ``docs``, and how they run.

A fenced block whose first word is ``python`` runs. The words after it, which no page shows, say how:

- none: a complete program, which is run on asyncio and on trio by way of ``anyio.run``;
- ``asyncio``, ``trio``: a complete program for this event loop alone, started in whatever way;
- ``fragment``: some lines out of a program, run on both in `SURROUNDINGS`;
- ``test``: a test module, handed to pytest with anyio's plugin, or with another word to ``pytest-asyncio``;
- ``unittest``: a test module, handed to unittest;
- ``NAME.py``: a module that the test modules of the page import;
- ``app``: a module that a specific test loads (`load_app`) and drives;
- ``integrations``, with another word: it imports packages of the dependency group of this name, and runs where these are;
- ``posix``, with another word: it does not run on Windows.

Programs and fragments run in virtual time, which begins with 2025, and the wall clock that ``datetime.now()`` shows is
the virtual one; with the word ``real`` they do not. A block ``text output`` that follows a program is its complete output;
``...`` in it matches anything. Without one, it prints nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import io
import linecache
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio
from markdown_it import MarkdownIt

from anysched.testing import VirtualClock

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORDS = {
    "asyncio", "trio", "fragment", "test", "pytest-asyncio", "unittest", "app", "real", "integrations", "posix",
}  # fmt: skip
OTHERS = {"test", "unittest", "app"}
"""The words of blocks that are not programs."""

# Names that the fragments use.
SURROUNDINGS = """
from datetime import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import anyio
from cronsim import CronSim

from anysched import Scheduler
from anysched.cron import Cron

reminder = SimpleNamespace(id=1)
user = SimpleNamespace(id=2)
document = SimpleNamespace(id=3)
url = "https://example.org"


async def greet(user): ...
async def save(document): ...
async def send(reminder): ...
async def fetch(url): return url


async def main():
    async with Scheduler("fragment") as scheduler, anyio.create_task_group() as task_group:
        with anyio.move_on_after(60):
{fragment}
        task_group.cancel_scope.cancel()

anyio.run(main)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A Python block.

    Attributes:
        path: The page on which it stands.
        line: The first line of its code there, from 1.
        words: What its info string says after ``python``.
        code: The code.
        output: The expected output.
    """

    path: Path
    line: int
    words: frozenset[str]
    code: str
    output: str

    @property
    def name(self) -> str:
        """Return its position as text."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name of the module that it is, if other blocks import it."""
        return next((word for word in self.words if word.endswith(".py")), None)

    @property
    def is_program(self) -> bool:
        """Whether it is a program or a fragment of one, and runs on this system."""
        return not self.words & OTHERS and self.file_name is None and self.runs_here

    @property
    def runs_here(self) -> bool:
        """Whether it runs on this system."""
        return "posix" not in self.words or sys.platform != "win32"

    @property
    def backends(self) -> list[str]:
        """The event loops on which it runs."""
        return [backend for backend in ("asyncio", "trio") if backend in self.words] or ["asyncio", "trio"]


def find_blocks(path: Path) -> Iterator[Block]:
    """Yield the Python blocks of a page, as the parser of the site finds them."""
    fences = [token for token in MarkdownIt().parse(path.read_text("utf-8")) if token.type == "fence"]
    for fence, following in zip_longest(fences, fences[1:]):
        language, *words = fence.info.split() or [""]
        if language == "python":
            assert fence.map is not None
            output = following.content if following is not None and following.info == "text output" else ""
            yield Block(path, fence.map[0] + 2, frozenset(words), fence.content, output)


BLOCKS = [block for path in PAGES for block in find_blocks(path)]


def load_app(page: str) -> ModuleType:
    """Return the one ``app`` block of a page as a module that has been imported, for a test to drive.

    Args:
        page: The path of the page in ``docs``.
    """
    (block,) = [block for block in find_blocks(ROOT / "docs" / page) if "app" in block.words]
    module = ModuleType(Path(page).stem)
    exec(_compile(block, block.code), module.__dict__)
    return module


def run_program(block: Block, backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a program or a fragment to its end, and return its output."""
    code = SURROUNDINGS.format(fragment=indent(block.code, " " * 12)) if "fragment" in block.words else block.code
    clock = VirtualClock()
    output = io.StringIO()
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        stack.enter_context(_logging_as_found())
        if "real" not in block.words:
            _make_virtual(patch, clock, backend)
            stack.enter_context(clock.patch_datetime())
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(output))
        exec(_compile(block, code), {"__name__": "__main__"})
    text = output.getvalue()
    if "scheduled at" in block.output:
        return text
    # Programs run in asyncio's debug mode; the pages show the output without it.
    return re.sub(rf" It was scheduled at {re.escape(block.name)}:\d+\.", "", text)


def run_tests(block: Block, folder: Path) -> None:
    """Run a test module, in a folder where there is nothing else, and check that all its tests have passed."""
    for other in find_blocks(block.path):
        if other.file_name is not None:
            (folder / other.file_name).write_text(other.code, "utf-8")
    (folder / "test_block.py").write_text(block.code, "utf-8")
    command = [sys.executable, "-W", "error", "-m"]
    if "unittest" in block.words:
        command += ["unittest", "test_block"]
        tests = len(re.findall(r"^    (?:async )?def test_", block.code, re.MULTILINE))
        passed = f"Ran {tests} test"
    else:
        ours, theirs = ["-p", "no:asyncio"], ["-o", "asyncio_default_fixture_loop_scope=function"]
        plugins = ["-p", "no:trio", *(theirs if "pytest-asyncio" in block.words else ours)]
        command += ["pytest", "-q", "-W", "error", *plugins, str(folder)]
        marked = len(re.findall(r"^@pytest.mark.asyncio$", block.code, re.MULTILINE))
        # Those of anyio's plugin run on asyncio and on trio, and so do others with such a parameter.
        both = re.findall(r"^async def test_|^@pytest.mark.parametrize\(", block.code, re.MULTILINE)
        tests = 2 * len(both) - marked
        passed = f"{tests} passed"
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    output = result.stdout + result.stderr
    assert tests
    assert result.returncode == 0, output
    assert passed in output, output


def is_like(output: str, expected: str) -> bool:
    """Return whether an output matches the page, in which ``...`` matches anything."""
    return doctest.OutputChecker().check_output(expected, output, doctest.ELLIPSIS)


def _compile(block: Block, code: str) -> Any:
    # So that tracebacks, also those which are shown, have their lines.
    linecache.cache[block.name] = (len(code), None, code.splitlines(keepends=True), block.name)
    return compile(code, block.name, "exec", dont_inherit=True)


def _make_virtual(patch: pytest.MonkeyPatch, clock: VirtualClock, name: Any) -> None:
    """Have every way to start an event loop start one in virtual time, and `anyio.run` the one that is asked for.

    The backend that a program names is one of those that it runs on, not the only one, unless it also says what the event
    loop should use (``backend_options``); then it gets exactly these.
    """
    run, run_trio = anyio.run, trio.run
    _, of_asyncio = clock.backend("asyncio", debug=True)
    _, of_trio = clock.backend("trio")

    def anyio_run(
        function: Callable[..., Any], *args: Any, backend: str = name, backend_options: dict[str, Any] | None = None
    ) -> Any:
        if backend_options is None:
            backend, backend_options = name, of_asyncio if name == "asyncio" else of_trio
        return run(function, *args, backend=backend, backend_options=backend_options)

    def asyncio_run(coroutine: Any, **_: Any) -> Any:
        with asyncio.Runner(debug=True, loop_factory=of_asyncio["loop_factory"]) as runner:
            return runner.run(coroutine)

    patch.setattr(anyio, "run", anyio_run)
    patch.setattr(asyncio, "run", asyncio_run)
    # anyio also runs trio by this name.
    patch.setattr(trio, "run", lambda function, *args, **options: run_trio(function, *args, **{**of_trio, **options}))


@contextlib.contextmanager
def _logging_as_found() -> Iterator[None]:
    """Let a program find logging as if it ran alone, and leave it as it was."""
    root, ours = logging.root, logging.getLogger("anysched")
    handlers, level, our_handlers = root.handlers[:], root.level, ours.handlers[:]
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.handlers[:] = our_handlers
