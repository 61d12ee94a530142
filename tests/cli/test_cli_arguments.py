"""The arguments: valid ones, and the messages for wrong ones."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anysched._cli.arguments import Arguments, parse_arguments


def test_defaults() -> None:
    assert parse_arguments([]) == Arguments(file="-", backend="asyncio", grace=5.0, demo=False)


def test_all() -> None:
    assert parse_arguments(["x", "--backend=trio", "--grace=inf"]) == Arguments("x", "trio", math.inf, False)
    assert parse_arguments(["run", "x", "--grace=1"]) == Arguments("x", "asyncio", 1, False)
    for argv in (["demo", "--backend", "trio"], ["--demo", "--backend", "trio"]):
        assert parse_arguments(argv) == Arguments("-", "trio", 5, True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--grace", "-1"], "expected a number of seconds, zero or more, not '-1'"),
        (["--grace", "nan"], "expected a number of seconds"),
        (["--grace", "soon"], "expected a number of seconds"),
        (["--backend", "curio"], "invalid choice: 'curio'"),
        (["--demo", "x"], "--demo runs its own schedule"),
        (["--demo", "-"], "--demo runs its own schedule"),
        (["x", "y"], "unrecognized arguments: y"),
    ],
)
def test_wrong_arguments_end_with_status_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_trio_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--backend", "trio"])
    assert caught.value.code == 2
    assert "--backend trio needs trio: pip install 'anysched[trio]'" in capsys.readouterr().err


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as caught:
        parse_arguments([])
    assert caught.value.code == 2
    assert "needs POSIX" in capsys.readouterr().err


def test_help_explains_the_lines_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["run", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert '{"id": ID, "in": SECONDS' in out
    assert "exit status:" in out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--version"])
    assert capsys.readouterr().out == f"anysched {importlib.metadata.version('anysched')}\n"

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("anysched._cli.arguments.version", missing)
    with pytest.raises(SystemExit):
        parse_arguments(["--version"])
    assert capsys.readouterr().out == "anysched (not installed)\n"


VERBS = ("ls", "show", "cancel", "retry", "export", "import")


@pytest.mark.parametrize("columns", [80, 100, 50])
@pytest.mark.parametrize(
    "argv",
    [["--help"], ["run", "--help"], ["crontab", "--help"], ["demo", "--help"], ["durable", "--help"]]
    + [["durable", verb, "--help"] for verb in VERBS],
)
def test_the_help_fits_the_terminal(
    argv: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_arguments(argv)
    lines = capsys.readouterr().out.splitlines()
    examples = {
        line
        for line in lines
        if line.startswith(("  {", "  anysched")) or "exit status 0, or" in line or "ended by" in line
    }
    limit = max(columns, 80) if columns < 80 else columns
    assert all(len(line) <= limit for line in lines)
    assert all(len(line) <= columns for line in lines if not line.startswith("  ") and line not in examples)


def test_without_arguments_a_terminal_shows_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(SystemExit) as caught:
        parse_arguments([])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: anysched ")


@pytest.mark.parametrize(
    ("line", "completions"),
    [("anysched ", {"run", "crontab", "demo", "durable"}), ("anysched crontab x --log-format ", {"text", "json"})],
)
def test_the_shell_completes(line: str, completions: set[str], tmp_path: Path) -> None:
    found = tmp_path / "found"
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(found), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " ",
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "anysched"], env=environment, timeout=30, check=True)
    assert completions <= {word.strip() for word in found.read_text().split(" ")}


def test_the_completion_is_that_of_argcomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    completed: list[argparse.ArgumentParser] = []
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setattr("argcomplete.autocomplete", completed.append)
    parse_arguments(["demo"])
    assert [parser.prog for parser in completed] == ["anysched"]
