"""The results as a table for people, and as data for programs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

from .peers import PEERS, Backend
from .rows import Figures, Row
from .runner import Results

__all__ = ["as_data", "machine", "print_tables", "verdicts"]


def machine() -> dict[str, Any]:
    """Return what the figures depend on: the machine, the versions, the date."""
    names = sorted({entry.needs.replace("_", "-") for entry in PEERS.values()} - {"asyncio"} | {"trio"})
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in names},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123  # no file of ours
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def verdicts(row: Row, table: Mapping[str, Figures]) -> list[tuple[str, float, bool]]:
    """Return the text, the limit and whether it is met for each target of a row whose figures were measured."""
    found: list[tuple[str, float, bool]] = []
    figures = table[row.name]
    for target in row.targets:
        try:
            limit, value = target.limit(figures, table), figures[target.peer]
        except KeyError:
            continue
        found.append((target.text, limit, value <= limit))
    return found


def print_tables(console: Console, rows: Iterable[Row], results: Results) -> None:
    """Print a table for each backend."""
    rows = list(rows)
    table = results.table(rows)
    for backend in ("asyncio", "trio"):
        shown = [row for row in rows if row.backend == backend]
        if shown:
            console.print(_table(backend, shown, table, results))
    for peer in sorted(results.missing):
        console.print(f"not installed: {PEERS[peer].needs} ({PEERS[peer].title}, {PEERS[peer].backend})")
    for job, crash in results.crashes.items():
        console.print(f"[red]crashed[/]: {job}", highlight=False)
        console.print(crash, markup=False, highlight=False)


def _table(backend: Backend, rows: list[Row], table: Mapping[str, Figures], results: Results) -> Table:
    asked = [peer for peer in PEERS if PEERS[peer].backend == backend and any(peer in row.peers for row in rows)]
    grid = Table(title=backend, caption="medians; a dash: not supported", caption_justify="left")
    grid.add_column("work")
    grid.add_column("IDs", justify="right")
    for peer in asked:
        grid.add_column(PEERS[peer].title, justify="right")
    grid.add_column("target")
    for row in rows:
        figures = table[row.name]
        counts = {job.count for job in results.figures if job.workload == row.workload and job.peer in row.peers}
        most = max(counts, default=0)
        fewer = {job.peer: job.count for job in results.figures if job.workload == row.workload and job.count < most}
        grid.add_row(
            f"{row.title} ({row.unit})" if row.unit else row.title,
            f"{most:,}",
            *(_cell(figures.get(peer), fewer.get(peer)) for peer in asked),
            "\n".join(
                f"{'[green]held[/]' if held else '[red]missed[/]'}: {text}" for text, _, held in verdicts(row, table)
            ),
        )
    return grid


def _cell(value: float | None, fewer: int | None) -> str:
    if value is None:
        return "–"
    figure = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{figure} [dim]({fewer:,} IDs)[/]" if fewer else figure


def as_data(rows: Iterable[Row], results: Results) -> dict[str, Any]:
    """Return all measurements, to be stored."""
    rows = list(rows)
    table = results.table(rows)
    return {
        "machine": machine(),
        "rounds": results.rounds,
        "rows": {
            row.name: {
                "title": row.title,
                "unit": row.unit,
                "backend": row.backend,
                "medians": table[row.name],
                "targets": [{"text": text, "limit": limit, "held": held} for text, limit, held in verdicts(row, table)],
            }
            for row in rows
        },
        "measurements": [
            {
                "workload": job.workload,
                "peer": job.peer,
                "count": job.count,
                "seconds": results.seconds.get(job),
                "figures": figures,
            }
            for job, figures in results.figures.items()
        ],
        "missing": sorted(results.missing),
        "crashed": [f"{job.workload} {job.peer}" for job in results.crashes],
    }
