"""Running measurements, each in a fresh process, peers in turn, in rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from .peers import PEERS
from .rows import SIZES, Figures, Row

__all__ = ["Job", "Results", "jobs_for", "run"]

_ROOT = Path(__file__).parent.parent
_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures."""

    workload: str
    peer: str
    count: int


@dataclass(slots=True)
class Results:
    """What came out.

    Attributes:
        figures: The values, one for each round, by job and by the name of the figure.
        crashes: What a process that failed had to say, by job.
        seconds: How long the last process took, by job.
        missing: The peers that are not installed.
        rounds: How many rounds there were.
    """

    figures: dict[Job, dict[str, list[float]]] = field(default_factory=dict)
    crashes: dict[Job, str] = field(default_factory=dict)
    seconds: dict[Job, float] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    rounds: int = 0

    def add(self, job: Job, figures: dict[str, float]) -> None:
        """Take the figures of one round."""
        rounds = self.figures.setdefault(job, {})
        for name, value in figures.items():
            rounds.setdefault(name, []).append(value)

    def medians(self, row: Row) -> dict[str, float]:
        """Return the medians for a row by peer, without those that have none."""
        return {
            job.peer: median(rounds[row.figure])
            for job, rounds in self.figures.items()
            if job.workload == row.workload and job.peer in row.peers and row.figure in rounds
        }

    def table(self, rows: Iterable[Row]) -> dict[str, Figures]:
        """Return the medians by row and peer."""
        return {row.name: self.medians(row) for row in rows}


def jobs_for(rows: Iterable[Row], scale: float) -> list[Job]:
    """Return what has to be measured for some rows, once each, rows that share a workload together."""
    jobs: dict[Job, None] = {}
    for row in rows:
        for peer in row.peers:
            count = max(round(SIZES[row.workload] * scale), 20)
            jobs[Job(row.workload, peer, min(count, PEERS[peer].most))] = None
    return list(jobs)


def run(jobs: Iterable[Job], rounds: int, seconds: float, tell: Callable[[Job, int], object]) -> Results:
    """Measure, in whole rounds.

    Args:
        jobs: What.
        rounds: How often, at most.
        seconds: How long it may take, going by the rounds before; there is at least one.
        tell: Called before each measurement with the job and the number of the round.
    """
    results = Results()
    started = perf_counter()
    for number in range(1, rounds + 1):
        if (perf_counter() - started) * number / max(number - 1, 1) > seconds:
            break
        results.rounds = number
        for job in jobs:
            if not PEERS[job.peer].installed:
                results.missing.add(job.peer)
            elif job not in results.crashes and (number == 1 or perf_counter() - started < seconds):
                tell(job, number)
                start = perf_counter()
                try:
                    results.add(job, _measure(job))
                except (subprocess.SubprocessError, ValueError) as failure:
                    results.crashes[job] = str(getattr(failure, "stderr", None) or failure)
                results.seconds[job] = perf_counter() - start
    return results


def _measure(job: Job) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.worker", job.workload, job.peer, str(job.count)]
    with tempfile.TemporaryDirectory() as folder:  # for the files of a peer
        process = subprocess.run(  # noqa: S603  # this very interpreter
            command,
            cwd=_ROOT,
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT,
        )
    figures: dict[str, float] = json.loads(process.stdout)
    return figures
