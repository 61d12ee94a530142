"""``anysched durable``: showing, changing and moving the store of a durable scheduler from the command line."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anysched.__main__ import main
from anysched._cli.arguments import parse_arguments
from anysched._cli.durable.arguments import DurableArguments
from anysched._cli.durable.exchange import parse_snapshot, snapshot_lines
from anysched._cli.durable.notation import format_id, parse_id
from anysched.durable import SQLiteStore, TaskId
from anysched.durable.operations import (
    Cancel,
    Claim,
    Entry,
    Export,
    Import,
    Move,
    Operation,
    Park,
    Pause,
    Put,
    Snapshot,
    State,
)
from anysched.durable.values import encode_id

NOON = 1_767_268_800_000_000  # 2026-01-01 12:00 UTC
HOUR = 3_600_000_000
CRON = '{"cron":"30 2 * * *","zone":"Europe/Paris","missed":"latest","jitter":0}'
PERIOD = '{"every":90000000,"from":"end","missed":"skip","jitter":500000}'
TIMES = '{"times":[1,2,3],"missed":"all","jitter":0}'
PUTS = [
    Put('"tea"', NOON, NOON, "remind", '[42,"the tea is ready"]', expires=HOUR),
    Put('["reminder",7]', NOON + HOUR, NOON, "remind", "[]"),
    Put('"backup"', NOON, NOON, "backup", "[]", recurrence=CRON),
    Put("7", NOON, NOON, "poll", "[]", recurrence=PERIOD),
    Put('"7"', NOON, NOON, "poll", "[]", recurrence=TIMES),
]
LISTED = """\
pending  2026-01-01 12:00:00  poll          "7"
paused   2026-01-01 12:00:00  backup        backup
parked   2026-01-01 12:00:00  remind        tea  # TypeError: it does\\nnot fit
running  2026-01-01 12:00:00  poll          7
pending  2026-01-01 13:00:00  remind        ["reminder",7]
5 tasks: 2 pending, 1 paused, 1 parked, 1 running
"""


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object, stdin: str = "") -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status = main(["durable", *map(str, arguments)])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose program has ended, while a task was running."""
    perform(
        tmp_path / "bot.db",
        *PUTS,
        Pause('"backup"'),
        *(Claim(1, NOON), Park(1, "TypeError: it does\nnot fit")),
        Claim(4, NOON),
    )
    return tmp_path / "bot.db"


def perform(path: Path, *operations: Operation[Any]) -> list[Any]:
    """Perform operations as a scheduler does."""
    store = SQLiteStore(path, synchronous="normal")
    store.open()
    try:
        return store.commit(operations)
    finally:
        store.close()


def kept(path: Path) -> Snapshot:
    """Return the contents of a store."""
    (snapshot,) = perform(path, Export())
    assert isinstance(snapshot, Snapshot)
    return snapshot


def ids(path: Path) -> list[str]:
    return [entry.task_id for entry in kept(path).entries]


# Reading


def test_ls(run: Run, path: Path) -> None:
    assert run("ls", path) == Result(0, LISTED, "")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--prefix", '["reminder"]'], ['["reminder",7]']),
        (["--prefix", "te"], ["tea"]),
        (["--prefix", '"7"'], ['"7"']),
        (["--prefix", "nothing"], []),
        (["--status", "pending"], ['"7"', '["reminder",7]']),
        (["--status", "paused"], ["backup"]),
        (["--status", "running"], ["7"]),
        (["--status", "parked"], ["tea"]),
        (["--status", "unknown"], []),
        (["--status", "parked", "--prefix", "b"], []),
    ],
)
def test_ls_of_some(run: Run, path: Path, options: list[str], found: list[str]) -> None:
    result = run("ls", path, *options)
    *lines, last = result.out.splitlines()
    assert [line.split("  # ")[0].split(maxsplit=4)[-1] for line in lines] == found
    assert last.startswith(f"{len(found)} task")
    as_json = run("ls", path, "--json", *options).out.splitlines()
    assert [json.loads(line)["id"] for line in as_json] == [_json(parse_id(text)) for text in found]


def test_many_tasks_are_read_in_pages(run: Run, tmp_path: Path) -> None:
    perform(tmp_path / "x.db", *(Put(str(number), NOON, NOON, "work", "[]") for number in range(250)))
    lines = run("ls", tmp_path / "x.db").out.splitlines()
    assert len(lines) == 251
    assert lines[-1] == "250 tasks: 250 pending"


