"""The operations in the SQL of PostgreSQL, as statements in turn: what they do, without a connection.

Transactions of several sessions may run at the same time (read committed). Those of schedulers are serialised by a
lock; those of users, which may stay open for long, are not. So each statement that changes an entry repeats the
condition for it, which PostgreSQL checks again after it has waited for another transaction, and what needs several
statements locks the row first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

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
from .postgres_schema import COLUMNS
from .shared import Beat, Notices, TakeNotices, Watch
from .steps import Rows, Statement, Steps
from .values import storable

__all__ = ["VERBS", "Transaction"]

VERBS: frozenset[type[Operation[Any]]] = frozenset(
    {
        Put,
        Cancel,
        CancelAll,
        Move,
        Pause,
        Resume,
        Retry,
        Find,
        List,
        Count,
        IsEmpty,
        Seen,
        Export,
        Import,
        Existing,
        Watch,
    }
)
"""The operations that processes other than the owner may also perform."""

IMPORTED = 5_000
"""How many entries are added in one statement."""

_HELD = "scheduler = %(scheduler)s and id = %(id)s and holds"
_SELF = "scheduler = %(scheduler)s and generation = %(generation)s"
# Whether an entry must wait for a predecessor. The scheduler itself makes entries wait for a predecessor that is
# running.
_BLOCKED = (
    "exists (select from anysched_entry p where p.scheduler = %(scheduler)s and p.id = %(id)s and not p.holds "
    "and p.state <> 1)"
)
_PLACED = "generation, id, due, state = 0 and not paused"

# Each repeats the condition of its partial index.
_HAS_STATUS: Mapping[Status, str] = {
    "pending": "state = 0 and not paused",
    "paused": "state = 0 and paused",
    "running": "state = 1 and state <> 0",
    "parked": "state = 2 and state <> 0",
    "unknown": "state = 3 and state <> 0",
}

_INSERT = f"""
    insert into anysched_entry (scheduler, id, due, time, handler, args, recurrence, expires)
    select %(scheduler)s::integer, %(id)s::text, %(due)s::bigint, %(time)s::bigint, %(handler)s::integer,
    %(args)s::text,
        %(recurrence)s::text, %(expires)s::bigint
    where not exists (select from anysched_entry where {_HELD})
    on conflict (scheduler, id) where holds do nothing
    returning generation, {_BLOCKED}
"""
_FIND = f"select {COLUMNS} from anysched_entry where {_SELF}"
_FIND_HOLDER = f"select {COLUMNS} from anysched_entry where {_HELD}"
_LOCK_HOLDER = f"select generation, {HAS_BEGUN} from anysched_entry where {_HELD} for update"
_LEAVE = f"update anysched_entry set holds = false, paused = false where {_SELF}"
# Whether others with the same ID may wait for the end. Two subqueries: each repeats the condition of its partial index.
_DELETE = f"""
    delete from anysched_entry e where {_SELF} returning watched, id,
        exists (select from anysched_entry o where o.scheduler = e.scheduler and o.id = e.id and o.holds and
        o.generation <> e.generation) or exists (select from anysched_entry o where o.scheduler = e.scheduler and o.id
        = e.id and not o.holds and o.generation <> e.generation)
"""
_FOLLOWING = f"""
    (select {_PLACED}, state, holds from anysched_entry where scheduler = %(scheduler)s and id = %(id)s and not holds
     order by generation limit 1)
    union all
    (select {_PLACED}, state, holds from anysched_entry where {_HELD})
    order by holds limit 1
"""
_LOCATE = """
    select generation, id, due, state = 0 and not paused and not exists (
        select from anysched_entry p where p.scheduler = e.scheduler and p.id = e.id and not p.holds and p.state <> 1
        and p.generation < e.generation)
    from anysched_entry e where scheduler = %(scheduler)s and
