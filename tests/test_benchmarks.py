"""The benchmarks work and measure the same work with every peer. The figures are not tested."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

ROOT = Path(__file__).parent.parent

if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not in this distribution", allow_module_level=True)

# The name is too common to be put on the import path for good.
sys.path.insert(0, str(ROOT))
try:
    from benchmarks import worker
    from benchmarks.__main__ import main
    from benchmarks.peers import PEERS, Entry
    from benchmarks.rows import ROWS, SIZES, Row, Target
    from benchmarks.runner import Job, Results, jobs_for
    from benchmarks.table import as_data, verdicts
    from benchmarks.workloads import WORKLOADS
finally:
    sys.path.remove(str(ROOT))


@pytest.fixture(params=[*PEERS], ids=[*PEERS])
def entry(request: pytest.FixtureRequest) -> Entry:
    entry = PEERS[request.param]
    if not entry.installed:
        pytest.skip(f"{entry.needs} is not installed")
    return entry


@pytest.mark.filterwarnings("default")  # the peers' own
@pytest.mark.parametrize("workload", [name for name in WORKLOADS if name not in ("many", "lateness")])
def test_each_peer_does_each_workload_and_gives_the_figures_that_the_rows_show(
    entry: Entry, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    figures = anyio.run(worker.measure, WORKLOADS[workload], entry, 40, backend=entry.backend)
    shown = {row.figure for row in ROWS if row.workload == workload and entry.name in row.peers}
    assert shown <= figures.keys() | {"bytes"}
    assert all(value >= 0 for name, value in figures.items() if name not in ("bytes", "objects"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_measurement_in_a_process_of_its_own_writes_its_figures_as_json(backend: str) -> None:
    peer = "anysched" if backend == "asyncio" else "trio-anysched"
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", "soon-bursts", peer, "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout).keys() == {"run"}


@pytest.mark.slow
def test_the_command_measures_prints_and_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, stored = (tmp_path / f"{python}.json" for python in ("{python}", ".".join(map(str, sys.version_info[:2]))))
    assert main(["--only", "postpone", "context", "--scale", "0.0001", "--rounds", "1", "--json", str(asked)]) == 0
    assert "reschedule_later" in capsys.readouterr().out
    rows = json.loads(stored.read_text("utf-8"))["rows"]
    assert rows.keys() == {"postpone", "context"}
    assert rows["postpone"]["medians"].keys() >= {"anysched", "anysched-functions"}


def test_the_command_profiles_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "postpone", "--scale", "0.05", "--top", "5"]) == 0
    assert "function calls" in capsys.readouterr().out


def test_a_profile_of_a_peer_that_takes_no_part_in_the_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--profile", "postpone", "--peer", "loop"])
    assert "loop is not measured in postpone" in capsys.readouterr().err


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.plot import plot

    chart = tmp_path / "chart.svg"
    machine = {"python": "3", "processor": "abacus", "cores": 1, "date": "2000-01-01"}
    plot(chart, {"later": {"anysched": 2.0, "loop": 3.0, "pydis_core": 1.0}, "cancel": {"anysched": 1.0}}, machine)
    assert "<svg" in chart.read_text("utf-8")
    assert "<svg" in (tmp_path / "chart-narrow.svg").read_text("utf-8")


def test_a_measurement_that_crashes_is_told_and_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SIZES, "overheads", "many")  # a count that is none
    monkeypatch.setattr("benchmarks.__main__.jobs_for", lambda *_: [Job("overheads", "anysched", "many")])  # type: ignore[arg-type]
    assert main(["--only", "context", "--rounds", "2"]) == 1
    assert "ValueError" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_a_dash_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Entry, "installed", False)
    assert main(["--only", "later"]) == 0
    assert "not installed: anysched" in capsys.readouterr().out


def test_medians_targets_and_their_verdicts() -> None:
    held = Target("≤ half", lambda row, _run: row["loop"] / 2, "anysched")
    missed = Target("≤ other", lambda _row, run: run["other"]["anysched"], "anysched")
    unknown = Target("≤ pydis_core", lambda row, _run: row["pydis_core"], "anysched")
    row = Row(
        "row", "Row", "µs", "pending", "later", "asyncio", ("anysched", "loop", "pydis_core"), (held, missed, unknown)
    )
    results = Results()
    for value in (2.0, 9.0, 3.0):
        results.add(Job("pending", "anysched", 10), {"later": value})
        results.add(Job("pending", "loop", 10), {"later": 6.0, "else": 1.0})
    table = {"row": results.medians(row), "other": {"anysched": 2.5}}
    assert table["row"] == {"anysched": 3.0, "loop": 6.0}
    assert verdicts(row, table) == [("≤ half", 3.0, True), ("≤ other", 2.5, False)]
    assert as_data([row], results)["rows"]["row"]["medians"] == {"anysched": 3.0, "loop": 6.0}


def test_rows_that_share_a_workload_are_measured_once() -> None:
    rows = [row for row in ROWS if row.workload == "pending" and row.backend == "asyncio"]
    jobs = jobs_for(rows, 1.0)
    assert len(rows) > 1
    assert len(jobs) == len({job.peer for job in jobs})
    assert len({row.name for row in ROWS}) == len(ROWS)
