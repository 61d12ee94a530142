"""The contract of stores: whatever operations come, each store answers as the model in plain Python does."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anysched.durable import StoreError, StoreInUseError, schema
from anysched.durable.memory import MemoryStore
from anysched.durable.operations import (
    Adopt,
    Cancel,
    CancelAll,
    Claim,
    Count,
    End,
    Existing,
    Export,
    Find,
    Import,
    IsEmpty,
    List,
    Load,
    Move,
    Operation,
    Park,
    Pause,
    Placed,
    Put,
    Recover,
    Release,
    Resume,
    Retry,
    Seen,
    Shelve,
    Snapshot,
    State,
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
    st.builds(Claim, GENERATIONS, DUES, st.booleans()),
    st.builds(End, GENERATIONS, st.booleans(), st.none() | DUES, DUES, IDS),
    st.builds(Park, GENERATIONS, st.just("does not fit"), IDS),
    st.builds(Release, GENERATIONS, st.booleans()),
    st.builds(Shelve, GENERATIONS),
    st.builds(Existing, st.lists(GENERATIONS, max_size=3).map(tuple)),
    st.builds(Find, IDS),
    st.builds(Find, st.none(), GENERATIONS),
    st.builds(
        List,
        st.sampled_from(["", '"a"', '["a"']),
        st.just("\x7f"),
        st.booleans(),
        st.integers(1, 3),
        st.sampled_from([None, "pending", "paused", "running", "parked", "unknown"]),
    ),
    st.just(Count()),
    st.builds(Load, DUES, GENERATIONS, st.integers(1, 3)),
    st.just(IsEmpty()),
    st.builds(Adopt, st.sampled_from(HANDLERS)),
    st.builds(Seen, DUES),
)


class StoreMachine(RuleBasedStateMachine):
    """Performs the same operations on a store and on the model."""

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
        """Claim a ready task, or one with a wrong due time."""
        (ready,) = self.same(Load(-1, 0, 4))
        if index < len(ready):
            placed = ready[index]
            (entry,) = self.same(Claim(placed.generation, placed.due + miss))
            assert (entry is None) == miss
            # A claim that is tried again, because it may have been committed, changes nothing more.
            assert self.same(Claim(placed.generation, placed.due + miss, repeated=True)) == [entry]

    @rule(index=st.integers(0, 3), due=st.none() | DUES, park=st.booleans())
    def end(self, index: int, due: int | None, park: bool) -> None:
        """End a running entry, twice: the second time it may have been committed before."""
        running = [entry for entry in self.model._entries.values() if entry.state is State.RUNNING]
        if index < len(running):
            generation, task_id = running[index].generation, running[index].task_id
            operation = Park(generation, "problem", task_id) if park else End(generation, True, due, due, task_id)
            first = self.same(operation)
            assert self.same(operation) == first

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

    @rule(others=st.lists(OPERATIONS, max_size=8), policy=st.sampled_from(["error", "keep", "replace"]))
    def bring_in(self, others: list[Operation[Any]], policy: Any) -> None:
        """Import the contents of another store."""
        self.same(Import(snapshot_after(others), policy))

    @rule()
    def move(self) -> None:
        """Export into a store that never had a task, and continue with that store."""
        (snapshot,) = self.store.commit([Export()])
        new = self.make()
        new.open()
        (result,) = new.commit([Import(snapshot)])
        assert (result.added, result.conflicts, result.renumbered) == (len(snapshot.entries), (), False)
        assert new.commit([Export()]) == [snapshot]
        self.close()
        self.store = new

    @invariant()
    def all_entries_are_the_same(self) -> None:
        (expected,), (found,) = self.model.commit([Export()]), self.store.commit([Export()])
        assert found.entries == expected.entries
        assert (found.generation, found.seen) == (expected.generation, expected.seen)
        self.same(*(Find(generation=entry.generation) for entry in expected.entries))

    def close(self) -> None:
        self.store.close()

    def teardown(self) -> None:
        self.close()


def snapshot_after(operations: list[Operation[Any]]) -> Snapshot:
    """Return the contents of a store after operations, and after claiming the ready tasks."""
    store = MemoryStore()
    store.open()
    store.commit(operations)
    (ready,) = store.commit([Load(-1, 0, 1)])
    store.commit([Claim(placed.generation, placed.due) for placed in ready])
    (snapshot,) = store.commit([Export()])
    assert isinstance(snapshot, Snapshot)
    return snapshot


def run_contract(make: type[StoreMachine], max_examples: int = 40) -> Any:
    case = make.TestCase
    case.settings = settings(
        max_examples=max_examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    return case


class SQLiteMachine(StoreMachine):
    def make(self) -> Store:
        return SQLiteStore(Path(tempfile.mkdtemp()) / "store.db", synchronous="normal")

    def close(self) -> None:
        super().close()
        folder = Path(repr(self.store).split("'")[1]).parent
        shutil.rmtree(folder)


TestSQLite = pytest.mark.slow(run_contract(SQLiteMachine))


PUT = Put('"a"', 1, 1, "send", "[]")


def test_a_store_that_is_not_open_fails(store: Store) -> None:
    with pytest.raises(StoreError, match="is not open"):
        store.commit([IsEmpty()])
    store.close()
    store.open()
    assert store.commit([IsEmpty(), Find()]) == [True, None]
    with pytest.raises(StoreInUseError):
        store.open()
    store.close()


def test_a_predecessor_that_was_killed_too_often_is_removed(store: Store) -> None:
    recover = Recover(frozenset({"send"}), 1)
    store.open()
    store.commit([PUT, Claim(1, 1), Put('"a"', 1, 1, "send", "[]", on_conflict="follow"), Claim(2, 1)])
    (result,) = store.commit([recover])
    assert sorted(result.parked) == ['"a"', '"a"']
    assert store.commit([Find(generation=1)]) == [None]
    (holder,) = store.commit([Find(generation=2)])
    assert holder.state is State.PARKED
    store.close()


# SQLite


def is_empty(store: Store) -> bool:
    (result,) = store.commit([IsEmpty()])
    return bool(result)


def test_the_file_outlives_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(str(path))
    assert store.path == path
    assert repr(store) == f"SQLiteStore('{path}')"
    store.open()
    (first,) = store.commit([PUT])
    store.close()
    other = SQLiteStore(path)
    other.open()
    assert other.commit([Find('"a"')]) == [first.entry]
    other.close()
    with pytest.raises(ValueError, match='synchronous must be "full" or "normal", not \'off\''):
        SQLiteStore(path, synchronous="off")  # type: ignore[arg-type]


def test_the_owner_of_the_file_is_named(tmp_path: Path) -> None:
    store, other = SQLiteStore(tmp_path / "store.db"), SQLiteStore(tmp_path / "store.db")
    store.open()
    for taken in (other, other, store):
        with pytest.raises(StoreInUseError, match=r"store.db is in use by (process \d+ on .*, since|this process)"):
            taken.open()
    assert is_empty(store)
    store.close()
    other.open()
    other.close()


def test_an_owner_that_cannot_be_found_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(f"{path}.lock", isolation_level=None)) as connection:
        connection.execute("begin exclusive")
        with pytest.raises(StoreInUseError, match="is in use by another process; a store has one"):
            SQLiteStore(path).open()
        with closing(sqlite3.connect(path)) as file:
            file.execute("create table anysched_meta (key text primary key, value) without rowid")
        with pytest.raises(StoreInUseError) as caught:
            SQLiteStore(path).open()
        assert caught.value.owner is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    code = f"""