def test_ls_in_json(run: Run, path: Path) -> None:
    lines = [json.loads(line) for line in run("ls", path, "--json").out.splitlines()]
    assert lines[2] == {
        "id": "tea",
        "status": "parked",
        "due": "2026-01-01T12:00:00.000Z",
        "handler": "remind",
        "args": [42, "the tea is ready"],
        "recurrence": None,
        "expires": 3600.0,
        "run_count": 0,
        "attempts": 1,
        "problem": "TypeError: it does\nnot fit",
        "generation": 1,
    }
    assert lines[1]["recurrence"] == json.loads(CRON)
    assert lines[4]["id"] == ["reminder", 7]
    assert lines[4]["expires"] is None
    assert run("show", path, "tea", "--json").out == run("ls", path, "--json", "--prefix", "tea").out


@pytest.mark.parametrize(
    ("task_id", "shown"),
    [
        (
            "tea",
            [
                "ID         tea",
                "status     parked: TypeError: it does\\nnot fit",
                "due        2026-01-01 12:00:00",
                "handler    remind",
                'arguments  [42,"the tea is ready"]',
                "expires    1 h after it is due",
                "runs       0",
                "attempts   1 at the current run",
            ],
        ),
        ('["reminder", 7]', ['ID         ["reminder",7]', "due        2026-01-01 13:00:00"]),
        ("backup", ["recurs     30 2 * * * (Europe/Paris), missed: latest"]),
        ("7", ["recurs     every 1 min 30 s from the end of a run, delayed by up to 0.5 s, missed: skip"]),
        ('"7"', ["recurs     at 3 times, missed: all"]),
    ],
)
def test_show(run: Run, path: Path, task_id: str, shown: list[str]) -> None:
    result = run("show", path, task_id)
    lines = result.out.splitlines()
    assert (result.status, result.err) == (0, "")
    assert [line for line in lines if line in shown] == shown
    if task_id == "tea":
        assert lines == shown


def test_a_recurrence_of_a_later_release_is_shown_as_it_is(run: Run, tmp_path: Path) -> None:
    perform(tmp_path / "x.db", Put('"a"', NOON, NOON, "work", "[]", recurrence='{"moon":"full"}'))
    assert 'recurs     {"moon": "full"}, missed: None' in run("show", tmp_path / "x.db", "a").out


def test_show_an_id_that_is_not_held(run: Run, path: Path) -> None:
    assert run("show", path, "7.db") == Result(1, "", "anysched: no task holds the ID 7.db\n")
    assert run("show", path, "[]") == Result(1, "", "anysched: no task holds the ID []\n")


# Changing


def test_cancel(run: Run, path: Path) -> None:
    result = run("cancel", path, "tea", "7", "nothing", '["reminder",7]', "7")
    assert result == Result(
        1, 'cancelled tea\ncancelled 7\ncancelled ["reminder",7]\n', "anysched: no task holds the ID nothing\n"
    )
    assert ids(path) == ['"backup"', '"7"']
    assert run("cancel", path, "backup") == Result(0, "cancelled backup\n", "")


def test_retry(run: Run, path: Path) -> None:
    assert run("retry", path, "tea") == Result(0, "tea runs again\n", "")
    assert run("show", path, "tea").out.splitlines()[1] == "status     pending"
    message = "anysched: no task that is parked holds the ID {}\n"
    assert run("retry", path, "tea", "7") == Result(1, "", message.format("tea") + message.format("7"))


@pytest.mark.parametrize("arguments", [["cancel", "tea"], ["retry", "tea"], ["import", "-"]])
def test_while_a_scheduler_has_the_file_it_is_read_and_not_changed(run: Run, path: Path, arguments: list[str]) -> None:
    verb, *rest = arguments
    exported = run("export", path).out
    store = SQLiteStore(path)
    store.open()
    try:
        assert run("ls", path).out == LISTED
        assert run("show", path, "tea").status == 0
        assert run("export", path).out == exported
        result = run(verb, path, *rest, stdin=exported)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(
            f"anysched: cannot {verb}: the store {path} is in use by process {os.getpid()} on "
        )
        assert result.err.endswith("end it first, or have the program itself do it\n")
    finally:
        store.close()
    assert run("ls", path).out == LISTED


