"""The store in an SQLite file."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, final, get_args

from .errors import StoreError, StoreInUseError
from .operations import (
    HAS_BEGUN,
    Adopt,
    Cancel,
    CancelAll,
    CancelResult,
    Claim,
    Count,
    DurableStatistics,
    End,
    EndResult,
    Entry,
    Existing,
    Export,
    Find,
    Import,
    ImportResult,
    IsEmpty,
    List,
    Load,
    Move,
    Operation,
    Park,
    Pause,
    Placed,
    Put,
    PutResult,
    Recover,
    RecoverResult,
    Release,
    Resume,
    Retry,
    Seen,
    Shelve,
    Snapshot,
    State,
    Status,
)
from .schema import COLUMNS, check_version, migrate

__all__ = ["SQLiteStore", "Synchronous"]

Synchronous = Literal["full", "normal"]
"""When SQLite waits for the disk; see `SQLiteStore`."""

BUSY_TIMEOUT = 2.0
"""How long a commit waits for another process that writes to the file, in seconds."""

CACHE_KIBIBYTES = 16_384

MIN_SQLITE = (3, 35, 0)
"""The first version with ``returning``."""

# Whether an entry must wait for a predecessor. The scheduler itself makes entries wait for a predecessor that is
# running.
_BLOCKED = "exists (select 1 from anysched_entry p where p.id = ? and p.holds = 0 and p.state != 1)"
_PLACED = "generation, id, due, state = 0 and paused = 0"
# Each repeats the condition of its partial index.
_HAS_STATUS: Mapping[Status, str] = {
    "pending": "state = 0 and paused = 0",
    "paused": "state = 0 and paused = 1",
    "running": "state = 1 and state != 0",
    "parked": "state = 2 and state != 0",
    "unknown": "state = 3 and state != 0",
}


@final
class SQLiteStore:
    """Keeps tasks in an SQLite file, which only one scheduler at a time can have open.

    The file is created if it does not exist. Next to it are the files of SQLite's write-ahead log, and one with the
    suffix ``.lock``. The lock on that file belongs to the process, and the system releases it when the process ends,
    for whatever reason. If that file is deleted, it is created again. Other processes may read the store in the meantime.

    Do not put it on a network file system: the write-ahead log needs memory that all processes share, and the locks of
    network file systems cannot be relied on.

    Args:
        path: The file.
        synchronous: With ``"full"``, each commit waits until the data is on disk, so that no acknowledged change is
            lost in a power failure. With ``"normal"``, it does not wait. No acknowledged change is lost when the
            process is killed, but after a power failure or a crash of the system, the latest changes may be lost, and
            runs that had ended may run again. The file is consistent in both cases.
        read_only: Whether to open the file only for reading, even while a scheduler has it open. This is for programs
            that inspect the file; operations that change something fail.

    Raises:
        TypeError: if the path is not one.
        ValueError: if ``synchronous`` is unknown.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Synchronous = "full", read_only: bool = False
    ) -> None:
        if synchronous not in get_args(Synchronous):
            raise ValueError(f'synchronous must be "full" or "normal", not {synchronous!r}')
        self._path = Path(path).absolute()
        self._synchronous = synchronous
        self._read_only = read_only
        self._lock: sqlite3.Connection | None = None
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._lock_path = self._path
        self._lock_file = self._file = (0, 0)
        self._handlers: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """The file, as an absolute path."""
        return self._path

    def open(self) -> None:
        """Open the file and upgrade it to the schema of this release.

        Raises:
            StoreInUseError: if another scheduler has it open.
            StoreError: if it cannot be opened, or is of a newer release.
        """
        if self._connection is not None:
            raise StoreInUseError(str(self._path), "this process, by the same SQLiteStore")
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            raise StoreError(
                f"SQLite {'.'.join(map(str, MIN_SQLITE))} or later is needed, not {sqlite3.sqlite_version}"
            )
        try:
            if self._read_only:
                self._open_to_read()
            else:
                self._open_as_owner()
                self._file = _identify(self._path)
        except BaseException as error:
            self.close()
            if isinstance(error, (sqlite3.Error, OSError)):
                raise StoreError(f"the file {self._path} cannot be opened: {error}") from error
            raise
        self._process = os.getpid()
        self._handlers.clear()

    def _open_to_read(self) -> None:
        self._file = _identify(self._path)
        self._connection = self._connect_to_read()
        check_version(self._connection, str(self._path))

    def _open_as_owner(self) -> None:
        # Two paths that lead to the same file have the same lock.
        path = self._path.resolve()
        self._lock_path = path.with_name(path.name + ".lock")
        self._acquire_lock()
        self._connection = connection = self._connect(self._path, BUSY_TIMEOUT)
        # Without it, macOS leaves data in the cache of the disk. Other systems have only one way to sync.
        connection.execute("pragma fullfsync = on")
        connection.execute("pragma journal_mode = wal")
        connection.execute(f"pragma synchronous = {self._synchronous}")
        connection.execute(f"pragma cache_size = -{CACHE_KIBIBYTES}")
        connection.execute("begin immediate")
        migrate(connection, str(self._path))
        owner = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        connection.execute("insert or replace into anysched_meta values ('owner', ?)", [owner])
        connection.execute("commit")

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        """Perform operations in one transaction.

        Raises:
            StoreError: if that is not possible.
        """
        connection = self._connection
        if connection is None:
            raise StoreError(f"the file {self._path} is not open")
        if self._process != os.getpid():
            raise StoreError(
                f"the file {self._path} was opened by process {self._process}, of which this one is a fork: an SQLite "
                "connection cannot be used across a fork. Open the store in the process that uses it"
            )
        try:
            # Data that is written to a file that was deleted is lost.
            if _identify(self._path) != self._file:
                raise StoreError(f"the file {self._path} has been replaced by another one")
            if not self._read_only:
                self._keep_lock()
            connection.execute("begin" if self._read_only else "begin immediate")
            results = [_PERFORM[type(operation)](self, connection, operation) for operation in operations]
            connection.execute("commit")
        except BaseException as error:
            # Additions to the table of handlers are rolled back as well.
            self._handlers.clear()
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("rollback")
            if isinstance(error, (sqlite3.Error, OSError)):
                verb = "read" if self._read_only else "written"
                raise StoreError(f"the file {self._path} cannot be {verb}: {error}") from error
            raise
        return results

    def close(self) -> None:
        """Close the file and release the lock."""
        for connection in (self._connection, self._lock):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._connection = self._lock = None

    def _connect(self, path: Path | str, timeout: float) -> sqlite3.Connection:
        is_uri = isinstance(path, str)
        return sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=64, uri=is_uri
        )

    def _connect_to_read(self) -> sqlite3.Connection:
        return self._connect(f"{self._path.as_uri()}?mode=ro", BUSY_TIMEOUT)

    def _acquire_lock(self) -> None:
        # SQLite's own locking works the same way on all systems, and the system releases the lock when the process
        # ends.
        self._lock = self._connect(self._lock_path, 0)
        try:
            self._lock.execute("begin exclusive")
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise StoreInUseError(str(self._path), self._read_owner()) from None
            raise
        self._lock_file = _identify(self._lock_path)

    def _keep_lock(self) -> None:
        """Acquire the lock again if its file was deleted, as by a program that tidies up: others would create a new one."""
        try:
            if _identify(self._lock_path) == self._lock_file:
                return
        except FileNotFoundError:
            pass
        assert self._lock is not None
        self._lock.close()
        self._acquire_lock()

    def _read_owner(self) -> str | None:
        try:
            with closing(self._connect_to_read()) as connection:
                row = _one(connection, "select value from anysched_meta where key = 'owner'")
        except sqlite3.Error:
            return None
        return None if row is None else str(row[0])

    # The operations

    def _handler_number(self, connection: sqlite3.Connection, name: str) -> int:
        number = self._handlers.get(name)
        if number is None:
            connection.execute("insert or ignore into anysched_handler (name) values (?)", [name])
            row = _one(connection, "select number from anysched_handler where name = ?", [name])
            number = self._handlers[name] = cast("int", row[0])
        return number

    def _put(self, connection: sqlite3.Connection, operation: Put) -> PutResult:
        task_id, policy = operation.task_id, operation.on_conflict
        holder = _one(
            connection,
            f"select generation, {HAS_BEGUN} from anysched_entry where id = ? and holds = 1",
            [task_id],
        )
        removed: int | None = None
        if holder is not None:
            generation, begun = holder
            if policy in ("keep", "error"):
                kept = _find(connection, "id = ? and holds = 1", task_id)
                assert kept is not None
                return PutResult(kept, added=False, ready=False, removed=None)
            if begun and (policy == "follow" or generation == operation.caller):
                connection.execute("update anysched_entry set holds = 0, paused = 0 where generation = ?", [generation])
            else:
                connection.execute("delete from anysched_entry where generation = ?", [generation])
                removed = generation
        blocked = _one(connection, f"select {_BLOCKED}", [task_id])[0]
        values = (
            task_id,
            operation.due,
            operation.time,
            self._handler_number(connection, operation.handler),
            operation.args,
            operation.recurrence,
            operation.expires,
        )
        added = connection.execute(
            "insert into anysched_entry (id, due, time, handler, args, recurrence, expires) values (?, ?, ?, ?, ?, ?, ?)",
            values,
        ).lastrowid
        assert added is not None
        entry = Entry(
            generation=added,
            task_id=task_id,
            holds=True,
            state=State.PENDING,
            paused=False,
            due=operation.due,
            time=operation.time,
            handler=operation.handler,
            args=operation.args,
            recurrence=operation.recurrence,
            expires=operation.expires,
            run_count=0,
            attempts=0,
            kills=0,
            problem=None,
        )
        return PutResult(entry, added=True, ready=not blocked, removed=removed)

    def _cancel(self, connection: sqlite3.Connection, operation: Cancel) -> CancelResult | None:
        if operation.leave:
            row = _one(
                connection,
                f"update anysched_entry set holds = 0, paused = 0 where id = ? and holds = 1 and {HAS_BEGUN} "
                "returning generation",
                [operation.task_id],
            )
            if row is not None:
                return CancelResult(row[0], removed=False)
        row = _one(
            connection,
            "delete from anysched_entry where id = ? and holds = 1 returning generation",
            [operation.task_id],
        )
        return None if row is None else CancelResult(row[0], removed=True)

    def _cancel_all(self, connection: sqlite3.Connection, operation: CancelAll) -> frozenset[int]:
        if operation.leave:
            connection.execute(f"update anysched_entry set holds = 0, paused = 0 where holds = 1 and {HAS_BEGUN}")
        connection.execute("delete from anysched_entry where holds = 1")
        return frozenset(row[0] for row in connection.execute("select generation from anysched_entry where holds = 0"))

    def _move(self, connection: sqlite3.Connection, operation: Move) -> Placed | None:
        return self._place(
            connection, "set due = ?", "state != 1", [operation.due, operation.task_id], operation.task_id
        )

    def _pause(self, connection: sqlite3.Connection, operation: Pause) -> Placed | None:
        condition = "paused = 0 and (state != 1 or recurrence is not null)"
        return self._place(connection, "set paused = 1", condition, [operation.task_id], operation.task_id)

    def _resume(self, connection: sqlite3.Connection, operation: Resume) -> Placed | None:
        return self._place(connection, "set paused = 0", "paused = 1", [operation.task_id], operation.task_id)

    def _retry(self, connection: sqlite3.Connection, operation: Retry) -> Placed | None:
        change = "set state = 0, kills = 0, problem = null"
        return self._place(connection, change, "state = 2", [operation.task_id], operation.task_id)

    def _place(
        self, connection: sqlite3.Connection, change: str, condition: str, values: list[object], task_id: str
    ) -> Placed | None:
        statement = f"update anysched_entry {change} where id = ? and holds = 1 and {condition} returning {_PLACED}"
        row = _one(connection, statement, values)
        if row is None:
            return None
        blocked = _one(connection, f"select {_BLOCKED}", [task_id])[0]
        return Placed(row[0], row[1], row[2], bool(row[3]) and not blocked)

    def _claim(self, connection: sqlite3.Connection, operation: Claim) -> Entry | None:
        changed = connection.execute(
            "update anysched_entry set state = 1, attempts = attempts + (state = 0) "
            "where generation = ? and due = ? and (state = 0 and paused = 0 or state = 1 and ?)",
            [operation.generation, operation.due, operation.repeated],
        ).rowcount
        return _find(connection, "generation = ?", operation.generation) if changed else None

    def _end(self, connection: sqlite3.Connection, operation: End) -> EndResult:
        generation = operation.generation
        if operation.due is not None:
            row = _one(
                connection,
                "update anysched_entry set state = 0, due = ?, time = ?, run_count = run_count + ?, attempts = 0, kills = 0 "
                f"where generation = ? and holds = 1 and state = 1 returning {_PLACED}",
                [operation.due, operation.time, operation.ran, generation],
            ) or _one(
                connection, f"select {_PLACED} from anysched_entry where generation = ? and holds = 1", [generation]
            )
            if row is not None:
                return EndResult(removed=False, next=Placed(row[0], row[1], row[2], bool(row[3])))
        return self._remove(connection, generation, operation.task_id)

    def _park(self, connection: sqlite3.Connection, operation: Park) -> EndResult:
        changed = connection.execute(
            "update anysched_entry set state = 2, problem = ? where generation = ? and holds = 1",
            [operation.problem, operation.generation],
        ).rowcount
        if changed:
            return EndResult(removed=False, next=None)
        return self._remove(connection, operation.generation, operation.task_id)

    def _remove(self, connection: sqlite3.Connection, generation: int, task_id: str) -> EndResult:
        row = _one(connection, "delete from anysched_entry where generation = ? returning id", [generation]) or [
            task_id
        ]
        # Two statements: each repeats the condition of its partial index.
        following = _one(
            connection,
            f"select {_PLACED}, state from anysched_entry where id = ? and holds = 0 order by generation limit 1",
            row,
        ) or _one(connection, f"select {_PLACED}, state from anysched_entry where id = ? and holds = 1", row)
        if following is None or following[4] == State.RUNNING:
            return EndResult(removed=True, next=None)
        return EndResult(removed=True, next=Placed(following[0], following[1], following[2], bool(following[3])))

    def _release(self, connection: sqlite3.Connection, operation: Release) -> None:
        connection.execute(
            "update anysched_entry set state = 0, attempts = attempts - ? where generation = ? and state = 1",
            [not operation.begun, operation.generation],
        )

    def _shelve(self, connection: sqlite3.Connection, operation: Shelve) -> None:
        connection.execute(
            "update anysched_entry set state = 3, attempts = attempts - 1 where generation = ? and state = 1",
            [operation.generation],
        )

    def _find(self, connection: sqlite3.Connection, operation: Find) -> Entry | None:
        if operation.task_id is not None:
            return _find(connection, "id = ? and holds = 1", operation.task_id)
        return _find(connection, "generation = ?", operation.generation)

    def _existing(self, connection: sqlite3.Connection, operation: Existing) -> frozenset[int]:
        rows = connection.execute(
            "select generation from anysched_entry where generation in (select value from json_each(?))",
            [json.dumps(operation.generations)],
        )
        return frozenset(generation for (generation,) in rows)

    def _list(self, connection: sqlite3.Connection, operation: List) -> list[Entry]:
        has_status = "" if operation.status is None else f"and {_HAS_STATUS[operation.status]} "
        rows = connection.execute(
            f"select {COLUMNS} from anysched_entry where holds = 1 and id {'>' if operation.after else '>='} ? and id < ? "
            f"{has_status}order by id limit ?",
            [operation.low, operation.high, operation.limit],
        )
        return [_entry(row) for row in rows]

    def _load(self, connection: sqlite3.Connection, operation: Load) -> list[Placed]:
        rows = connection.execute(
            "select generation, id, due from anysched_entry e where state = 0 and paused = 0 "
            "and (due, generation) > (?, ?) and not exists "
            "(select 1 from anysched_entry p where p.id = e.id and p.holds = 0 and p.generation < e.generation) "
            "order by due, generation limit ?",
            [operation.due, operation.generation, operation.limit],
        )
        return [Placed(generation, task_id, due, ready=True) for generation, task_id, due in rows]

    def _count(self, connection: sqlite3.Connection, _operation: Count) -> DurableStatistics:
        # The remaining ones are pending: counting all rows is faster than counting the rows of a partial index.
        total = _one(connection, "select count(*) from anysched_entry")[0]
        others = [status for status in get_args(Status) if status != "pending"]
        selected = ", ".join(f"(select count(*) from anysched_entry where {_HAS_STATUS[status]})" for status in others)
        counts = dict(zip(others, _one(connection, f"select {selected}"), strict=True))
        return DurableStatistics(pending=total - sum(counts.values()), **counts)

    def _is_empty(self, connection: sqlite3.Connection, _operation: IsEmpty) -> bool:
        return _one(connection, "select 1 from anysched_entry limit 1") is None

    def _recover(self, connection: sqlite3.Connection, operation: Recover) -> RecoverResult:
        interrupted = connection.execute(
            "update anysched_entry set state = 0, kills = kills + 1 where state = 1 and state != 0 returning id, kills, generation, holds"
        ).fetchall()
        parked = [
            (task_id, generation, holds)
            for task_id, kills, generation, holds in interrupted
            if kills >= operation.max_kills
        ]
        for _, generation, holds in parked:
            if holds:
                problem = f"the process ended during {operation.max_kills} attempts to run it"
                connection.execute(
                    "update anysched_entry set state = 2, problem = ? where generation = ?", [problem, generation]
                )
            else:
                connection.execute("delete from anysched_entry where generation = ?", [generation])
        self._handlers.clear()
        unknown: dict[str, int] = {}
        for number, name in connection.execute("select number, name from anysched_handler order by name").fetchall():
            if name in operation.handlers:
                connection.execute(
                    "update anysched_entry set state = 0 where state = 3 and state != 0 and handler = ?", [number]
                )
                continue
            connection.execute("update anysched_entry set state = 3 where state = 0 and handler = ?", [number])
            count = _one(connection, "select count(*) from anysched_entry where handler = ?", [number])[0]
            if count:
                unknown[name] = count
            else:
                connection.execute("delete from anysched_handler where number = ?", [number])
        meta = _meta(connection)
        return RecoverResult(
            interrupted=len(interrupted),
            parked=tuple(task_id for task_id, _, _ in parked),
            unknown=unknown,
            identity=meta["identity"],
            seen=meta.get("seen", 0),
        )

    def _adopt(self, connection: sqlite3.Connection, operation: Adopt) -> int:
        return connection.execute(
            "update anysched_entry set state = 0 "
            "where state = 3 and state != 0 and handler = (select number from anysched_handler where name = ?)",
            [operation.handler],
        ).rowcount

    def _seen(self, connection: sqlite3.Connection, operation: Seen) -> None:
        connection.execute(
            "insert into anysched_meta values ('seen', ?) "
            "on conflict (key) do update set value = max(value, excluded.value)",
            [operation.now],
        )

    def _export(self, connection: sqlite3.Connection, _operation: Export) -> Snapshot:
        meta = _meta(connection)
        rows = connection.execute(f"select {COLUMNS} from anysched_entry order by generation")
        return Snapshot(meta["identity"], _generation(connection), meta.get("seen", 0), tuple(map(_entry, rows)))

    def _import(self, connection: sqlite3.Connection, operation: Import) -> ImportResult:
        snapshot, policy = operation.snapshot, operation.on_conflict
        conflicts = [
            task_id
            for task_id in sorted({entry.task_id for entry in snapshot.entries})
            if _one(connection, "select 1 from anysched_entry where id = ? and holds = 1", [task_id])
            or _one(connection, "select 1 from anysched_entry where id = ? and holds = 0", [task_id])
        ]
        if conflicts and policy == "error":
            return ImportResult(0, tuple(conflicts), renumbered=False)
        if policy == "replace":
            for holds in (0, 1):
                connection.executemany(
                    f"delete from anysched_entry where id = ? and holds = {holds}",
                    [(task_id,) for task_id in conflicts],
                )
        renumbered = _generation(connection) > 0
        left_out = set(conflicts if policy == "keep" else ())
        rows = [
            (
                None if renumbered else entry.generation,
                entry.task_id,
                entry.holds,
                entry.state,
                entry.paused,
                entry.due,
                entry.time,
                self._handler_number(connection, entry.handler),
                entry.args,
                entry.recurrence,
                entry.expires,
                entry.run_count,
                entry.attempts,
                entry.kills,
                entry.problem,
            )
            for entry in snapshot.entries
            if entry.task_id not in left_out
        ]
        connection.executemany(f"insert into anysched_entry values ({', '.join('?' * 15)})", rows)
        if not renumbered:
            connection.execute("update anysched_meta set value = ? where key = 'identity'", [snapshot.identity])
            connection.execute("delete from sqlite_sequence where name = 'anysched_entry'")
            connection.execute("insert into sqlite_sequence values ('anysched_entry', ?)", [snapshot.generation])
        self._seen(connection, Seen(snapshot.seen))
        return ImportResult(len(rows), tuple(conflicts), renumbered)