import os, signal
from anysched.durable import SQLiteStore
from anysched.durable.operations import Put
store = SQLiteStore({str(path)!r})
store.open()
store.commit([Put('"a"', 1, 1, "send", "[]")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    store = SQLiteStore(path)
    store.open()
    assert not is_empty(store)
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_is_refused(tmp_path: Path) -> None:
    code = f"""
import os, sys
from anysched.durable import SQLiteStore, StoreError
from anysched.durable.operations import IsEmpty
store = SQLiteStore({str(tmp_path / "store.db")!r})
store.open()
child = os.fork()
if child == 0:
    try:
        store.commit([IsEmpty()])
    except StoreError as error:
        os._exit(7 if "is a fork" in str(error) else 8)
    os._exit(9)
status = os.waitpid(child, 0)[1]
assert store.commit([IsEmpty()]) == [True]
sys.exit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_on_macos_the_cache_of_the_disk_is_flushed(tmp_path: Path, synchronous: Any) -> None:
    store = SQLiteStore(tmp_path / "store.db", synchronous=synchronous)
    store.open()
    assert store._connection is not None
    # Other systems remember it, and do nothing.
    assert store._connection.execute("pragma fullfsync").fetchone() == (1,)
    store.close()


def test_another_process_is_known_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(StoreError, match="of which this one is a fork"):
            store.commit([PUT])
    store.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    store.open()
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update anysched_meta set value = 99 where key = 'schema'")
    with pytest.raises(StoreError, match=r"has version 99 of the schema, and this release of anysched knows \d+"):
        store.open()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update anysched_meta set value = 1 where key = 'schema'")
    store.open()  # nothing was left open
    store.close()


def test_an_older_file_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    store.open()
    store.commit([PUT])
    store.close()
    migrations = (*schema.MIGRATIONS, ("alter table anysched_entry add column note text",))
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    store.open()
    assert not is_empty(store)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select note from anysched_entry").fetchall() == [(None,)]
        assert connection.execute("select value from anysched_meta where key = 'schema'").fetchone() == (2,)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    store.commit([PUT])
    store.close()
    broken = (*schema.MIGRATIONS, ("alter table anysched_entry add column note text", "nonsense"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", broken)
        with pytest.raises(StoreError, match="cannot be opened: near"):
            store.open()
    store.open()
    assert not is_empty(store)
    store.close()


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StoreError, match=r"SQLite 3\.35\.0 or later is needed"):
        SQLiteStore(tmp_path / "store.db").open()


def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("This is a text, and it is longer than the header of a database would be." * 20)
    (tmp_path / "other.db.lock").write_text("This is a text, and it is longer than the header of a database." * 20)
    for path in (tmp_path / "store.db", tmp_path / "missing" / "store.db", tmp_path / "other.db"):
        with pytest.raises(StoreError, match="cannot be opened"):
            SQLiteStore(path).open()


def test_a_full_disk(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    store.commit([PUT])
    connection: Any = store._connection
    connection.execute("pragma max_page_count = 1")
    long = Put('"b"', 1, 1, "save", "x" * 10_000)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be written: database or disk is full"):
            store.commit([Put('"c"', 1, 1, "save", "[]"), long])
    connection.execute("pragma max_page_count = 1000000")
    assert store.commit([Find('"c"'), long])[0] is None
    store.close()


def test_a_file_that_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anysched.durable.sqlite.BUSY_TIMEOUT", 0.01)
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        with pytest.raises(StoreError, match="cannot be written: database is locked"):
            store.commit([PUT])
        connection.execute("rollback")
    assert is_empty(store)
    store.close()


def test_a_file_that_is_gone_for_a_while(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    moved = store.path.rename(tmp_path / "moved.db")
    with pytest.raises(StoreError, match=r"cannot be written: .*No such file"):
        store.commit([PUT])
    store.path.write_text("another one")
    with pytest.raises(StoreError, match="has been replaced by another one"):
        store.commit([PUT])
    moved.rename(store.path)
    assert is_empty(store)
    store.close()


def test_what_is_no_error_of_the_store_rolls_back_as_well(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    unknown: Any = object()
    with pytest.raises(KeyError):
        store.commit([PUT, unknown])
    assert is_empty(store)
    store.close()


def test_the_file_can_be_read_by_others_and_shared_with_other_tables(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("create table entry (id)")
        store.open()
        store.commit([PUT])
        assert connection.execute("select id, due from anysched_entry").fetchall() == [('"a"', 1)]
        store.close()


def test_the_frequent_queries_use_their_indexes(tmp_path: Path) -> None:
    """A partial index is only used by queries that repeat its condition; others would read all tasks."""
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    connection: Any = store._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    recover = Recover(frozenset({"send"}), 5)
    store.commit([PUT, PUT, Cancel('"a"', True), PUT, Claim(3, 1), End(3), PUT, Load(0, 0, 10), recover])
    store.commit([Move('"a"', 2), Pause('"a"'), Resume('"a"'), Retry('"a"'), List("", "b", False, 5), Adopt("send")])
    store.commit(
        [Release(4, begun=True), Park(4, "problem"), Shelve(4), Find('"a"'), IsEmpty(), Count(), Existing((1, 4))]
    )
    for status in ("paused", "running", "parked", "unknown"):
        store.commit([List("", "\x7f", after=False, limit=5, status=status)])
    connection.set_trace_callback(None)
    entries = [statement for statement in statements if "anysched_entry" in statement and "insert" not in statement]
    assert len(entries) > 20
    for statement in entries:
        plan = " ".join(row[3] for row in connection.execute(f"explain query plan {statement}"))
        # Whether there is any, how many there are, and the paused ones, which are few.
        without_condition = "where" not in statement and ("limit 1" in statement or "count(*)" in statement)
        whole = without_condition or "INDEX anysched_paused" in plan
        assert "SCAN anysched_entry" not in plan or whole, (statement, plan)
    store.close()


# Reading a file that another scheduler has open, or had open


def test_a_file_is_read_while_a_scheduler_has_it(tmp_path: Path) -> None:
    owner, reader = SQLiteStore(tmp_path / "store.db"), SQLiteStore(tmp_path / "store.db", read_only=True)
    owner.open()
    owner.commit([PUT])
    reader.open()
    (snapshot,) = reader.commit([Export()])
    assert [entry.task_id for entry in snapshot.entries] == ['"a"']
    owner.commit([Cancel('"a"')])
    assert is_empty(reader)
    with pytest.raises(StoreError, match="cannot be read: attempt to write a readonly database"):
        reader.commit([PUT])
    assert is_empty(reader)
    reader.close()
    owner.close()
    reader.open()
    assert is_empty(reader)
    reader.close()


def test_what_was_killed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    code = f"""
import os, signal
from anysched.durable import SQLiteStore
from anysched.durable.operations import Put
store = SQLiteStore({str(path)!r})
store.open()
store.commit([Put('"a"', 1, 1, "send", "[]")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    before = {file: file.read_bytes() for file in (path, Path(f"{path}-wal"))}
    reader = SQLiteStore(path, read_only=True)
    reader.open()
    assert not is_empty(reader)
    reader.close()
    assert {file: file.read_bytes() for file in before} == before


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    reader = SQLiteStore(path, read_only=True)
    with pytest.raises(StoreError, match=r"cannot be opened: .*No such file"):
        reader.open()
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table entry (id)")
    with pytest.raises(StoreError, match="is not a store of anysched: it has none of its tables"):
        reader.open()
    owner = SQLiteStore(path)
    owner.open()
    owner.close()
    for version, message in ((99, "has version 99 of the schema, and this release of anysched knows"), (0, "reads")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("update anysched_meta set value = ? where key = 'schema'", [version])
        with pytest.raises(StoreError, match=message):
            reader.open()


@pytest.mark.parametrize("policy", ["error", "keep", "replace"])
def test_the_ids_that_two_stores_have(store: Store, policy: Any) -> None:
    def put(task_id: str, args: str) -> Put:
        return Put(task_id, 5, 5, "send", args)

    other = MemoryStore()
    for opened in (store, other):
        opened.open()
    other.commit([put('"a"', "[1]"), put('"b"', "[1]"), put('"c"', "[1]"), Cancel('"c"'), Seen(7)])
    store.commit([put('"a"', "[2]"), put('"d"', "[2]")])
    (snapshot,) = other.commit([Export()])
    (result,) = store.commit([Import(snapshot, policy)])
    assert result.conflicts == ('"a"',)
    assert result.added == {"error": 0, "keep": 1, "replace": 2}[policy]
    assert result.renumbered == (policy != "error")
    (after,) = store.commit([Export()])
    assert [(entry.generation, entry.task_id, entry.args) for entry in after.entries] == {
        "error": [(1, '"a"', "[2]"), (2, '"d"', "[2]")],
        "keep": [(1, '"a"', "[2]"), (2, '"d"', "[2]"), (3, '"b"', "[1]")],
        "replace": [(2, '"d"', "[2]"), (3, '"a"', "[1]"), (4, '"b"', "[1]")],
    }[policy]
    assert (after.seen, after.identity == snapshot.identity) == (0 if policy == "error" else 7, False)
    store.close()


def test_a_generation_is_not_given_again_after_a_move(store: Store) -> None:
    """The keys of runs are derived from it, so that another run is not mistaken for one that has ended."""
    other = MemoryStore()
    for opened in (store, other):
        opened.open()
    other.commit([PUT, Cancel('"a"')])
    (snapshot,) = other.commit([Export()])
    store.commit([Import(snapshot)])
    (result,) = store.commit([PUT])
    assert result.entry.generation == 2
    assert store.commit([Recover(frozenset({"send"}), 5)])[0].identity == snapshot.identity
    store.close()


def test_an_end_that_is_repeated_changes_nothing(store: Store) -> None:
    store.open()
    store.commit([Put('"a"', 1, 1, "send", "[]", recurrence="every"), Claim(1, 1), End(1, True, 5, 5)])
    (entry,) = store.commit([Find('"a"')])
    (result,) = store.commit([End(1, True, 5, 5)])
    assert (result.removed, result.next) == (False, Placed(1, '"a"', 5, ready=True))
    assert store.commit([Find('"a"'), Existing((1, 2))]) == [entry, frozenset({1})]
    store.close()


@pytest.mark.parametrize("kind", ["follow", "cancel", "cancel all"])
def test_a_parked_holder_leaves_nothing_behind(store: Store, kind: str) -> None:
    """As a predecessor it could not be retried, and its successor would wait for it for ever."""
    store.open()
    store.commit([PUT, Claim(1, 1), Park(1, "does not fit")])
    if kind == "follow":
        (result,) = store.commit([Put('"a"', 2, 2, "send", "[]", on_conflict="follow")])
        assert (result.removed, result.ready) == (1, True)
    elif kind == "cancel":
        assert store.commit([Cancel('"a"', leave=True)])[0].removed
    else:
        assert store.commit([CancelAll(leave=True)]) == [frozenset()]
    assert store.commit([Find(generation=1)]) == [None]
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_links_to_a_file_have_the_lock_of_the_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    (tmp_path / "link.db").symlink_to(store.path)
    (tmp_path / "folder").symlink_to(tmp_path)
    for path in (tmp_path / "link.db", tmp_path / "folder" / "store.db"):
        with pytest.raises(StoreInUseError, match=r"is in use by process \d+"):
            SQLiteStore(path).open()
    store.close()
    link = SQLiteStore(tmp_path / "link.db")
    link.open()
    assert link.commit([PUT])[0].added
    with pytest.raises(StoreInUseError):
        store.open()
    link.close()


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be deleted")
def test_a_lock_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    store, other = SQLiteStore(tmp_path / "store.db"), SQLiteStore(tmp_path / "store.db")
    lock = tmp_path / "store.db.lock"
    store.open()
    lock.unlink()
    assert is_empty(store)
    with pytest.raises(StoreInUseError):
        other.open()
    lock.unlink()
    other.open()  # it is faster
    for _ in range(2):
        with pytest.raises(StoreInUseError, match=r"is in use by process \d+"):
            store.commit([PUT])
    assert is_empty(other)
    other.close()
    assert is_empty(store)
    store.close()


def test_asking_for_the_owner_does_not_create_a_file(tmp_path: Path) -> None:
    """The owner would take it for another file, even when its own is back."""
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    moved = store.path.rename(tmp_path / "moved.db")
    with pytest.raises(StoreInUseError, match="is in use by another process"):
        SQLiteStore(store.path).open()
    assert not store.path.exists()
    moved.rename(store.path)
    assert is_empty(store)
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of the size of files")
def test_a_file_that_must_not_grow(tmp_path: Path) -> None:
    """What was acknowledged before and after the disk was full is kept, and nothing else."""
    code = f"""
import resource
from anysched.durable import SQLiteStore, StoreError
from anysched.durable.operations import Put
store = SQLiteStore({str(tmp_path / "store.db")!r})
store.open()
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
failed = 0
for number in range(200):
    try:
        store.commit([Put(f'"{{number}}"', 1, 1, "send", "x" * 5_000)])
    except StoreError:
        failed += 1
        if failed == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    else:
        print(number)
store.close()
assert failed == 3, failed
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    acknowledged = {f'"{number}"' for number in ended.stdout.split()}
    assert len(acknowledged) == 197
    store = SQLiteStore(tmp_path / "store.db")
    store.open()
    (snapshot,) = store.commit([Export()])
    assert {entry.task_id for entry in snapshot.entries} == acknowledged
    store.close()
