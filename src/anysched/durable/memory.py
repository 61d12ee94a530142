"""A store in memory, for tests, in plain and readable Python."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, final, get_args

from .errors import StoreError, StoreInUseError
from .operations import (
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

__all__ = ["MemoryStore"]


@final
class MemoryStore:
    """Keeps tasks in memory, for tests.

    It can be opened by one scheduler after another, as if the program had restarted. It behaves like every store, but
    gets slower as the number of tasks grows.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._generation = 0
        self._seen = 0
        self._identity = secrets.token_hex(8)
        self._is_open = False

    def __repr__(self) -> str:
        return f"<MemoryStore, {len(self._entries)} tasks>"

    def open(self) -> None:
        """Open the store.

        Raises:
            StoreInUseError: if another scheduler has it open.
        """
        if self._is_open:
            raise StoreInUseError(repr(self), "this process")
        self._is_open = True

    def commit(self, operations: Sequence[Operation[Any]], /) -> list[Any]:
        """Perform operations.

        Raises:
            StoreError: if the store is not open.
        """
        if not self._is_open:
            raise StoreError(f"{self!r} is not open")
        return [_PERFORM[type(operation)](self, operation) for operation in operations]

    def close(self) -> None:
        """Close the store. It keeps its tasks."""
        self._is_open = False

    def copy(self) -> MemoryStore:
        """Return a closed store with the same tasks, as it would be if the program ended now."""
        copied = copy(self)
        copied._entries = dict(self._entries)
        copied._is_open = False
        return copied

    # Looking up

    def _holder(self, task_id: str) -> Entry | None:
        return next((entry for entry in self._entries.values() if entry.holds and entry.task_id == task_id), None)

    def _predecessors(self, task_id: str) -> list[Entry]:
        """Return the predecessors under an ID, the oldest first."""
        return [entry for entry in self._entries.values() if not entry.holds and entry.task_id == task_id]

    def _placed(self, entry: Entry) -> Placed:
        blocked = entry.holds and any(other.state is not State.RUNNING for other in self._predecessors(entry.task_id))
        return Placed(entry.generation, entry.task_id, entry.due, _may_start(entry) and not blocked)

    def _change(self, entry: Entry, **changes: Any) -> Entry:
        self._entries[entry.generation] = changed = replace(entry, **changes)
        return changed

    # The operations

    def _put(self, operation: Put) -> PutResult:
        holder = self._holder(operation.task_id)
        removed: int | None = None
        if holder is not None:
            if operation.on_conflict in ("keep", "error"):
                return PutResult(holder, added=False, ready=False, removed=None)
            follow = operation.on_conflict == "follow" or holder.generation == operation.caller
            if not self._release_id(holder, leave=follow):
                removed = holder.generation
        self._generation += 1
        self._entries[self._generation] = entry = Entry(
            generation=self._generation,
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
        return PutResult(entry, added=True, ready=self._placed(entry).ready, removed=removed)

    def _release_id(self, holder: Entry, *, leave: bool) -> bool:
        """Release the ID of its holder; return whether the holder remains as a predecessor."""
        if leave and holder.has_begun:
            self._change(holder, holds=False, paused=False)
            return True
        del self._entries[holder.generation]
        return False

    def _cancel(self, operation: Cancel) -> CancelResult | None:
        holder = self._holder(operation.task_id)
        if holder is None:
            return None
        return CancelResult(holder.generation, removed=not self._release_id(holder, leave=operation.leave))

    def _cancel_all(self, operation: CancelAll) -> frozenset[int]:
        for entry in [entry for entry in self._entries.values() if entry.holds]:
            self._release_id(entry, leave=operation.leave)
        return frozenset(self._entries)

    def _move(self, operation: Move) -> Placed | None:
        holder = self._holder(operation.task_id)
        if holder is None or holder.state is State.RUNNING:
            return None
        return self._placed(self._change(holder, due=operation.due))

    def _pause(self, operation: Pause) -> Placed | None:
        holder = self._holder(operation.task_id)
        if holder is None or holder.paused or (holder.state is State.RUNNING and holder.recurrence is None):
            return None
        return self._placed(self._change(holder, paused=True))

    def _resume(self, operation: Resume) -> Placed | None:
        holder = self._holder(operation.task_id)
        return None if holder is None or not holder.paused else self._placed(self._change(holder, paused=False))

    def _retry(self, operation: Retry) -> Placed | None:
        holder = self._holder(operation.task_id)
        if holder is None or holder.state is not State.PARKED:
            return None
        return self._placed(self._change(holder, state=State.PENDING, kills=0, problem=None))

    def _claim(self, operation: Claim) -> Entry | None:
        entry = self._entries.get(operation.generation)
        if entry is None or entry.due != operation.due:
            return None
        if operation.repeated and entry.state is State.RUNNING:
            return entry
        if not _may_start(entry):
            return None
        return self._change(entry, state=State.RUNNING, attempts=entry.attempts + 1)

    def _end(self, operation: End) -> EndResult:
        entry = self._entries.get(operation.generation)
        if entry is None or not entry.holds or operation.due is None:
            return self._remove(entry, operation.task_id)
        if entry.state is State.RUNNING:
            entry = self._change(
                entry,
                state=State.PENDING,
                due=operation.due,
                time=operation.time,
                run_count=entry.run_count + operation.ran,
                attempts=0,
                kills=0,
            )
        return EndResult(removed=False, next=Placed(entry.generation, entry.task_id, entry.due, _may_start(entry)))

    def _park(self, operation: Park) -> EndResult:
        entry = self._entries.get(operation.generation)
        if entry is None or not entry.holds:
            return self._remove(entry, operation.task_id)
        self._change(entry, state=State.PARKED, problem=operation.problem)
        return EndResult(removed=False, next=None)

    def _remove(self, entry: Entry | None, task_id: str) -> EndResult:
        if entry is not None:
            task_id = entry.task_id
            del self._entries[entry.generation]
        predecessors = self._predecessors(task_id)
        following = predecessors[0] if predecessors else self._holder(task_id)
        if following is None or following.state is State.RUNNING:
            return EndResult(removed=True, next=None)
        placed = Placed(following.generation, following.task_id, following.due, _may_start(following))
        return EndResult(removed=True, next=placed)

    def _release(self, operation: Release) -> None:
        entry = self._entries.get(operation.generation)
        if entry is not None and entry.state is State.RUNNING:
            self._change(entry, state=State.PENDING, attempts=entry.attempts - (not operation.begun))

    def _shelve(self, operation: Shelve) -> None:
        entry = self._entries.get(operation.generation)
        if entry is not None and entry.state is State.RUNNING:
            self._change(entry, state=State.UNKNOWN, attempts=entry.attempts - 1)

    def _find(self, operation: Find) -> Entry | None:
        if operation.task_id is not None:
            return self._holder(operation.task_id)
        return None if operation.generation is None else self._entries.get(operation.generation)

    def _existing(self, operation: Existing) -> frozenset[int]:
        return frozenset(operation.generations) & self._entries.keys()

    def _list(self, operation: List) -> list[Entry]:
        found = [
            entry
            for entry in self._entries.values()
            if entry.holds
            and operation.low <= entry.task_id < operation.high
            and not (operation.after and entry.task_id == operation.low)
            and operation.status in (None, entry.status)
        ]
        return sorted(found, key=lambda entry: entry.task_id)[: operation.limit]

    def _load(self, operation: Load) -> list[Placed]:
        found = [
            Placed(entry.generation, entry.task_id, entry.due, ready=True)
            for entry in self._entries.values()
            if _may_start(entry)
            and (entry.due, entry.generation) > (operation.due, operation.generation)
            and not any(other.generation < entry.generation for other in self._predecessors(entry.task_id))
        ]
        return sorted(found, key=lambda placed: (placed.due, placed.generation))[: operation.limit]

    def _count(self, _operation: Count) -> DurableStatistics:
        found = Counter(entry.status for entry in self._entries.values())
        return DurableStatistics(**{status: found[status] for status in get_args(Status)})

    def _is_empty(self, _operation: IsEmpty) -> bool:
        return not self._entries

    def _recover(self, operation: Recover) -> RecoverResult:
        interrupted = [entry for entry in self._entries.values() if entry.state is State.RUNNING]
        parked: list[str] = []
        for entry in interrupted:
            kills = entry.kills + 1
            self._change(entry, state=State.PENDING, kills=kills)
            if kills >= operation.max_kills:
                parked.append(entry.task_id)
                problem = f"the process ended during {operation.max_kills} attempts to run it"
                self._change(entry, state=State.PARKED, kills=kills, problem=problem)
                if not entry.holds:
                    del self._entries[entry.generation]
        unknown: dict[str, int] = {}
        for entry in list(self._entries.values()):
            if entry.handler not in operation.handlers:
                unknown[entry.handler] = unknown.get(entry.handler, 0) + 1
                if entry.state is State.PENDING:
                    self._change(entry, state=State.UNKNOWN)
            elif entry.state is State.UNKNOWN:
                self._change(entry, state=State.PENDING)
        return RecoverResult(len(interrupted), tuple(parked), dict(sorted(unknown.items())), self._identity, self._seen)

    def _adopt(self, operation: Adopt) -> int:
        adopted = [
            entry
            for entry in self._entries.values()
            if entry.state is State.UNKNOWN and entry.handler == operation.handler
        ]
        for entry in adopted:
            self._change(entry, state=State.PENDING)
        return len(adopted)

    def _see(self, operation: Seen) -> None:
        self._seen = max(self._seen, operation.now)

    def _export(self, _operation: Export) -> Snapshot:
        return Snapshot(self._identity, self._generation, self._seen, tuple(self._entries.values()))

    def _import(self, operation: Import) -> ImportResult:
        snapshot = operation.snapshot
        stored = {entry.task_id for entry in self._entries.values()}
        conflicts = stored & {entry.task_id for entry in snapshot.entries}
        if conflicts and operation.on_conflict == "error":
            return ImportResult(0, tuple(sorted(conflicts)), renumbered=False)
        renumbered = self._generation > 0
        if not renumbered:
            self._identity, self._generation = snapshot.identity, snapshot.generation
        for entry in list(self._entries.values()):
            if entry.task_id in conflicts and operation.on_conflict == "replace":
                del self._entries[entry.generation]
        added = 0
        for entry in snapshot.entries:
            if entry.task_id in conflicts and operation.on_conflict == "keep":
                continue
            added += 1
            self._generation += renumbered
            generation = self._generation if renumbered else entry.generation
            self._entries[generation] = replace(entry, generation=generation)
        self._seen = max(self._seen, snapshot.seen)
        return ImportResult(added, tuple(sorted(conflicts)), renumbered)


def _may_start(entry: Entry) -> bool:
    return entry.state is State.PENDING and not entry.paused


_PERFORM: Mapping[type[Operation[Any]], Callable[[MemoryStore, Any], Any]] = {
    Adopt: MemoryStore._adopt,
    Cancel: MemoryStore._cancel,
    CancelAll: MemoryStore._cancel_all,
    Claim: MemoryStore._claim,
    Count: MemoryStore._count,
    End: MemoryStore._end,
    Existing: MemoryStore._existing,
    Export: MemoryStore._export,
    Find: MemoryStore._find,
    Import: MemoryStore._import,
    IsEmpty: MemoryStore._is_empty,
    List: MemoryStore._list,
    Load: MemoryStore._load,
    Move: MemoryStore._move,
    Park: MemoryStore._park,
    Pause: MemoryStore._pause,
    Put: MemoryStore._put,
    Recover: MemoryStore._recover,
    Release: MemoryStore._release,
    Resume: MemoryStore._resume,
    Retry: MemoryStore._retry,
    Seen: MemoryStore._see,
    Shelve: MemoryStore._shelve,
}