@pytest.mark.parametrize("arguments", [["ls"], ["show", "a"], ["cancel", "a"], ["retry", "a"], ["export"]])
def test_no_store_is_made(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    verb, *rest = arguments
    result = run(verb, tmp_path / "x.db", *rest)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"anysched: the file {tmp_path / 'x.db'} cannot be opened: ")
    assert "No such file" in result.err
    assert list(tmp_path.iterdir()) == []


# Moving


@pytest.mark.parametrize("how", ["stdin", "file"])
def test_export_and_import_move_everything(run: Run, path: Path, tmp_path: Path, how: str) -> None:
    perform(path, Put('"gone"', 1, 1, "work", "[]"), Cancel('"gone"'), Move('["reminder",7]', NOON + 5))
    exported = run("export", path)
    assert (exported.status, exported.err) == (0, "")
    (tmp_path / "export").write_text(exported.out)
    new = tmp_path / "new.db"
    file = "-" if how == "stdin" else tmp_path / "export"
    result = run("import", new, file, stdin=exported.out if how == "stdin" else "")
    assert result == Result(0, "imported 5 tasks\n", "")
    assert kept(new) == kept(path)
    assert run("export", new).out == exported.out


def test_an_import_in_which_an_id_is_held_changes_nothing(run: Run, path: Path, tmp_path: Path) -> None:
    exported = run("export", path).out
    other = tmp_path / "other.db"
    perform(other, Put('"tea"', 1, 1, "other", "[]"), Put('"other"', 1, 1, "other", "[]"))
    before = kept(other)
    held = '1 of the IDs, "tea" first'
    assert run("import", other, "-", stdin=exported) == Result(
        1, "", f"anysched: the store has tasks with {held}; nothing was imported\n"
    )
    assert kept(other) == before
    note = "anysched: note: runs that were interrupted have new keys, since the store already had tasks\n"
    kept_its = f"imported 4 tasks; it kept its tasks with {held}\n"
    assert run("import", other, "--on-conflict", "keep", "-", stdin=exported) == Result(0, kept_its, note)
    assert ids(other) == ['"tea"', '"other"', '["reminder",7]', '"backup"', "7", '"7"']
    assert kept(other).entries[0].handler == "other"
    perform(other, *(Cancel(task_id) for task_id in ids(other)[2:]))
    replaced = f"imported 5 tasks; they replaced those with {held}\n"
    assert run("import", other, "-", "--on-conflict=replace", stdin=exported) == Result(0, replaced, note)
    assert ids(other) == ['"other"', '"tea"', '["reminder",7]', '"backup"', "7", '"7"']