"""


@final
class Transaction:
    """Performs operations in one transaction.

    Args:
        scheduler: The number of the scheduler.
        channel: The channel on which changes are announced.
        handlers: The known numbers of handlers by their names. Those that are found are added.
        owns: Whether it is the owner's. What others change is left as notices for the owner.

    Attributes:
        removed: The watched entries that were removed.
        changed: Whether there are notices for the owner.
    """

    def __init__(self, scheduler: int, channel: str, handlers: dict[str, int], *, owns: bool) -> None:
        self._scheduler = scheduler
        self._channel = channel
        self._handlers = handlers
        self._owns = owns
        self.removed: list[int] = []
        self.changed: bool = False

    def perform(self, operation: Operation[Any]) -> Steps[Any]:
        """Perform an operation, and return its result."""
        return _PERFORM[type(operation)](self, operation)

    def announce(self) -> Steps[None]:
        """Announce the changes to the listening processes when the transaction is committed."""
        payloads = ["removed " + " ".join(map(str, chunk)) for chunk in _chunks(self.removed)]
        if self.changed:
            payloads.append("changed")
        for payload in payloads:
            yield Statement(
                "select pg_notify(%(channel)s, %(payload)s)", {"channel": self._channel, "payload": payload}
            )

    def _statement(self, text: str, plan: bool = False, /, **values: object) -> Statement:
        return Statement(text, {"scheduler": self._scheduler, **values}, plan)

    def _note(self, task_id: str | None, removed: int | None = None) -> Steps[None]:
        """Leave a notice for the owner."""
        if not self._owns:
            self.changed = True
            yield self._statement(
                "insert into anysched_notice (scheduler, id, removed) values (%(scheduler)s, %(id)s, %(removed)s)",
                id=task_id,
                removed=removed,
            )

    # The operations

    def _handler_number(self, name: str) -> Steps[int]:
        if name not in self._handlers:
            select = self._statement(
                "select number from anysched_handler where scheduler = %(scheduler)s and name = %(name)s", name=name
            )
            rows = yield select
            if not rows:
                yield self._statement(
                    "insert into anysched_handler (scheduler, name) values (%(scheduler)s, %(name)s) on conflict do nothing",
                    name=name,
                )
                rows = yield select
            self._handlers[name] = rows[0][0]
        return self._handlers[name]

    def _put(self, operation: Put) -> Steps[PutResult]:
        insert = self._statement(
            _INSERT,
            id=operation.task_id,
            due=operation.due,
            time=operation.time,
            handler=(yield from self._handler_number(operation.handler)),
            args=operation.args,
            recurrence=operation.recurrence,
            expires=operation.expires,
        )
        removed: int | None = None
        while not (rows := (yield insert)):
            # It is held. If it is no longer held when it is read, another session was faster.
            if operation.on_conflict in ("keep", "error"):
                rows = yield self._statement(_FIND_HOLDER, id=operation.task_id)
                if rows:
                    return PutResult(_entry(rows[0]), added=False, ready=False, removed=None)
                continue
            rows = yield self._statement(_LOCK_HOLDER, id=operation.task_id)
            for generation, begun in rows:
                if begun and (operation.on_conflict == "follow" or generation == operation.caller):
                    yield self._statement(_LEAVE, generation=generation)
                else:
                    yield from self._delete(generation)
                    yield from self._note(operation.task_id, generation)
                    removed = generation
        generation, blocked = rows[0]
        yield from self._note(operation.task_id)
        entry = Entry(
            generation=generation,
            task_id=operation.task_id,
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

    def _delete(self, generation: int) -> Steps[Rows]:
        rows = yield self._statement(_DELETE, generation=generation)
        if rows and rows[0][0]:
            self.removed.append(generation)
        return rows

    def _cancel(self, operation: Cancel) -> Steps[CancelResult | None]:
        rows = yield self._statement(_LOCK_HOLDER, id=operation.task_id)
        if not rows:
            # A statement that waited for the lock of a removed row does not see the row that replaced it.
            rows = yield self._statement(_LOCK_HOLDER, id=operation.task_id)
        if not rows:
            return None
        generation, begun = rows[0]
        leave = operation.leave and begun
        if leave:
            yield self._statement(_LEAVE, generation=generation)
        else:
            yield from self._delete(generation)
        yield from self._note(operation.task_id, None if leave else generation)
        return CancelResult(generation, removed=not leave)

    def _cancel_all(self, operation: CancelAll) -> Steps[frozenset[int]]:
        rows = yield self._statement(
            "with gone as (delete from anysched_entry where scheduler = %(scheduler)s and holds "
            f"and not (%(leave)s and {HAS_BEGUN}) returning generation, watched) select generation from gone where watched",
            leave=operation.leave,
        )
        self.removed += [generation for (generation,) in rows]
        if operation.leave:
            yield self._statement(
                "update anysched_entry set holds = false, paused = false "
                f"where scheduler = %(scheduler)s and holds and {HAS_BEGUN}"
            )
        yield from self._note(None)
        rows = yield self._statement(
            "select generation from anysched_entry where scheduler = %(scheduler)s and not holds"
        )
        return frozenset(generation for (generation,) in rows)

    def _move(self, operation: Move) -> Steps[Placed | None]:
        return self._place("due = %(due)s", "state <> 1", operation.task_id, operation.due)

    def _pause(self, operation: Pause) -> Steps[Placed | None]:
        return self._place("paused = true", "not paused and (state <> 1 or recurrence is not null)", operation.task_id)

    def _resume(self, operation: Resume) -> Steps[Placed | None]:
        return self._place("paused = false", "paused", operation.task_id)

    def _retry(self, operation: Retry) -> Steps[Placed | None]:
        return self._place("state = 0, kills = 0, problem = null", "state = 2", operation.task_id)

    def _place(self, change: str, condition: str, task_id: str, due: int | None = None) -> Steps[Placed | None]:
        rows = yield self._statement(
            f"update anysched_entry set {change} where {_HELD} and {condition} returning {_PLACED}, {_BLOCKED}",
            id=task_id,
            due=due,
        )
        if not rows:
            return None
        yield from self._note(task_id)
        generation, _, placed_due, ready, blocked = rows[0]
        return Placed(generation, task_id, placed_due, ready and not blocked)

    def _claim(self, operation: Claim) -> Steps[Entry | None]:
        rows = yield self._statement(
            "update anysched_entry set state = 1, attempts = attempts + (state = 0)::integer "
            f"where {_SELF} and due = %(due)s and (state = 0 and not paused or state = 1 and %(repeated)s) "
            f"returning {COLUMNS}",
            generation=operation.generation,
            due=operation.due,
            repeated=operation.repeated,
        )
        return _entry(rows[0]) if rows else None

    def _end(self, operation: End) -> Steps[EndResult]:
        if operation.due is not None:
            rows = yield self._statement(
                "update anysched_entry set state = 0, due = %(due)s, time = %(time)s, run_count = run_count + %(ran)s::integer, "
                f"attempts = 0, kills = 0 where {_SELF} and holds and state = 1 returning {_PLACED}",
                generation=operation.generation,
                due=operation.due,
                time=operation.time,
                ran=operation.ran,
            )
            if not rows:
                rows = yield self._statement(
                    f"select {_PLACED} from anysched_entry where {_SELF} and holds", generation=operation.generation
                )
            if rows:
                return EndResult(removed=False, next=Placed(*rows[0]))
        return (yield from self._remove(operation.generation, operation.task_id))

    def _park(self, operation: Park) -> Steps[EndResult]:
        rows = yield self._statement(
            f"update anysched_entry set state = 2, problem = %(problem)s where {_SELF} and holds returning 1",
            generation=operation.generation,
            problem=storable(operation.problem),
        )
        if rows:
            return EndResult(removed=False, next=None)
        return (yield from self._remove(operation.generation, operation.task_id))

    def _remove(self, generation: int, task_id: str) -> Steps[EndResult]:
        rows = yield from self._delete(generation)
        if not rows or rows[0][2]:
            rows = yield self._statement(_FOLLOWING, id=rows[0][1] if rows else task_id)
            if rows and rows[0][4] != State.RUNNING:
                return EndResult(removed=True, next=Placed(*rows[0][:4]))
        return EndResult(removed=True, next=None)

    def _release(self, operation: Release) -> Steps[None]:
        yield self._statement(
            f"update anysched_entry set state = 0, attempts = attempts - %(back)s where {_SELF} and state = 1",
            generation=operation.generation,
            back=int(not operation.begun),
        )

    def _shelve(self, operation: Shelve) -> Steps[None]:
        yield self._statement(
            f"update anysched_entry set state = 3, attempts = attempts - 1 where {_SELF} and state = 1",
            generation=operation.generation,
        )

    def _find(self, operation: Find) -> Steps[Entry | None]:
        if operation.task_id is not None:
            rows = yield self._statement(_FIND_HOLDER, id=operation.task_id)
        else:
            rows = yield self._statement(_FIND, generation=operation.generation)
        return _entry(rows[0]) if rows else None

    def _list(self, operation: List) -> Steps[list[Entry]]:
        has_status = "" if operation.status is None else f"and {_HAS_STATUS[operation.status]} "
        rows = yield self._statement(
            f"select {COLUMNS} from anysched_entry where scheduler = %(scheduler)s and holds "
            f"and id {'>' if operation.after else '>='} %(low)s and id < %(high)s {has_status}order by id limit %(limit)s",
            True,
            low=operation.low,
            high=operation.high,
            limit=operation.limit,
        )
        return [_entry(row) for row in rows]

    def _load(self, operation: Load) -> Steps[list[Placed]]:
        rows = yield self._statement(
            "select generation, id, due from anysched_entry e where scheduler = %(scheduler)s and state = 0 and not paused "
            "and (due, generation) > (%(due)s, %(generation)s) and not exists "
            "(select from anysched_entry p where p.scheduler = e.scheduler and p.id = e.id and not p.holds "
            "and p.generation < e.generation) order by due, generation limit %(limit)s",
            True,
            due=operation.due,
            generation=operation.generation,
            limit=operation.limit,
        )
        return [Placed(generation, task_id, due, ready=True) for generation, task_id, due in rows]

    def _count(self, _operation: Count) -> Steps[DurableStatistics]:
        counts = ", ".join(f"count(*) filter (where {condition})" for condition in _HAS_STATUS.values())
        rows = yield self._statement(f"select {counts} from anysched_entry where scheduler = %(scheduler)s")
        return DurableStatistics(**dict(zip(_HAS_STATUS, rows[0], strict=True)))

    def _is_empty(self, _operation: IsEmpty) -> Steps[bool]:
        rows = yield self._statement("select 1 from anysched_entry where scheduler = %(scheduler)s limit 1", True)
        return not rows

    def _recover(self, operation: Recover) -> Steps[RecoverResult]:
        yield self._statement("delete from anysched_notice where scheduler = %(scheduler)s")
        interrupted = yield self._statement(
            "update anysched_entry set state = 0, kills = kills + 1 "
            "where scheduler = %(scheduler)s and state = 1 and state <> 0 returning id, kills, generation, holds"
        )
        parked = [
            (task_id, generation, holds)
            for task_id, kills, generation, holds in interrupted
            if kills >= operation.max_kills
        ]
        for _, generation, holds in parked:
            if holds:
                yield self._statement(
                    f"update anysched_entry set state = 2, problem = %(problem)s where {_SELF}",
                    generation=generation,
                    problem=f"the process ended during {operation.max_kills} attempts to run it",
                )
            else:
                yield from self._delete(generation)
        unknown: dict[str, int] = {}
        handlers = yield self._statement(
            "select number, name from anysched_handler where scheduler = %(scheduler)s order by name"
        )
        for number, name in handlers:
            if name in operation.handlers:
                yield self._statement(
                    "update anysched_entry set state = 0 "
                    "where scheduler = %(scheduler)s and state = 3 and state <> 0 and handler = %(handler)s",
                    handler=number,
                )
                continue
            yield self._statement(
                "update anysched_entry set state = 3 "
                "where scheduler = %(scheduler)s and state = 0 and handler = %(handler)s",
                handler=number,
            )
            rows = yield self._statement(
                "select count(*) from anysched_entry where scheduler = %(scheduler)s and handler = %(handler)s",
                handler=number,
            )
            if rows[0][0]:
                unknown[name] = rows[0][0]
        rows = yield self._statement("select identity, seen from anysched_scheduler where number = %(scheduler)s")
        identity, seen = rows[0]
        return RecoverResult(
            interrupted=len(interrupted),
            parked=tuple(task_id for task_id, _, _ in parked),
            unknown=unknown,
            identity=identity,
            seen=seen,
        )

    def _adopt(self, operation: Adopt) -> Steps[int]:
        rows = yield self._statement(
            "with adopted as (update anysched_entry set state = 0 "
            "where scheduler = %(scheduler)s and state = 3 and state <> 0 and handler = "
            "(select number from anysched_handler where scheduler = %(scheduler)s and name = %(name)s) returning 1) "
            "select count(*) from adopted",
            name=operation.handler,
        )
        return int(rows[0][0])

    def _seen(self, operation: Seen) -> Steps[None]:
        yield self._statement(
            "update anysched_scheduler set seen = %(now)s where number = %(scheduler)s and seen < %(now)s",
            now=operation.now,
        )

    def _generation(self) -> Steps[int]:
        """Return a generation that is not less than any other; 0 if there never was one."""
        rows = yield self._statement(
            "select greatest(generation, case when exists (select from anysched_handler where scheduler = %(scheduler)s) "
            "then pg_sequence_last_value(pg_get_serial_sequence('anysched_entry', 'generation')) end) "
            "from anysched_scheduler where number = %(scheduler)s"
        )
        return int(rows[0][0])

    def _export(self, _operation: Export) -> Steps[Snapshot]:
        scheduler = yield self._statement("select identity, seen from anysched_scheduler where number = %(scheduler)s")
        identity, seen = scheduler[0]
        generation = yield from self._generation()
        rows = yield self._statement(
            f"select {COLUMNS} from anysched_entry where scheduler = %(scheduler)s order by generation"
        )
        return Snapshot(identity, generation, seen, tuple(map(_entry, rows)))

    def _import(self, operation: Import) -> Steps[ImportResult]:
        snapshot, policy = operation.snapshot, operation.on_conflict
        found: Rows = []
        for held in ("holds", "not holds"):  # each repeats the condition of its partial index
            found += yield self._statement(
                f"select id from anysched_entry where scheduler = %(scheduler)s and id = any(%(ids)s) and {held}",
                True,
                ids=sorted({entry.task_id for entry in snapshot.entries}),
            )
        conflicts = sorted({task_id for (task_id,) in found})
        if conflicts and policy == "error":
            return ImportResult(0, tuple(conflicts), renumbered=False)
        renumbered = (yield from self._generation()) > 0
        if policy == "replace":
            for held in ("holds", "not holds"):
                rows = yield self._statement(
                    "delete from anysched_entry where scheduler = %(scheduler)s and id = any(%(ids)s) "
                    f"and {held} returning generation, watched",
                    True,
                    ids=conflicts,
                )
                self.removed += [generation for generation, watched in rows if watched]
        left_out = set(conflicts if policy == "keep" else ())
        entries = [entry for entry in snapshot.entries if entry.task_id not in left_out]
        for start in range(0, len(entries), IMPORTED):
            yield from self._add_all(entries[start : start + IMPORTED], renumbered=renumbered)
        if not renumbered:
            yield self._statement(
                "update anysched_scheduler set identity = %(identity)s, generation = %(generation)s "
                "where number = %(scheduler)s",
                identity=snapshot.identity,
                generation=snapshot.generation,
            )
            if snapshot.generation:
                yield self._statement(
                    "select setval(sequence, greatest(coalesce(pg_sequence_last_value(sequence), 0), %(generation)s)) "
                    "from (select pg_get_serial_sequence('anysched_entry', 'generation')::regclass as sequence) s",
                    generation=snapshot.generation,
                )
        yield from self._seen(Seen(snapshot.seen))
        yield from self._note(None)
        return ImportResult(len(entries), tuple(conflicts), renumbered)

    def _add_all(self, entries: list[Entry], *, renumbered: bool) -> Steps[None]:
        columns = {
            "generation": [entry.generation for entry in entries],
            "id": [entry.task_id for entry in entries],
            "holds": [entry.holds for entry in entries],
            "state": [int(entry.state) for entry in entries],
            "paused": [entry.paused for entry in entries],
            "due": [entry.due for entry in entries],
            "time": [entry.time for entry in entries],
            "args": [entry.args for entry in entries],
            "recurrence": [entry.recurrence for entry in entries],
            "expires": [entry.expires for entry in entries],
            "run_count": [entry.run_count for entry in entries],
            "attempts": [entry.attempts for entry in entries],
            "kills": [entry.kills for entry in entries],
            "problem": [None if entry.problem is None else storable(entry.problem) for entry in entries],
        }
        handlers: list[int] = []
        for entry in entries:
            handlers.append((yield from self._handler_number(entry.handler)))  # noqa: PERF401
        columns["handler"] = handlers
        if renumbered:
            del columns["generation"]
        types = {
            "id": "text",
            "args": "text",
            "recurrence": "text",
            "problem": "text",
            "holds": "boolean",
            "paused": "boolean",
        }
        arrays = ", ".join(f"%({name})s::{types.get(name, 'bigint')}[]" for name in columns)
        yield self._statement(
            f"insert into anysched_entry (scheduler, {', '.join(columns)}) select %(scheduler)s::integer, "
            f"{', '.join(columns)} from unnest({arrays}) with ordinality as e ({', '.join(columns)}, number) order by number",
            True,
            **columns,
        )

    # Those of shared stores

    def _take_notices(self, _operation: TakeNotices) -> Steps[Notices]:
        rows = yield self._statement(
            "delete from anysched_notice where scheduler = %(scheduler)s returning id, removed"
        )
        removed = tuple(generation for _, generation in rows if generation is not None)
        task_ids = {task_id for task_id, _ in rows}
        everything = None in task_ids
        placed: list[Placed] = []
        for held in ("holds", "not holds"):  # each repeats the condition of its partial index
            found = yield self._statement(
                f"{_LOCATE} id = any(%(ids)s) and {held}", True, ids=sorted(task_ids - {None})
            )
            placed += [Placed(*row) for row in found]
        return Notices(removed, tuple(sorted(placed, key=lambda entry: entry.generation)), everything)

    def _existing(self, operation: Existing) -> Steps[frozenset[int]]:
        rows = yield self._statement(
            "select generation from anysched_entry where scheduler = %(scheduler)s and generation = any(%(generations)s)",
            True,
            generations=list(operation.generations),
        )
        return frozenset(generation for (generation,) in rows)

    def _beat(self, _operation: Beat) -> Steps[None]:
        yield self._statement(
            "update anysched_scheduler set heartbeat = clock_timestamp() where number = %(scheduler)s"
        )

    def _watch(self, operation: Watch) -> Steps[bool]:
        rows = yield self._statement(
            f"update anysched_entry set watched = true where {_SELF} returning 1", generation=operation.generation
        )
        return bool(rows)


def _chunks(generations: list[int]) -> list[list[int]]:
    """Return generations in parts that fit into a payload, which is limited to 8,000 bytes."""
    return [generations[start : start + 300] for start in range(0, len(generations), 300)]


def _entry(row: tuple[Any, ...]) -> Entry:
    generation, task_id, holds, state, *others = row
    return Entry(generation, task_id, holds, State(state), *others)


_PERFORM: Mapping[type[Operation[Any]], Callable[[Transaction, Any], Steps[Any]]] = {
    Adopt: Transaction._adopt,
    Beat: Transaction._beat,
    Cancel: Transaction._cancel,
    CancelAll: Transaction._cancel_all,
    Claim: Transaction._claim,
    Count: Transaction._count,
    End: Transaction._end,
    Existing: Transaction._existing,
    Export: Transaction._export,
    Find: Transaction._find,
    Import: Transaction._import,
    IsEmpty: Transaction._is_empty,
    List: Transaction._list,
    Load: Transaction._load,
    Move: Transaction._move,
    Park: Transaction._park,
    Pause: Transaction._pause,
    Put: Transaction._put,
    Recover: Transaction._recover,
    Release: Transaction._release,
    Resume: Transaction._resume,
    Retry: Transaction._retry,
    Seen: Transaction._seen,
    Shelve: Transaction._shelve,
    TakeNotices: Transaction._take_notices,
    Watch: Transaction._watch,
}
