"""The rooms of the package, and which way imports go."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anysched

SOURCE = Path(anysched.__file__).parent

# A module imports only modules that stand above it.
LAYERS = [
    {"_exceptions", "_timers", "_backend", "_coroutines"},
    {"_clock", "_task"},
    {"_dispatcher", "_create_task"},
    {"_lane"},
    {"_scheduler"},
    {"__init__"},
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """Return the modules of this package that a module imports, by their absolute dotted names."""
    package = ["anysched", *path.relative_to(SOURCE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} if node.module else {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "anysched"}


def test_imports_go_up_only() -> None:
    for path in SOURCE.glob("_*.py"):
        if path.stem in LEVELS:
            for name in imported(path):
                module = name.removeprefix("anysched.")
                assert LEVELS[module] < LEVELS[path.stem], f"{path.name} imports {name}"


def test_every_core_module_has_a_place() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__main__"} == set(LEVELS)


@pytest.mark.parametrize("forbidden", ["trio", "asyncio", "pytest", "rich", "hypothesis", "importlib.metadata"])
def test_the_import_is_light(forbidden: str) -> None:
    """What anyio does not import, importing this package does not import either."""
    program = f"import sys; import anysched; print({forbidden!r} in sys.modules)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize(("backend", "forbidden"), [("asyncio", "trio"), ("trio", "pytest")])
def test_one_backend_does_not_import_the_other(backend: str, forbidden: str) -> None:
    program = f"""
import sys, anyio
from anysched import Scheduler

async def main():
    async with Scheduler("test") as scheduler:
        await scheduler.schedule("id", anyio.sleep, 0)

anyio.run(main, backend={backend!r})
print({forbidden!r} in sys.modules)
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_the_public_names() -> None:
    assert all(hasattr(anysched, name) for name in anysched.__all__)
    assert set(anysched.__all__) == {
        "DuplicateTaskError", "OnConflict", "ScheduledTask", "Scheduler", "SchedulerStatistics", "create_task",
        "current_scheduled_task",
    }  # fmt: skip
