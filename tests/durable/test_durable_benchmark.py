"""The benchmark of the durable tier works; its figures are not tested."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not in this distribution", allow_module_level=True)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.durable

    return benchmarks.durable


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as on Linux")
def test_memory_and_opening_are_measured(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    figures = anyio.run(bench.measure_memory, bench.PEERS["anysched, normal"](), tmp_path / "memory", 200)
    assert set(figures) == {"bytes"}
    figures = anyio.run(bench.measure_opening, tmp_path, 500)
    assert set(figures) == {"open-500", "open-500-megabytes"}


@pytest.mark.slow
def test_every_figure_has_a_row(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CALLERS", (1, 16))
    figures = anyio.run(bench.measure, bench.PEERS["anysched, normal"](), tmp_path, 0.002)
    assert set(figures) == {"schedules-1", "schedules-16", "late-p50", "late-p99", "starts"}
    assert set(figures) <= set(bench.ROWS)
