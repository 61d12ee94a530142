"""Opening the store that is named on the command line."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from anysched.durable import SQLiteStore, Store, StoreError

from .notation import is_database

if TYPE_CHECKING:  # it needs an extra
    from anysched.durable.postgres import PostgresStore

__all__ = ["Access", "opened"]

Access: TypeAlias = Literal["read", "change", "import"]
"""How to open a store: to read it, even while a scheduler runs; to change its tasks; or to import tasks, and create it if
needed."""


@contextmanager
def opened(text: str, scheduler: str | None, access: Access) -> Generator[Store]:
    """Open the store that a text names, and close it at the end.

    Args:
        text: The URI of a PostgreSQL database, or the path of an SQLite file.
        scheduler: The name of the scheduler, if the database has tasks of several.
        access: What to do with it.

    Raises:
        StoreInUseError: if a scheduler uses the store, so that it cannot be changed.
        StoreError: if it cannot be opened. A missing store is only created with ``"import"``.
    """
    store = _open_database(text, scheduler, access) if is_database(text) else _open_file(text, access)
    try:
        yield store
    finally:
        store.close()


def _open_file(path: str, access: Access) -> SQLiteStore:
    if access == "change":
        _open_file(path, "read").close()  # it exists
    store = SQLiteStore(path, read_only=access == "read")
    store.open()
    return store


def _open_database(conninfo: str, scheduler: str | None, access: Access) -> PostgresStore:
    from anysched.durable.postgres import PostgresStore

    try:
        store = PostgresStore(conninfo)
    except ValueError as error:
        raise StoreError(str(error)) from None
    names = store.read_names()
    name = names[0] if scheduler is None and len(names) == 1 else scheduler
    known = f"it has those of {', '.join(map(repr, names))}" if names else "it has none"
    if name is None:
        raise StoreError(f"{store!r} may have tasks of several schedulers, and {known}: name one with --scheduler")
    if name not in names and access != "import":
        raise StoreError(f"{store!r} has no tasks of a scheduler {name!r}: {known}")
    store = PostgresStore(conninfo, name=name)
    if access == "import":
        store.open()  # tasks that were running are found by the next owner
    else:
        store.join(name)
    return store
