"""The benchmark on PostgreSQL does what it says; its figures are not tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not in this distribution", allow_module_level=True)
pytest.importorskip("psycopg", reason="psycopg is not installed")

from postgres_server import PostgresServer, reason_to_skip  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason_to_skip() is not None, reason=reason_to_skip() or ""),
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    import benchmarks.postgres

    monkeypatch.setattr(benchmarks.postgres, "CALLERS", (1, 16))
    monkeypatch.setattr(benchmarks.postgres, "IDLE", 1)
    monkeypatch.setattr(benchmarks.postgres, "STANDBYS", 1)
    return benchmarks.postgres


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer(shared_preload_libraries="pg_stat_statements") as server:
        yield server


def test_every_figure_has_a_row(bench: Any, server: PostgresServer) -> None:
    figures: dict[str, float] = {}
    for what in ("figures", "others", "idle", "many"):
        with bench.database(f"postgresql://postgres@127.0.0.1:{server.port}/postgres") as dsn:
            figures |= bench.measure_one("anysched", what, dsn, 0.002)
    assert set(figures) == set(bench.ROWS) - {"schedules-64", "others-64"}
