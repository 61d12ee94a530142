"""Imports of the command line go one way: to lower modules of its own, and to the library, which does not know it."""

from __future__ import annotations

import ast
from pathlib import Path

import anysched

ROOT = Path(anysched.__file__).parent
LAYERS = ["entries", "source", "jobs", "arguments", "report", "plain", "table", "demo", "session", "app"]


def imported(path: Path) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [f"{'.' * node.level}{node.module}" for node in nodes]


def test_each_module_imports_only_lower_ones() -> None:
    assert sorted(path.stem for path in (ROOT / "_cli").glob("[!_]*.py")) == sorted(LAYERS)
    for number, name in enumerate(LAYERS):
        own = [module[1:] for module in imported(ROOT / "_cli" / f"{name}.py") if module.startswith(".")]
        assert all(module in LAYERS[:number] for module in own), name


def test_nothing_in_the_library_imports_the_command_line() -> None:
    for path in ROOT.glob("*.py"):
        if path.stem != "__main__":
            assert not [module for module in imported(path) if "_cli" in module], path
