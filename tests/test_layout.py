"""The rooms of the package, and which way imports go."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anysched

SOURCE = Path(anysched.__file__).parent

# A module imports only modules that stand above it in this list.
LAYERS = [
    {"_core.__init__", "_core.exceptions", "_core.timer_queue", "_core.coroutines", "_core.backends.__init__"},
    {"_core.clock", "_core.task"},
    {"_core.run", "_core.create_task", "_core.triggers"},
    {"_core.backends.group"},
    {"_core.backends.asyncio", "_core.backends.trio"},
    {"_core.backends.starter"},
    {"_core.dispatcher"},
    {"_core.registry", "_core.recurring"},
    {"_core.scheduler"},
    {"__init__"},
    # Virtual time knows the clocks, and nothing else of the core.
    {"_virtual.timeline"},
    {"_virtual.asyncio", "_virtual.trio", "_virtual.time_machine"},
    {"_virtual.clock", "_virtual.__init__"},
    {"pytest_plugin"},
    {"testing"},
    # The command line is one of the users of the core.
    {"_cli.entries", "_cli.source", "_cli.jobs", "_cli.arguments", "_cli.__init__"},
    {"_cli.report", "_cli.demo"},
    {"_cli.closing", "_cli.plain", "_cli.table"},
    {"_cli.json_lines", "_cli.showing", "_cli.session"},
    {"_cli.app"},
    # One of its commands.
    {"_cli.crontab.__init__", "_cli.crontab.account", "_cli.crontab.times", "_cli.crontab.zones"},
    {"_cli.crontab.arguments", "_cli.crontab.syntax"},
    {"_cli.crontab.file", "_cli.crontab.preview", "_cli.crontab.runner"},
    {"_cli.crontab.session"},
    {"_cli.crontab.app"},
    {"__main__"},
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
CORE = LEVELS["__init__"]


def modules() -> dict[str, Path]:
    """Return the paths of all modules by their dotted names in the package."""
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}


def imported(name: str, path: Path) -> set[str]:
    """Return the modules of this package that a module imports, by their dotted names in the package."""
    package = ["anysched", *name.split(".")[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            submodules = {f"{module}.{alias.name}" for alias in node.names}
            known = {submodule for submodule in submodules if submodule.removeprefix("anysched.") in LEVELS}
            names |= known or {module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    found = {name.removeprefix("anysched.") for name in names if name.split(".")[0] == "anysched"}
    return {f"{name}.__init__" if f"{name}.__init__" in LEVELS else name for name in found}


def test_every_module_has_a_place() -> None:
    assert set(modules()) == set(LEVELS)


def test_imports_go_up_only() -> None:
    for name, path in modules().items():
        for other in imported(name, path):
            assert other in LEVELS, f"{name} imports {other}: nothing imports the root of a package"
            assert LEVELS[other] < LEVELS[name], f"{name} imports {other}"


def test_virtual_time_and_the_command_line_stand_apart() -> None:
    for name, path in modules().items():
        for other in imported(name, path):
            if name.startswith("_virtual."):
                assert other in ("_core.backends.__init__", "_core.clock") or other.startswith("_virtual."), (
                    f"{name} imports {other}"
                )
            if LEVELS[name] < LEVELS["_cli.entries"]:
                assert not other.startswith("_cli"), f"{name} imports {other}"
            if LEVELS[name] <= CORE:
                assert LEVELS[other] <= CORE, f"{name} imports {other}"


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
        "ConflictPolicy", "DuplicateTaskError", "MissedPolicy", "ScheduledTask", "Scheduler", "SchedulerState", "SchedulerStatistics", "create_task",
        "current_scheduled_task",
    }  # fmt: skip
