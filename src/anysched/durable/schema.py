"""The tables of the SQLite store, and the upgrade of an older file to this release.

The tables have a prefix, so that they can share a file with others. Times are microseconds of UTC since 1970.
"""

from __future__ import annotations

import secrets
import sqlite3

from .errors import StoreError

__all__ = ["COLUMNS", "MIGRATIONS", "check_version", "migrate"]

COLUMNS = (
    "generation, id, holds, state, paused, due, time, (select name from anysched_handler h where h.number = handler), "
    "args, recurrence, expires, run_count, attempts, kills, problem"
)
"""The columns of an entry, in the order of the fields of `Entry`."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # Handlers have numbers: a file with a million tasks is opened without looking at each.
        "create table anysched_handler (number integer primary key, name text not null unique)",
        """create table anysched_entry (
            generation integer primary key autoincrement,
            id text not null,
            holds integer not null default 1,
            state integer not null default 0,
            paused integer not null default 0,
            due integer not null,
            time integer not null,
            handler integer not null,
            args text not null,
            recurrence text,
            expires integer,
            run_count integer not null default 0,
            attempts integer not null default 0,
            kills integer not null default 0,
            problem text
        )""",
        # Each is used only by queries that repeat its condition.
        "create unique index anysched_holder on anysched_entry (id) where holds = 1",
        "create index anysched_predecessor on anysched_entry (id) where holds = 0",
        "create index anysched_due on anysched_entry (due) where state = 0 and paused = 0",
        "create index anysched_not_pending on anysched_entry (state) where state != 0",
        "create index anysched_paused on anysched_entry (id) where paused = 1",
    ),
)
"""For each version of the schema, the statements that upgrade the previous one to it."""


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Upgrade a file to the newest version of the schema, in the open transaction.

    Raises:
        StoreError: if the file is of a newer version than this release knows.
    """
    connection.execute("create table if not exists anysched_meta (key text primary key, value) without rowid")
    version = _version(connection, path)
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute("insert or replace into anysched_meta values ('schema', ?)", [len(MIGRATIONS)])
    connection.execute("insert or ignore into anysched_meta values ('identity', ?)", [secrets.token_hex(8)])


def check_version(connection: sqlite3.Connection, path: str) -> None:
    """Check that a file has the newest version of the schema, without changing it.

    Raises:
        StoreError: if it has another one, or is not a store.
    """
    if not connection.execute("select 1 from sqlite_master where name = 'anysched_meta'").fetchall():
        raise StoreError(f"the file {path} is not a store of anysched: it has none of its tables")
    version = _version(connection, path)
    if version < len(MIGRATIONS):
        raise StoreError(
            f"the file {path} has version {version} of the schema, and this release of anysched reads {len(MIGRATIONS)}: "
            "a scheduler of this release brings it to that when it opens it"
        )


def _version(connection: sqlite3.Connection, path: str) -> int:
    rows = connection.execute("select value from anysched_meta where key = 'schema'").fetchall()
    version: int = rows[0][0] if rows else 0
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the file {path} has version {version} of the schema, and this release of anysched knows {len(MIGRATIONS)}: "
            "install the release that wrote it, or a later one"
        )
    return version
