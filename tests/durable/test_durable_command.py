"""``anysched durable`` on a PostgreSQL database, and the way from SQLite there and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_durable_stores import OPERATIONS, snapshot_after

from anysched.__main__ import main
from anysched.durable import DurableScheduler, SQLiteStore, Store
from anysched.durable.operations import Claim, Export, Import, Operation, Park, Pause, Put, Snapshot
from anysched.durable.postgres import PostgresStore

PUTS = [
    Put('"tea"', 5, 5, "remind", '["the tea is ready"]', expires=60),
    *(Claim(1, 5), Park(1, "TypeError: it does not fit")),
    Put(
        '["reminder",7]', 7, 6, "remind", "[]", recurrence='{"every":90000000,"from":"end","missed":"skip","jitter":0}'
    ),
    Pause('["reminder",7]'),
    Put("7", 8, 8, "remind", "[]"),
    Claim(3, 8),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(["durable", *map(str, arguments)])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def uri(database: str) -> str:
    """An empty database, as a URI."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(database)
    return f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def perform(store: Store, *operations: Operation[Any]) -> list[Any]:
    store.open()
    try:
        return store.commit(operations)
    finally:
        store.close()


def kept(store: Store) -> Snapshot:
    (snapshot,) = perform(store, Export())
    assert isinstance(snapshot, Snapshot)
    return snapshot


def test_to_postgresql_and_back(run: Run, uri: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    perform(SQLiteStore(old), *PUTS)
    for source, target in (((old,), (uri, "--scheduler", "bot")), ((uri,), (new,))):
        status, exported, err = run("export", *source)
        assert (status, err) == (0, "")
        (tmp_path / "tasks").write_text(exported)
        assert run("import", *target, tmp_path / "tasks") == (0, "imported 3 tasks\n", "")
    assert kept(SQLiteStore(new)) == kept(SQLiteStore(old)) == kept(PostgresStore(uri, name="bot"))
    # Again: the database has the tasks.
    status, out, err = run("import", uri, tmp_path / "tasks")
    assert (status, out) == (1, "")
    assert "the store has tasks with 3 of the IDs" in err


def test_a_database_is_read_and_changed(run: Run, uri: str) -> None:
    perform(PostgresStore(uri, name="bot"), *PUTS)
    assert run("ls", uri) == (
        0,
        (
            "parked   1970-01-01 00:00:00  remind        tea  # TypeError: it does not fit\n"
            "running  1970-01-01 00:00:00  remind        7\n"
            'paused   1970-01-01 00:00:00  remind        ["reminder",7]\n'
            "3 tasks: 1 parked, 1 running, 1 paused\n"
        ),
        "",
    )
    assert run("show", uri, "tea")[0] == 0
    assert run("retry", uri, "tea") == (0, "tea runs again\n", "")
    assert run("cancel", uri, "7", "--scheduler", "bot") == (0, "cancelled 7\n", "")
    assert run("ls", uri, "--status", "pending")[1].endswith("1 task: 1 pending\n")


def test_a_database_is_changed_while_a_scheduler_runs(run: Run, uri: str, tmp_path: Path) -> None:
    """It is notified and cancels the run. An import needs the ownership, because its tasks may have been interrupted."""

    async def program() -> tuple[Any, Any, list[str]]:
        ended: list[str] = []
        scheduler = DurableScheduler("bot", PostgresStore(uri))

        @scheduler.handler("wait")
        async def wait() -> None:
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                ended.append("cancelled")
                raise

        async with scheduler:
            task = await scheduler.schedule("id", wait)
            while (await scheduler.statistics()).running == 0:
                await anyio.sleep(0.01)
            imported = await anyio.to_thread.run_sync(run, "import", uri, tmp_path / "tasks")
            cancelled = await anyio.to_thread.run_sync(run, "cancel", uri, "id")
            await task.wait()
        return imported, cancelled, ended

    perform(SQLiteStore(tmp_path / "old.db"), *PUTS)
    (tmp_path / "tasks").write_text(run("export", tmp_path / "old.db")[1])
    imported, cancelled, ended = anyio.run(program)
    assert (imported[0], imported[1]) == (2, "")
    assert imported[2].startswith("anysched: cannot import: the store PostgresStore(")
    assert f"is in use by process {os.getpid()} on " in imported[2]
    assert cancelled == (0, "cancelled id\n", "")
    assert ended == ["cancelled"]


@pytest.mark.parametrize("arguments", [["ls"], ["show", "a"], ["cancel", "a"], ["retry", "a"], ["export"]])
def test_nothing_is_made_in_a_database_without_tasks(run: Run, uri: str, arguments: list[str]) -> None:
    verb, *rest = arguments
    status, out, err = run(verb, uri, *rest)
    assert (status, out) == (2, "")
    assert err.endswith("may have tasks of several schedulers, and it has none: name one with --scheduler\n")
    status, out, err = run(verb, uri, *rest, "--scheduler", "bot")
    assert (status, out) == (2, "")
    assert err.endswith("has no tasks of a scheduler 'bot': it has none\n")
    assert PostgresStore(uri).read_names() == []


def test_one_of_several_schedulers_is_named(run: Run, uri: str) -> None:
    for name in ("bot", "app"):
        perform(PostgresStore(uri, name=name), Put(f'"{name}"', 5, 5, "remind", "[]"))
    status, out, err = run("ls", uri)
    assert (status, out) == (2, "")
    assert err.endswith("several schedulers, and it has those of 'app', 'bot': name one with --scheduler\n")
    assert run("ls", uri, "--scheduler", "app")[1].endswith("remind        app\n1 task: 1 pending\n")


def test_a_database_that_cannot_be_reached(run: Run) -> None:
    for uri in ("postgresql://localhost:1/app", "postgresql://[::1/app"):
        status, out, err = run("ls", uri)
        assert (status, out) == (2, "")
        assert err.startswith("anysched: ")


def test_a_database_needs_psycopg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("anysched._cli.durable.arguments.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        main(["durable", "ls", "postgresql:///app"])
    assert caught.value.code == 2
    assert "a PostgreSQL database needs psycopg: pip install 'anysched[postgres]'" in capsys.readouterr().err


NUMBERS = count()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPERATIONS, max_size=20))
def test_whatever_a_store_keeps_is_moved(database: str, operations: list[Operation[Any]]) -> None:
    snapshot = snapshot_after(operations)
    store = PostgresStore(database, name=f"scheduler {next(NUMBERS)}")
    (result,) = perform(store, Import(snapshot))
    assert (result.added, result.conflicts, result.renumbered) == (len(snapshot.entries), (), False)
    assert kept(store).entries == snapshot.entries
    assert kept(store).identity == snapshot.identity
