"""The peers, by name; a peer is imported only in the process that measures it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, TypeAlias, cast

from ._peer import CannotDoError, Peer, Work

__all__ = ["PEERS", "Backend", "CannotDoError", "Entry", "Peer", "Work"]

Backend: TypeAlias = Literal["asyncio", "trio"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer on one backend.

    Attributes:
        name: Names it in the results and on the command line.
        title: The heading of its column.
        backend: The event loop that it runs on.
        needs: The package that has to be installed.
        module: The module of its adapter.
        adapter: The class of its adapter.
        most: The most IDs that it is given, where more would take minutes; its cost for each only grows with them.
        variant: Whether it is `anysched` with something added, which takes part in the rows that name it and no others.
        instrumented: Whether that are instruments.
    """

    name: str
    title: str
    backend: Backend
    needs: str
    module: str
    adapter: str
    most: int = 10_000_000
    variant: bool = False
    instrumented: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return find_spec(self.needs) is not None and find_spec(self.backend) is not None

    def make(self) -> Peer:
        """Return the peer, which has not been entered."""
        return cast("Peer", getattr(import_module(f"{__name__}.{self.module}"), self.adapter)())


def _variants(backend: Backend) -> tuple[Entry, ...]:
    """Return `anysched` with instruments, and with an SQLite file."""
    prefix = "anysched" if backend == "asyncio" else "trio-anysched"

    def variant(
        name: str,
        title: str,
        adapter: str,
        needs: str = "anysched",
        module: str = "_anysched",
        instrumented: bool = True,
    ) -> Entry:
        return Entry(
            f"{prefix}-{name}", title, backend, needs, module, adapter, variant=True, instrumented=instrumented
        )

    return (
        variant("instrument", "with an instrument", "Instrumented"),
        variant("history", "with History", "WithHistory"),
        variant("telemetry", "with OpenTelemetry", "WithTelemetry", "opentelemetry"),
        variant("durable", "anysched.durable", "Durable", module="_durable", instrumented=False),
    )


_ENTRIES = (
    Entry("anysched", "anysched (coroutines)", "asyncio", "anysched", "_anysched", "Coroutines"),
    Entry("anysched-functions", "anysched (functions)", "asyncio", "anysched", "_anysched", "Functions"),
    *_variants("asyncio"),
    Entry("loop", "loop by hand", "asyncio", "asyncio", "_loop", "Loop"),
    Entry("pydis_core", "pydis-core", "asyncio", "pydis_core", "_pydis_core", "PydisCore"),
    Entry("aiojobs", "aiojobs", "asyncio", "aiojobs", "_aiojobs", "Aiojobs"),
    Entry("apscheduler", "APScheduler 3", "asyncio", "apscheduler", "_apscheduler", "Apscheduler", most=5_000),
    Entry("anyio", "anyio task group", "asyncio", "anyio", "_anyio", "AnyioGroup", most=25_000),
    Entry("trio-anysched", "anysched (coroutines)", "trio", "anysched", "_anysched", "Coroutines"),
    Entry("trio-anysched-functions", "anysched (functions)", "trio", "anysched", "_anysched", "Functions"),
    *_variants("trio"),
    Entry("trio-nursery", "trio nursery", "trio", "trio", "_nursery", "Nursery", most=10_000),
    Entry("trio-anyio", "anyio task group", "trio", "anyio", "_anyio", "AnyioGroup", most=10_000),
)

PEERS = {entry.name: entry for entry in _ENTRIES}
