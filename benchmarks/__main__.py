"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from rich.console import Console

from .peers import PEERS
from .plot import plot
from .profiling import profile
from .rows import ROWS
from .runner import Job, jobs_for, run
from .table import as_data, machine, print_tables

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for.

    Returns:
        The exit status: 1 if a measurement crashed, and 0 otherwise, whatever the figures are.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    scale, rounds = (0.1, 1) if options.quick else (1.0, 3)
    scale = scale if options.scale is None else options.scale
    rounds = rounds if options.rounds is None else options.rounds
    if options.profile:
        row = next(row for row in ROWS if row.name == options.profile)
        peer = options.peer or row.peers[0]
        if peer not in row.peers:
            parser.error(f"{peer} is not measured in {row.name}; the peers of this row are {', '.join(row.peers)}")
        profile(next(job for job in jobs_for([row], scale) if job.peer == peer), options.top)
        return 0

    # A table that is piped into a file must not be cut.
    console = Console(width=None if sys.stdout.isatty() else 200)
    jobs = jobs_for(rows, scale)
    start = perf_counter()
    total = len(jobs) * rounds
    told = 0

    def tell(job: Job, number: int) -> None:
        nonlocal told
        told += 1
        status.update(f"round {number} of {rounds}, {told} of {total}: {job.workload}, {job.peer}")

    with Console(stderr=True).status("measuring") as status:
        results = run(jobs, rounds, options.minutes * 60, tell)
    print_tables(console, rows, results)
    about = machine()
    console.print(
        f"Python {about['python']}, {about['system']}, {about['processor']}, {about['cores']} cores; "
        f"{results.rounds} rounds in {perf_counter() - start:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number),
        highlight=False,
    )
    if options.json:
        _path(options.json).write_text(json.dumps(as_data(rows, results), indent=2) + "\n", "utf-8")
    if options.plot:
        plot(_path(options.plot), results.table(rows), about)
    return 1 if results.crashes else 0


def _path(name: str) -> Path:
    """Return the path of a file to write, with the version of this Python where the name asks for it."""
    return Path(name.replace("{python}", f"{sys.version_info.major}.{sys.version_info.minor}"))


def _parser() -> argparse.ArgumentParser:
    names: list[str] = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="anysched compared with other libraries")
    parser.add_argument("--quick", action="store_true", help="a tenth of the IDs, one round")
    parser.add_argument("--rounds", type=int, help="number of rounds (default: 3); medians are shown")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="do not begin a round that would exceed this time (default: 9)"
    )
    parser.add_argument("--scale", type=float, help="factor for the number of IDs (default: 1.0)")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=names, help=f"only these rows: {', '.join(names)}")
    parser.add_argument("--json", metavar="FILE", help="store all measurements; {python} becomes the version")
    parser.add_argument("--plot", metavar="FILE", help="draw the chart, as SVG, and one for narrow screens; likewise")
    parser.add_argument("--profile", metavar="ROW", choices=names, help="show a profile of a row instead")
    parser.add_argument("--peer", choices=list(PEERS), help="the peer to profile (default: anysched with coroutines)")
    parser.add_argument("--top", type=int, default=25, help="how many functions of the profile to show (default: 25)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
