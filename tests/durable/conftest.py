"""Both backends in virtual time, and every store, for the tests in this directory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from durable_support import Program
from postgres_server import PostgresServer, find_program, reason_to_skip, run_pgbouncer

from anysched.durable import MemoryStore, SQLiteStore, Store, membership
from anysched.durable.postgres import PostgresStore
from anysched.testing import VirtualClock


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    options = {"debug": True} if request.param == "asyncio" else {}
    return VirtualClock().backend(request.param, **options)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, which is left running; tests make databases of their own."""
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """An empty database, as its connection string. A connection that is left open at the end is an error."""
    database = postgres.new_database()
    yield database
    postgres.drop_database(database)


@pytest.fixture
def schema(postgres: PostgresServer) -> Iterator[str]:
    """An empty schema, as its connection string."""
    with postgres.new_schema() as schema:
        yield schema


@pytest.fixture
def pgbouncer() -> Iterator[Callable[[str, str], str]]:
    """Runs a PgBouncer in front of a database, in a mode, and returns how to connect to it."""
    if find_program("pgbouncer") is None:
        pytest.skip("PgBouncer is not installed")
    with ExitStack() as stack:
        yield lambda database, mode: stack.enter_context(run_pgbouncer(database, mode))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "postgres":
        return PostgresStore(request.getfixturevalue("schema"), name="test")
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "store.db", synchronous="normal")


@pytest.fixture(autouse=True)
def _no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announcements are not lost here, and months of virtual time would be full of queries."""
    monkeypatch.setattr(membership, "POLL", math.inf)


@pytest.fixture
def program(store: Store) -> Program:
    return Program(store)
