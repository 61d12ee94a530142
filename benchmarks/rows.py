"""The rows of the table, and the targets of `anysched` compared with its peers in the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .peers import PEERS, Backend

__all__ = ["ROWS", "SIZES", "Figures", "Row", "Target"]

Figures: TypeAlias = Mapping[str, float]
"""The figures of one row by peer, medians over the rounds."""

SIZES = {
    "pending": 100_000,
    "many": 1_000_000,
    "debounce": 10_000,
    "soon-bursts": 20_000,
    "soon-at-once": 100_000,
    "later-bursts": 20_000,
    "later-at-once": 100_000,
    "durable": 10_000,
    "hold-up": 50_000,
    "lateness": 5_000,
    "overheads": 200_000,
}
"""How many IDs each workload takes."""

_EVERYBODY = {
    "asyncio": tuple(n for n, e in PEERS.items() if e.backend == "asyncio" and not e.variant),
    "trio": tuple(n for n, e in PEERS.items() if e.backend == "trio" and not e.variant),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A target of `anysched`.

    Attributes:
        text: The text in the table.
        limit: Returns the maximum for `anysched`, from the figures of the row and those of the whole run, by
            row; raises `KeyError` if a peer that it needs was not measured.
        peer: The variant of `anysched` for which it is.
    """

    text: str
    limit: Callable[[Figures, Mapping[str, Figures]], float]
    peer: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        name: The name in the results and on the command line.
        title: The description in the table.
        unit: The unit.
        workload: The workload that returns the figure.
        figure: The name of the figure there.
        backend: The event loop.
        peers: The peers that are measured.
        targets: The targets.
    """

    name: str
    title: str
    unit: str
    workload: str
    figure: str
    backend: Backend
    peers: tuple[str, ...]
    targets: tuple[Target, ...] = field(default=())


def _times(factor: float, other: str, text: str, peer: str) -> Target:
    return Target(text, lambda row, _run: row[other] * factor, peer)


def _most(limit: float, text: str, peer: str) -> Target:
    return Target(text, lambda _row, _run: limit, peer)


def _as_in(row_name: str, factor: float, text: str, peer: str) -> Target:
    return Target(text, lambda _row, run: run[row_name][peer] * factor, peer)


def _rows(backend: Backend) -> tuple[Row, ...]:
    """Return the rows for a backend.

    On trio, anyio's task group takes the place of pydis_core, and the bare nursery that of the event loop by hand.
    """
    asyncio = backend == "asyncio"
    prefix = "" if asyncio else "trio-"
    coroutines, functions = f"{prefix}anysched", f"{prefix}anysched-functions"
    bare = "loop" if asyncio else "trio-nursery"
    bare_title = "the loop by hand" if asyncio else "the bare nursery"
    reference = "pydis_core" if asyncio else "trio-anyio"
    reference_title = "pydis_core" if asyncio else "anyio's group"
    # For starting tasks, pydis_core is the reference on asyncio and the nursery with cancel scopes is on trio.
    starter, starter_title = (reference, reference_title) if asyncio else (bare, bare_title)
    everybody = _EVERYBODY[backend]

    def row(
        name: str,
        title: str,
        unit: str,
        workload: str,
        figure: str,
        *targets: Target,
        peers: tuple[str, ...] = everybody,
    ) -> Row:
        return Row(prefix + name, title, unit, workload, figure, backend, peers, targets)

    return (
        row(
            "later",
            "schedule_later, one hour out",
            "µs",
            "pending",
            "later",
            _times(1.0, bare, f"≤ {bare_title}", coroutines),
            _times(1.0, coroutines, "≤ with coroutines", functions),
        ),
        row(
            "cancel",
            "cancel them",
            "µs",
            "pending",
            "cancel",
            _times(0.5, bare, f"≤ ½ {bare_title}", coroutines),
        ),
        row(
            "bytes",
            "memory for a pending ID, resident",
            "bytes",
            "pending",
            "bytes",
            _most(700, "≤ 700", coroutines),
            _most(450, "≤ 450", functions),
        ),
        row("objects", "objects that the collector tracks, for a pending ID", "", "pending", "objects"),
        row(
            "again",
            "cancel + schedule_later (debounce)",
            "µs",
            "debounce",
            "again",
            _times(0.5, bare, f"≤ ½ {bare_title}", coroutines),
        ),
        row(
            "postpone",
            "reschedule_later",
            "µs",
            "debounce",
            "postpone",
            _most(1.0, "≤ 1", coroutines),
            peers=(coroutines, functions, "apscheduler") if asyncio else (coroutines, functions),
        ),
        row(
            "later-bursts",
            "schedule_later until it has run, in bursts of 1,000",
            "µs",
            "later-bursts",
            "run",
            _times(1 / 2.5, reference, f"≤ {reference_title} / 2.5", coroutines),
        ),
        row(
            "later-at-once",
            "the same, all due at once",
            "µs",
            "later-at-once",
            "run",
            _times(1 / 3, reference, f"≤ {reference_title} / 3", coroutines),
        ),
        row(
            "soon-bursts",
            "schedule until it has run, in bursts of 1,000",
            "µs",
            "soon-bursts",
            "run",
            _times(1.0, starter, f"≤ {starter_title}", coroutines),
        ),
        row(
            "soon-at-once",
            "the same, all at once",
            "µs",
            "soon-at-once",
            "run",
            _times(1.0, starter, f"≤ {starter_title}", coroutines),
        ),
        row(
            "instruments",
            "schedule until it has run, in bursts, with instruments",
            "µs",
            "soon-bursts",
            "run",
            peers=(coroutines, *(n for n, e in PEERS.items() if e.backend == backend and e.instrumented)),
        ),
        row(
            "durable",
            "schedule_later, on disk when it returns, 256 at a time",
            "µs",
            "durable",
            "stored",
            peers=(functions, f"{prefix}anysched-durable"),
        ),
        row(
            "durable-bursts",
            "schedule until it has run, on disk, in bursts of 1,000",
            "µs",
            "durable",
            "run",
            peers=(functions, f"{prefix}anysched-durable"),
        ),
        row(
            "hold-up",
            "longest wait of another task while all become due",
            "ms",
            "hold-up",
            "hold_up",
            _most(10.0, "≤ 10", coroutines),
        ),
        row("hold-up-collector", "longest pause for the collector in that time", "ms", "hold-up", "collector"),
        row(
            "late",
            "lateness over two seconds, p99",
            "ms",
            "lateness",
            "late",
            _times(1.0, bare, f"≤ {bare_title}", coroutines),
        ),
        row(
            "late-scheduled",
            "the same, of those due after the last call",
            "ms",
            "lateness",
            "late_scheduled",
            _times(1.0, bare, f"≤ {bare_title}", coroutines),
        ),
        row(
            "many-later",
            "schedule_later, a million IDs",
            "µs",
            "many",
            "later",
            _as_in(f"{prefix}later", 1.5, "≤ 1.5 × its 100,000", functions),
            peers=(functions, bare) if asyncio else (functions,),
        ),
        row(
            "many-cancel",
            "cancel a million IDs",
            "µs",
            "many",
            "cancel",
            _as_in(f"{prefix}cancel", 1.5, "≤ 1.5 × its 100,000", functions),
            peers=(functions, bare) if asyncio else (functions,),
        ),
    )


ROWS = (
    *_rows("asyncio"),
    Row("context", "capture of the context, in each call", "µs", "overheads", "context", "asyncio", ("anysched",)),
    Row("log", "debug logging when it is off, in each call", "µs", "overheads", "log", "asyncio", ("anysched",)),
    *_rows("trio"),
)
