"""The commands of ``anysched durable``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from anysched._cli.exit_statuses import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from anysched._cli.objects import MalformedLineError
from anysched._cli.printing import print_lines
from anysched._cli.streams import print_error
from anysched.durable import Store, StoreError, StoreInUseError
from anysched.durable.listing import Pages
from anysched.durable.operations import Cancel, Entry, Export, Find, Import, Operation, Retry, Snapshot
from anysched.durable.values import encode_id, id_ranges

from .arguments import DurableArguments, Verb
from .exchange import parse_snapshot, snapshot_lines
from .formats import json_task, list_tasks, show_task
from .notation import format_id
from .stores import opened

__all__ = ["run_durable"]

R = TypeVar("R")


def run_durable(arguments: DurableArguments) -> int:
    """Run the command that the arguments name.

    Returns:
        The exit status for the process.
    """
    try:
        for task_id in arguments.task_ids:
            encode_id(task_id)
        id_ranges(arguments.prefix)
    except ValueError as error:
        print_error(f"cannot {arguments.verb}: {error}")
        return EXIT_USAGE
    try:
        return _VERBS[arguments.verb](arguments)
    except StoreInUseError as error:
        print_error(
            f"cannot {arguments.verb}: the store {error.store} is in use by {error.owner or 'another process'}; "
            "end it first, or have the program itself do it"
        )
        return EXIT_USAGE
    except StoreError as error:
        print_error(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _ls(arguments: DurableArguments) -> int:
    with opened(arguments.store, arguments.scheduler, "read") as store:
        entries = _entries(store, Pages(id_ranges(arguments.prefix), arguments.status))
        return print_lines(map(json_task, entries) if arguments.as_json else list_tasks(entries))


def _show(arguments: DurableArguments) -> int:
    (task_id,) = arguments.task_ids
    with opened(arguments.store, arguments.scheduler, "read") as store:
        entry = _commit(store, Find(encode_id(task_id)))
    if entry is None:
        print_error(f"no task holds the ID {format_id(task_id)}")
        return EXIT_FAILURE
    return print_lines([json_task(entry)] if arguments.as_json else show_task(entry))


def _cancel(arguments: DurableArguments) -> int:
    operations = [Cancel(encode_id(task_id)) for task_id in arguments.task_ids]
    return _change(arguments, operations, "cancelled {}", "no task holds the ID {}")


def _retry(arguments: DurableArguments) -> int:
    operations = [Retry(encode_id(task_id)) for task_id in arguments.task_ids]
    return _change(arguments, operations, "{} runs again", "no task that is parked holds the ID {}")


def _change(arguments: DurableArguments, operations: Iterable[Operation[Any]], done: str, failed: str) -> int:
    """Change tasks, all in one transaction, and report each."""
    with opened(arguments.store, arguments.scheduler, "change") as store:
        results = store.commit([*operations])
    found: dict[str, bool] = {}
    for task_id, result in zip(arguments.task_ids, results, strict=True):
        # If an ID was passed twice, only the first operation finds it.
        found[format_id(task_id)] = found.get(format_id(task_id), False) or result is not None
    status = print_lines(done.format(text) for text, is_found in found.items() if is_found)
    missing = [text for text, is_found in found.items() if not is_found]
    for text in missing:
        print_error(failed.format(text))
    return EXIT_FAILURE if missing else status


def _export(arguments: DurableArguments) -> int:
    with opened(arguments.store, arguments.scheduler, "read") as store:
        snapshot = _commit(store, Export())
    return print_lines(snapshot_lines(snapshot))


def _import(arguments: DurableArguments) -> int:
    try:
        snapshot = _read_snapshot(arguments.file)
    except OSError as error:
        print_error(f"cannot read {_name(arguments.file)}: {error.strerror}")
        return EXIT_USAGE
    except MalformedLineError as error:
        print_error(f"cannot import {_name(arguments.file)}: {error}; nothing was imported")
        return EXIT_FAILURE
    with opened(arguments.store, arguments.scheduler, "import") as store:
        result = _commit(store, Import(snapshot, arguments.on_conflict))
    ids = f"{len(result.conflicts):,} of the IDs, {result.conflicts[0]} first" if result.conflicts else ""
    if ids and arguments.on_conflict == "error":
        print_error(f"the store has tasks with {ids}; nothing was imported")
        return EXIT_FAILURE
    if result.renumbered and any(entry.attempts for entry in snapshot.entries):
        print_error("note: runs that were interrupted have new keys, since the store already had tasks")
    done = {"error": "", "keep": f"; it kept its tasks with {ids}", "replace": f"; they replaced those with {ids}"}
    return print_lines([f"imported {_count(result.added)}{done[arguments.on_conflict] if ids else ''}"])


def _read_snapshot(file: str) -> Snapshot:
    if file == "-":
        return parse_snapshot(sys.stdin.buffer)
    with Path(file).open("rb") as lines:
        return parse_snapshot(lines)


def _name(file: str) -> str:
    return "the standard input" if file == "-" else file


def _entries(store: Store, pages: Pages) -> Iterator[Entry]:
    """Yield entries, a page at a time."""
    while (page := pages.next()) is not None:
        entries = _commit(store, page)
        pages.add(entries)
        yield from entries


def _commit(store: Store, operation: Operation[R]) -> R:
    result: R
    (result,) = store.commit([operation])
    return result


def _count(number: int) -> str:
    return f"{number:,} task{'s' * (number != 1)}"


_VERBS: Final[Mapping[Verb, Callable[[DurableArguments], int]]] = {
    "ls": _ls,
    "show": _show,
    "cancel": _cancel,
    "retry": _retry,
    "export": _export,
    "import": _import,
}
