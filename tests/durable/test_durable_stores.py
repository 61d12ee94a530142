"""The contract of stores: whatever operations come, each store answers as the model in plain Python does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anysched.durable.memory import MemoryStore
from anysched.durable.operations import (
    Adopt,
    Cancel,
    CancelAll,
    Claim,
    End,
    Find,
    IsEmpty,
    List,
    Load,
    Move,
    Operation,
    Park,
    Pause,
    Put,
    Recover,
    Release,
    Resume,
    Retry,
    Seen,
)
from anysched.durable.sqlite import SQLiteStore
from anysched.durable.store import Store

IDS = st.sampled_from(['"a"', '["a",1]', '["b"]', "7"])
HANDLERS = ["send", "save", "clean"]
DUES = st.integers(min_value=1, max_value=6)
GENERATIONS = st.integers(min_value=1, max_value=12)

OPERATIONS: st.SearchStrategy[Operation[Any]] = st.one_of(
    st.builds(
        Put,
        IDS,
        DUES,
        DUES,
        st.sampled_from(HANDLERS),
        st.just("[]"),
        st.sampled_from([None, "{}"]),
        st.sampled_from([None, 60]),
        st.sampled_from(["keep", "replace", "follow", "error"]),
        st.none() | GENERATIONS,
    ),
    st.builds(Cancel, IDS, st.booleans()),
    st.builds(CancelAll, st.booleans()),
    st.builds(Move, IDS, DUES),
    st.builds(Pause, IDS),
    st.builds(Resume, IDS),
    st.builds(Retry, IDS),
    st.builds(End, GENERATIONS, st.booleans(), st.none() | DUES, DUES),
    st.builds(Park, GENERATIONS, st.just("does not fit")),
    st.builds(Release, GENERATIONS, st.booleans()),
    st.builds(Find, IDS),
    st.builds(Find, st.none(), GENERATIONS),
    st.builds(List, st.sampled_from(["", '"a"', '["a"']), st.just("\x7f"), st.booleans(), st.integers(1, 3)),
    st.builds(Load, DUES, GENERATIONS, st.integers(1, 3)),
    st.just(IsEmpty()),
    st.builds(Adopt, st.sampled_from(HANDLERS)),
    st.builds(Seen, DUES),
)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model."""

    def make(self) -> Store:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.model = MemoryStore()
        self.store = self.make()
        self.model.open()
        self.store.open()

    def same(self, *operations: Operation[Any]) -> list[Any]:
        expected = self.model.commit(operations)
        assert self.store.commit(operations) == expected
        return expected

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=5))
    def commit(self, operations: list[Operation[Any]]) -> None:
        self.same(*operations)

    @rule(index=st.integers(0, 3), miss=st.booleans())
    def claim(self, index: int, miss: bool) -> None:
        """Claim what is ready, or by a due time that is not its own."""
        (ready,) = self.same(Load(-1, 0, 4))
        if index < len(ready):
            placed = ready[index]
            (entry,) = self.same(Claim(placed.generation, placed.due + miss))
            assert (entry is None) == miss

    @rule(handlers=st.sets(st.sampled_from(HANDLERS)), kills=st.integers(1, 3))
    def reopen(self, handlers: set[str], kills: int) -> None:
        for store in (self.model, self.store):
            store.close()
            store.open()
        recover = Recover(frozenset(handlers), kills)
        (expected,), (result,) = self.model.commit([recover]), self.store.commit([recover])
        assert sorted(result.parked) == sorted(expected.parked)
        for name in ("interrupted", "unknown", "seen"):
            assert getattr(result, name) == getattr(expected, name)

    @invariant()
    def all_entries_are_the_same(self) -> None:
        self.same(*(Find(generation=generation) for generation in range(1, 40)))

    def teardown(self) -> None:
        self.store.close()


def run_contract(make: type[StoreMachine]) -> Any:
    case = make.TestCase
    case.settings = settings(
        max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    return case


class SQLiteMachine(StoreMachine):
    def make(self) -> Store:
        self.folder = tempfile.TemporaryDirectory()
        return SQLiteStore(Path(self.folder.name) / "store.db", synchronous="normal")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestSQLite = run_contract(SQLiteMachine)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "store.db")
