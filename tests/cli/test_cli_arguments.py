"""The arguments: what they may be, and what is said when they are wrong."""

from __future__ import annotations

import importlib.metadata
import math
import sys

import pytest

from anysched._cli.arguments import Arguments, parse_arguments


def test_defaults() -> None:
    assert parse_arguments([]) == Arguments(file="-", backend="asyncio", grace=5.0, demo=False)


def test_all() -> None:
    assert parse_arguments(["x", "--backend=trio", "--grace=inf"]) == Arguments("x", "trio", math.inf, False)
    assert parse_arguments(["--demo"]).demo


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
        parse_arguments(["--help"])
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
