"""One measurement, in the process that is started for it: ``python -m benchmarks.worker WORKLOAD PEER COUNT``."""

from __future__ import annotations

import json
import os
import sys
from functools import partial

import anyio

from .peers import PEERS, Entry
from .workloads import WORKLOADS, Workload, overheads

__all__ = ["measure"]


async def measure(workload: Workload, entry: Entry, count: int) -> dict[str, float]:
    """Put a peer to work, and return the figures."""
    peer = entry.make()
    await peer.__aenter__()
    try:
        return await workload(peer, count)
    finally:
        await peer.__aexit__(None, None, None)


async def _measure_and_exit(workload: Workload, entry: Entry, count: int) -> None:
    async with entry.make() as peer:
        # What still waits is not torn down: that may take longer than the measurement.
        _exit_with(await workload(peer, count))


def _exit_with(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)


def _main(workload: str, peer: str, count: str) -> None:
    if workload == "overheads":
        _exit_with(overheads(int(count)))
    entry = PEERS[peer]
    anyio.run(partial(_measure_and_exit, WORKLOADS[workload], entry, int(count)), backend=entry.backend)


if __name__ == "__main__":
    _main(*sys.argv[1:])