HEADER = {"anysched": 1, "tasks": 1, "identity": "x", "generation": 9, "seen": 0}
TASK = {
    "generation": 3, "id": ["a", 1], "holds": True, "state": "pending", "paused": False, "due": 1, "time": 1, "handler": "work",
    "args": [], "recurrence": None, "expires": None, "run_count": 0, "attempts": 0, "kills": 0, "problem": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "it is empty"),
        ([b"  "], "it is empty"),
        ([b"nonsense"], "line 1: not JSON: Expecting value, at column 1"),
        ([TASK], "line 1: expected the first line of an export of anysched"),
        ([{**HEADER, "anysched": 2}], "line 1: it is of version 2, and this release reads 1"),
        ([{**HEADER, "more": 1}], 'line 1: unknown key: "more"'),
        ([{**HEADER, "seen": -1}], 'line 1: "seen" must be at least 0 and less than 2 ** 62'),
        ([{**HEADER, "identity": None}], 'line 1: "identity" must be a string, not null'),
        ([HEADER], "it is incomplete: it has 0 of 1 tasks"),
        ([HEADER, TASK, {**TASK, "generation": 4, "id": "b"}], "it is incomplete: it has 2 of 1 tasks"),
        ([HEADER, b"[]"], "line 2: expected a JSON object, not a list"),
        (
            [HEADER, b"", {**TASK, "id": 1.5}],
            'line 3: "id": an ID is a string, a whole number or a list of these, not 1.5',
        ),
        ([HEADER, {**TASK, "id": ["a", True]}], 'line 2: "id": an ID is'),
        ([HEADER, {**TASK, "more": 1}], 'line 2: unknown key: "more"'),
        ([HEADER, {key: TASK[key] for key in TASK if key != "due"}], 'line 2: "due" is missing'),
        ([HEADER, {**TASK, "due": True}], 'line 2: "due" must be a whole number, not true'),
        ([HEADER, {**TASK, "due": 2**62}], 'line 2: "due" must be at least 0 and less than 2 ** 62'),
        ([HEADER, {**TASK, "state": "sleeping"}], 'line 2: "state" must be one of pending, running, parked, unknown'),
        ([HEADER, {**TASK, "args": {}}], 'line 2: "args" must be a list, not an object'),
        ([HEADER, {**TASK, "recurrence": "daily"}], 'line 2: "recurrence" must be an object, not a string'),
        ([HEADER, {**TASK, "generation": 0}], 'line 2: "generation" must be at least 1'),
        ([HEADER, {**TASK, "generation": 10}], 'line 2: "generation" must be greater than that of the line before'),
        ([HEADER, TASK, {**TASK, "id": "b"}], 'line 3: "generation" must be greater than'),
        ([HEADER, TASK, {**TASK, "generation": 4}], 'line 3: a task of a line before holds the ID ["a",1] as well'),
        ([HEADER, {**TASK, "handler": "\ud800"}], 'line 2: "handler" has characters that are not Unicode text'),
        ([HEADER, {**TASK, "handler": "a\0"}], 'line 2: "handler" cannot be stored: it contains a NUL character or'),
        ([HEADER, {**TASK, "id": ["\ud800"]}], 'line 2: "id": a durable ID must not contain a lone surrogate'),
        ([HEADER, {**TASK, "id": "x" * 2_000}], 'line 2: "id": a durable ID has at most 2000 characters'),
        ([HEADER, json.dumps(TASK).replace("1", "NaN").encode()], "line 2: NaN is not JSON"),
    ],
)
def test_what_is_no_export_is_refused(run: Run, tmp_path: Path, lines: list[Any], problem: str) -> None:
    text = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (tmp_path / "export").write_bytes(b"\n".join(text))
    result = run("import", tmp_path / "x.db", tmp_path / "export")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"anysched: cannot import {tmp_path / 'export'}: {problem}")
    assert result.err.endswith("; nothing was imported\n")
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["show", "STORE", "a\udcff"], "show: a durable ID must not contain a lone surrogate: 'a\\udcff'"),
        (["cancel", "STORE", "b", "x" * 2_000], "cancel: a durable ID has at most 2000 characters"),
        (["ls", "STORE", "--prefix", "\udcff"], "ls: a durable ID must not contain a lone surrogate"),
    ],
)
def test_an_id_that_cannot_be_stored(run: Run, path: Path, arguments: list[str], problem: str) -> None:
    result = run(*(str(path) if argument == "STORE" else argument for argument in arguments))
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"anysched: cannot {problem}")


def test_an_export_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    message = f"anysched: cannot read {tmp_path / 'missing'}: No such file or directory\n"
    assert run("import", tmp_path / "x.db", tmp_path / "missing") == Result(2, "", message)
    assert run("import", tmp_path / "x.db", "-", stdin="") == Result(
        1, "", "anysched: cannot import the standard input: it is empty; nothing was imported\n"
    )


