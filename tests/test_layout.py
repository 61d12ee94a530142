"""The modules of the package, and the direction of their imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anysched

SOURCE = Path(anysched.__file__).parent

# The levels of the core: a module imports only from strictly lower levels. A package represents its modules.
CORE = [
    {"failures", "guard", "held_up", "texts", "timer_queue"},
    {"coroutines", "exceptions", "logs"},
    {"backends", "debug", "task"},
    {"clock", "run", "create_task", "waits"},
    {"triggers", "dispatcher", "instruments"},
    {"registry", "recurring"},
    {"scheduler"},
]
# The levels inside other packages.
BACKENDS = [{"__init__"}, {"group"}, {"asyncio", "trio"}, {"current", "starter"}]
WEB = [
    {"assets", "guard", "index", "keys", "server"},
    {"durable"},
    {"query"},
    {"actions", "events", "overview"},
    {"__init__"},
]
VIRTUAL = [
    {"blocked", "asyncio_shuffle", "trio_shuffle"},
    {"timeline", "asyncio_blocked"},
    {"asyncio", "trio", "time_machine"},
    {"clock", "__init__"},
]
DURABLE = [
    {"errors", "operations", "steps", "values"},
    {"handlers", "postgres_schema", "recurrence", "run", "schema", "store", "task", "window"},
    {"listing", "memory", "postgres_connections", "shared", "sqlite", "writer"},
    {"membership", "postgres_operations"},
    {"engine", "postgres"},
    {"scheduler"},
    {"__init__"},
]
# What each package, or module at the top, may import outside of itself.
OUTSIDE = {
    "__init__": {"_core"},
    "abc": {"_core.task"},
    "history": {"__init__", "abc"},
    "opentelemetry": {"__init__", "abc"},
    "web": {"__init__", "abc", "durable", "history"},
    "_moments": set(),
    "_lazy": set(),
    "_core": {"_lazy", "_moments", "abc"},
    "_virtual": {"_core.backends", "_core.backends.current", "_core.clock", "abc"},
    "durable": {"__init__", "_moments", "abc", "cron"},
    "testing": {"_virtual", "pytest_plugin"},
    "pytest_plugin": {"_lazy", "_virtual"},
    "cron": set(),
    "_cli": {"__init__", "cron", "durable", "web"},
    "__main__": {"_cli"},
}


def package_of(name: str) -> str:
    return name.partition(".")[0]


def level_in(levels: list[set[str]], name: str) -> int:
    return next(level for level, names in enumerate(levels) if name in names)


def modules() -> dict[str, Path]:
    """Return the paths of all modules by their dotted names in the package."""
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}


def imported(name: str, path: Path) -> set[str]:
    """Return the modules of this package that a module imports, by their dotted names in the package."""
    package = ["anysched", *name.split(".")[:-1]]
    known = modules()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}".removeprefix("anysched.")
                names.add(f"anysched.{submodule}" if submodule in known or f"{submodule}.__init__" in known else module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    found = {name.removeprefix("anysched.") for name in names if package_of(name) == "anysched"}
    found = {"__init__" if name == "anysched" else name for name in found}
    return {f"{name}.__init__" if f"{name}.__init__" in known else name for name in found}


def test_every_module_of_the_core_has_a_level() -> None:
    inside = {name.split(".")[1] for name in modules() if name.startswith("_core.")} - {"__init__"}
    assert inside == set().union(*CORE)
    assert {package_of(name) for name in modules()} == set(OUTSIDE)


def test_imports_go_to_strictly_lower_levels() -> None:
    for name, path in modules().items():
        for other in imported(name, path):
            if package_of(name) != package_of(other):
                continue
            inner, target = name.split(".")[1:], other.split(".")[1:]
            if name.startswith("_core.") and inner[0] != target[0]:
                assert level_in(CORE, target[0]) < level_in(CORE, inner[0]), f"{name} imports {other}"
            elif name.startswith("_core.backends."):
                assert level_in(BACKENDS, target[1]) < level_in(BACKENDS, inner[1]), f"{name} imports {other}"
            elif name.startswith("web."):
                assert level_in(WEB, target[0]) < level_in(WEB, inner[0]), f"{name} imports {other}"
            elif name.startswith("durable."):
                assert level_in(DURABLE, target[0]) < level_in(DURABLE, inner[0]), f"{name} imports {other}"
            elif name.startswith("_virtual."):
                assert level_in(VIRTUAL, target[0]) < level_in(VIRTUAL, inner[0]), f"{name} imports {other}"


def test_no_package_imports_what_is_private_to_another() -> None:
    for name, path in modules().items():
        for other in imported(name, path):
            if package_of(name) != package_of(other):
                allowed = OUTSIDE[package_of(name)]
                places = {other.removesuffix(".__init__"), package_of(other)}
                assert places & allowed, f"{name} imports {other}"


def test_there_is_no_cycle() -> None:
    graph = {name: imported(name, path) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_module_of_a_private_package_has_an_underscore() -> None:
    for name in modules():
        assert all(part == "__init__" or not part.startswith("_") for part in name.split(".")[1:]), name


@pytest.mark.parametrize("forbidden", ["trio", "asyncio", "pytest", "rich", "hypothesis", "importlib.metadata"])
def test_the_import_is_light(forbidden: str) -> None:
    """Importing this package imports nothing that anyio does not import."""
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
        "ConflictPolicy", "CurrentRun", "DuplicateTaskError", "MeasuredFrom", "MissedPolicy", "RunningPolicy", "ScheduledTask",
        "Scheduler", "SchedulerState", "SchedulerStatistics", "create_task", "current_run", "current_scheduled_task",
    }  # fmt: skip