def _identify(path: Path) -> tuple[int, int]:
    """Return the identity of a file, to notice that it was replaced."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _one(connection: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> Any:
    """Return the first row of a result, or `None`."""
    # Fetch all rows: an unfinished statement would keep the transaction open.
    rows = connection.execute(statement, values).fetchall()
    return rows[0] if rows else None


def _meta(connection: sqlite3.Connection) -> dict[str, Any]:
    return dict(connection.execute("select key, value from anysched_meta").fetchall())


def _generation(connection: sqlite3.Connection) -> int:
    """Return the latest generation that was assigned to an entry, or 0."""
    row = _one(connection, "select seq from sqlite_sequence where name = 'anysched_entry'")
    return 0 if row is None else cast("int", row[0])


def _entry(row: Sequence[Any]) -> Entry:
    generation, task_id, holds, state, paused, *others = row
    return Entry(generation, task_id, bool(holds), State(state), bool(paused), *others)


def _find(connection: sqlite3.Connection, condition: str, value: object) -> Entry | None:
    row = _one(connection, f"select {COLUMNS} from anysched_entry where {condition}", [value])
    return None if row is None else _entry(row)


_PERFORM: Mapping[type[Operation[Any]], Callable[[SQLiteStore, sqlite3.Connection, Any], Any]] = {
    Adopt: SQLiteStore._adopt,
    Cancel: SQLiteStore._cancel,
    CancelAll: SQLiteStore._cancel_all,
    Claim: SQLiteStore._claim,
    Count: SQLiteStore._count,
    End: SQLiteStore._end,
    Existing: SQLiteStore._existing,
    Export: SQLiteStore._export,
    Find: SQLiteStore._find,
    Import: SQLiteStore._import,
    IsEmpty: SQLiteStore._is_empty,
    List: SQLiteStore._list,
    Load: SQLiteStore._load,
    Move: SQLiteStore._move,
    Park: SQLiteStore._park,
    Pause: SQLiteStore._pause,
    Put: SQLiteStore._put,
    Recover: SQLiteStore._recover,
    Release: SQLiteStore._release,
    Resume: SQLiteStore._resume,
    Retry: SQLiteStore._retry,
    Seen: SQLiteStore._seen,
    Shelve: SQLiteStore._shelve,
}
