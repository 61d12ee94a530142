"""The tables of the PostgreSQL store, and how an older database becomes one of this release.

The tables have a prefix, so that they can share a schema with others; schedulers of different names share the tables. Times
are microseconds of UTC since 1970.
"""

from __future__ import annotations

from .errors import StoreError
from .steps import Statement, Steps

__all__ = ["COLUMNS", "MIGRATIONS", "migrate", "script"]

COLUMNS = (
    "generation, id, holds, state, paused, due, time, "
    "(select name from anysched_handler h where h.number = anysched_entry.handler), "
    "args, recurrence, expires, run_count, attempts, kills, problem"
)
"""The columns of an entry, in the order of the fields of `Entry`."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "create table anysched_meta (key text primary key, value bigint not null)",
        # The latest time that was seen, and for those who ask: who is the owner.
        """create table anysched_scheduler (
            number integer generated always as identity primary key,
            name text collate "C" not null unique,
            identity text not null,
            seen bigint not null default 0,
            owner text,
            backend integer,
            heartbeat timestamptz
        )""",
        # Handlers have numbers: a database with a million tasks is opened without looking at each.
        """create table anysched_handler (
            number integer generated always as identity primary key,
            scheduler integer not null,
            name text collate "C" not null,
            unique (scheduler, name)
        )""",
        """create table anysched_entry (
            generation bigint generated always as identity primary key,
            scheduler integer not null,
            id text collate "C" not null,
            holds boolean not null default true,
            state smallint not null default 0,
            paused boolean not null default false,
            watched boolean not null default false,
            due bigint not null,
            time bigint not null,
            handler integer not null,
            args text not null,
            recurrence text,
            expires bigint,
            run_count bigint not null default 0,
            attempts integer not null default 0,
            kills integer not null default 0,
            problem text
        )""",
        # Each is used only by queries that repeat its condition.
        "create unique index anysched_holder on anysched_entry (scheduler, id) where holds",
        "create index anysched_predecessor on anysched_entry (scheduler, id) where not holds",
        "create index anysched_due on anysched_entry (scheduler, due, generation) where state = 0 and not paused",
        "create index anysched_not_pending on anysched_entry (scheduler, state) where state <> 0",
        # What others than the owner have changed, until it has read it.
        """create table anysched_notice (
            number bigint generated always as identity primary key,
            scheduler integer not null,
            id text collate "C",
            removed bigint
        )""",
        "create index anysched_notice_scheduler on anysched_notice (scheduler, number)",
    ),
)
"""The statements that make each version of the schema out of the one before."""

LOCK = 0x616E79736368  # "anysch": the same for all, as long as there are no tables


def migrate(name: str) -> Steps[None]:
    """Bring a database to the newest version of the schema, in the transaction that is open.

    Args:
        name: The database, for the error.

    Raises:
        StoreError: if the database is of a newer version than this release knows.
    """
    version = yield from _version()
    if version < len(MIGRATIONS):
        # One at a time, and what was done by another one in the meantime is not done again.
        yield Statement("select pg_advisory_xact_lock(%(lock)s)", {"lock": LOCK})
        version = yield from _version()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{name} has version {version} of the schema, and this release of anysched knows {len(MIGRATIONS)}: "
            "install the release that wrote it, or a later one"
        )
    for statement in (statement for statements in MIGRATIONS[version:] for statement in statements):
        yield Statement(statement)
    if version < len(MIGRATIONS):
        yield Statement(
            "insert into anysched_meta values ('schema', %(version)s) on conflict (key) do update set value = excluded.value",
            {"version": len(MIGRATIONS)},
        )


def script() -> str:
    """Return the statements that make all tables, for someone who may."""
    statements = [statement for statements in MIGRATIONS for statement in statements]
    version = f"insert into anysched_meta values ('schema', {len(MIGRATIONS)})"
    return "".join(f"{statement};\n" for statement in (*statements, version))


def _version() -> Steps[int]:
    rows = yield Statement("select to_regclass('anysched_meta') is not null")
    if not rows[0][0]:
        return 0
    rows = yield Statement("select value from anysched_meta where key = 'schema'")
    return int(rows[0][0])