def test_predecessors_are_moved_as_well(run: Run, path: Path, tmp_path: Path) -> None:
    """A task that was taken over while it ran is finished before its successor starts, even in the new store."""
    perform(path, Put("7", 1, 1, "poll", "[]", on_conflict="follow"))
    exported = run("export", path).out
    assert run("import", tmp_path / "new.db", "-", stdin=exported).status == 0
    assert [(entry.task_id, entry.holds) for entry in kept(tmp_path / "new.db").entries if entry.task_id == "7"] == [
        ("7", False), ("7", True),
    ]  # fmt: skip


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)  # a store keeps no lone surrogates
NAMES = TEXTS.map(lambda text: text.replace("\0", ""))
TASK_IDS: st.SearchStrategy[TaskId] = st.recursive(
    TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
AMOUNTS = st.integers(0, 2**62 - 1)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _json(task_id: TaskId) -> object:
    return [_json(element) for element in task_id] if isinstance(task_id, tuple) else task_id


ENTRIES = st.builds(
    Entry,
    generation=st.just(0),
    task_id=TASK_IDS.map(encode_id),
    holds=st.booleans(),
    state=st.sampled_from(State),
    paused=st.booleans(),
    due=AMOUNTS,
    time=AMOUNTS,
    handler=NAMES,
    args=st.lists(JSON, max_size=3).map(_compact),
    recurrence=st.none() | st.dictionaries(st.text(max_size=3), JSON, max_size=3).map(_compact),
    expires=st.none() | AMOUNTS,
    run_count=AMOUNTS,
    attempts=AMOUNTS,
    kills=AMOUNTS,
    problem=st.none() | TEXTS,
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Return a snapshot of any store."""
    entries = draw(st.lists(ENTRIES, max_size=4, unique_by=lambda entry: entry.task_id if entry.holds else object()))
    steps = draw(st.lists(st.integers(1, 2**50), min_size=len(entries) + 1, max_size=len(entries) + 1))
    numbered = [replace(entry, generation=sum(steps[: index + 1])) for index, entry in enumerate(entries)]
    return Snapshot(draw(TEXTS), sum(steps), draw(AMOUNTS), tuple(numbered))


@settings(deadline=None)
@given(snapshots())
def test_what_is_exported_comes_back(snapshot: Snapshot) -> None:
    """As text, and after a round trip through a store."""
    assert parse_snapshot(line.encode() for line in snapshot_lines(snapshot)) == snapshot


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(snapshots())
def test_what_is_imported_is_exported(snapshot: Snapshot) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        perform(path, Import(snapshot))
        assert kept(path) == snapshot


# Notation


@pytest.mark.parametrize(
    ("text", "task_id"),
    [
        ("tea", "tea"),
        ('"tea"', "tea"),
        ("7", 7),
        ("-7", -7),
        ('"7"', "7"),
        ('["reminder", 7]', ("reminder", 7)),
        ("[]", ()),
        ('[["a"], 1]', (("a",), 1)),
        ("2030-01-01", "2030-01-01"),
        ("", ""),
        ("a b", "a b"),
        ("True", "True"),
    ],
)
def test_the_notation_of_ids(text: str, task_id: TaskId) -> None:
    assert parse_id(text) == task_id


@pytest.mark.parametrize("text", ["[a", "{", '"a', "true", "null", "1.5", "{}", '["a", 1.5]', "[" * 100_000])
def test_what_is_no_id_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["durable", "show", "x.db", text])
    assert caught.value.code == 2
    assert "is not an ID: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task_id", "text"),
    [
        ("tea", "tea"),
        ("café", "café"),
        ("", '""'),
        ("a b", '"a b"'),
        ("-x", '"-x"'),
        ("7", '"7"'),
        ("true", '"true"'),
        ("[a", '"[a"'),
        ("a\n", '"a\\n"'),
        (7, "7"),
        (("reminder", 7), '["reminder",7]'),
    ],
)
def test_how_ids_are_shown(task_id: TaskId, text: str) -> None:
    assert format_id(task_id) == text


@given(TASK_IDS)
def test_an_id_that_is_shown_can_be_given(task_id: TaskId) -> None:
    text = format_id(task_id)
    assert parse_id(text) == task_id
    assert text.isprintable()
    arguments = parse_arguments(["durable", "cancel", "x.db", text, text])
    assert isinstance(arguments, DurableArguments)
    assert arguments.task_ids == (task_id, task_id)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["ls"], "the following arguments are required: STORE"),
        (["ls", "mysql://localhost/app"], "expected the path of an SQLite file or postgresql://..., not 'mysql://"),
        (["ls", "x.db", "--prefix", "7"], "expected a string or a list, not '7'"),
        (["cancel", "x.db"], "the following arguments are required: ID"),
        (["import", "x.db"], "the following arguments are required: FILE"),
        (["import", "x.db", "-", "--on-conflict", "merge"], "invalid choice: 'merge'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["durable", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_interrupt(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> Iterator[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("anysched._cli.durable.app.opened", interrupt)
    assert run("ls", path).status == 130


def test_the_reader_of_the_list_closes_it(path: Path) -> None:
    import subprocess

    command = [sys.executable, "-W", "error", "-m", "anysched", "durable", "ls", str(path)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
