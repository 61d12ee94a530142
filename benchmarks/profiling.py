"""Where the time of a row goes, function by function."""

from __future__ import annotations

import cProfile
import pstats
from functools import partial

import anyio

from .peers import PEERS
from .runner import Job
from .worker import measure
from .workloads import WORKLOADS, overheads

__all__ = ["profile"]


def profile(job: Job, top: int) -> None:
    """Measure in this process under `cProfile`, and print the functions with the most time in themselves.

    The profiler makes each call more expensive by a tenth of a microsecond or more: the shares tell more than the sums.
    """
    profiler = cProfile.Profile()
    entry = PEERS[job.peer]
    profiler.enable()
    if job.workload == "overheads":
        overheads(job.count)
    else:
        anyio.run(partial(measure, WORKLOADS[job.workload], entry, job.count), backend=entry.backend)
    profiler.disable()
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(top)
