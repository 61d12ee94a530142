"""``anysched crontab`` in this process: its arguments, checks, output and refusals."""

from __future__ import annotations

import io
import json
import math
import os
import pwd
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import time_machine

from anysched.__main__ import main
from anysched._cli.arguments import parse_arguments
from anysched._cli.crontab import zones
from anysched._cli.crontab.arguments import CrontabArguments
from anysched._cli.crontab.environment import is_current_user, job_environment

Crontab = Callable[..., "tuple[int, str, str]"]

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def crontab(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Crontab:
    """Run `anysched crontab` with options."""

    def run(text: str, *options: str) -> tuple[int, str, str]:
        path = tmp_path / "crontab"
        path.write_text(text)
        status = main(["crontab", str(path), "--utc", *options])
        out, err = capfd.readouterr()
        return status, out.replace(str(path), "FILE"), err.replace(str(path), "FILE")

    return run


# Arguments


def test_defaults() -> None:
    assert parse_arguments(["crontab", "x"]) == CrontabArguments(
        file="x", backend="asyncio", grace=5.0, zone=None, system=False, lenient=False, log_format="text", test=False,
        strict=False, dry_run=False, until=None,
    )  # fmt: skip


def test_all() -> None:
    argv = "- --backend trio --grace inf --zone Europe/Paris --system --lenient --log-format json --dry-run --until 2030-01-01"
    paris = ZoneInfo("Europe/Paris")
    assert parse_arguments(["crontab", *argv.split()]) == CrontabArguments(
        "-", "trio", math.inf, paris, True, True, "json", False, False, True, datetime(2030, 1, 1)
    )
    options = parse_arguments(["crontab", "x", "--utc", "--test", "--strict"])
    assert isinstance(options, CrontabArguments)
    assert (options.zone, options.strict) == (UTC, True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: FILE"),
        (["x", "--zone", "Mars/Base"], "unknown time zone 'Mars/Base'"),
        (["x", "--utc", "--zone", "UTC"], "not allowed with argument --utc"),
        (["x", "--dry-run"], "--dry-run and --until TIME require each other"),
        (["x", "--until", "2030-01-01"], "--dry-run and --until TIME require each other"),
        (["x", "--dry-run", "--until", "soon"], "expected a time in ISO 8601, not 'soon'"),
        (["x", "--test", "--dry-run"], "not allowed with argument --test"),
        (["x", "--grace", "-1"], "expected a number of seconds"),
    ],
)
def test_wrong_arguments_end_with_status_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["crontab", *argv])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "usage: anysched crontab" in err
    assert message in err


@pytest.mark.parametrize(
    ("module", "argv", "message"),
    [
        ("cronsim", ["x"], "crontab needs cronsim: pip install 'anysched[cli]'"),
        ("cronsim", ["x", "--zone", "Europe/Paris"], "needs cronsim: pip install 'anysched[cron]'"),
        ("trio", ["x", "--backend", "trio"], "--backend trio needs trio: pip install 'anysched[trio]'"),
    ],
)
def test_what_is_missing_is_named(
    module: str, argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "anysched.cron", raising=False)
    with pytest.raises(SystemExit) as caught:
        main(["crontab", *argv])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, texts in (
        (["crontab", "--help"], ["crontab(5)", "SIGHUP", "exit status:"]),
        (["--help"], ["run a crontab in the foreground"]),
    ):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert all(text in out for text in texts)


def test_all_options_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["crontab", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (Path(__file__).parents[2] / "docs" / "crontab.md").read_text()
    assert {"--test", "--zone"} < options
    assert {option for option in options if f"{option} " not in page and f"{option}`" not in page} == set()


# --test


def test_a_good_file(crontab: Crontab) -> None:
    assert crontab("A=1\n@daily a\n* * * * * b", "--test") == (0, "FILE: 2 commands, and nothing is run\n", "")
    assert crontab("@daily a", "--test")[1] == "FILE: 1 command, and nothing is run\n"


WRONG = "@daily a\nwhat?\n60 * * * * b\n@hourly c"


def test_a_wrong_line_refuses_the_file(crontab: Crontab) -> None:
    for options in ((), ("--test",), ("--dry-run", "--until", "2030-01-01")):
        status, out, err = crontab(WRONG, *options)
        assert (status, out) == (1, "")
        assert err.splitlines() == [
            "anysched: FILE: line 2 is wrong: neither an assignment nor five fields and a command: 'what?'",
            "anysched: FILE: line 3 is wrong: bad minute in '60 * * * *'",
            "anysched: FILE is refused, 2 lines are wrong",
        ]
    assert crontab("what?")[2].splitlines()[-1] == "anysched: FILE is refused, 1 line is wrong"


def test_lenient_skips_it(crontab: Crontab) -> None:
    status, out, err = crontab(WRONG, "--test", "--lenient")
    assert (status, out) == (0, "FILE: 2 commands, and nothing is run\n")
    assert err.splitlines()[1] == "anysched: FILE: line 3 is wrong, skipped: bad minute in '60 * * * *'"
    assert len(err.splitlines()) == 2


def test_a_system_crontab_is_refused_unless_it_is_for_the_current_user(crontab: Crontab) -> None:
    assert crontab(f"@daily {ME} a", "--test", "--system")[0] == 0
    status, _, err = crontab("@daily no-such-user-here a", "--test", "--system")
    assert status == 1
    assert "line 1 is wrong: it must run as 'no-such-user-here', and this process runs as another user" in err
    status, out, _ = crontab(f"@daily {ME} a\n@daily no-such-user-here b", "--test", "--system", "--lenient")
    assert (status, out) == (0, "FILE: 1 command, and nothing is run\n")


def test_a_file_that_cannot_be_read(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["crontab", "/no/such/file", "--utc"]) == 2
    assert capfd.readouterr().err == "anysched: cannot read /no/such/file: No such file or directory\n"
    assert main(["crontab", str(tmp_path), "--utc"]) == 2
    assert capfd.readouterr().err == f"anysched: cannot read {tmp_path}: Is a directory\n"


def test_the_standard_input(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"what?")))
    assert main(["crontab", "-", "--test", "--utc"]) == 1
    assert "anysched: the standard input is refused, 1 line is wrong" in capfd.readouterr().err


def test_a_zone_that_cannot_be_found_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "crontab").write_text("")
    monkeypatch.setenv("TZ", "Mars/Base")
    assert main(["crontab", str(tmp_path / "crontab"), "--test"]) == 0
    assert "the time zone of this machine is unknown (TZ=Mars/Base" in capfd.readouterr().err
    monkeypatch.delenv("TZ")
    monkeypatch.setattr(zones, "LOCALTIME", "/no/such/file")
    assert main(["crontab", str(tmp_path / "crontab"), "--test", "--zone", "Europe/Paris"]) == 0
    assert capfd.readouterr().err == ""


def test_a_suspicious_line_is_told_and_with_strict_it_fails(crontab: Crontab) -> None:
    text = "@daily a\n0 0 * * * * b"
    warning = "anysched: FILE: line 2: warning: the command begins with '*', which looks like a sixth field: there are five, none of them for seconds or years\n"
    assert crontab(text, "--test") == (0, "FILE: 2 commands, and nothing is run\n", warning)
    assert crontab(text, "--test", "--strict") == (1, "", warning)
    assert crontab("@daily a", "--test", "--strict")[0] == 0
    with pytest.raises(SystemExit):
        crontab(text, "--strict")


# --dry-run


@time_machine.travel("2030-01-01T00:00:00Z", tick=False)
def test_a_dry_run_prints_the_next_runs(crontab: Crontab) -> None:
    text = "0 */12 * * * a\n# no\n30 7 * * * b\\%"
    status, out, err = crontab(text, "--dry-run", "--until", "2030-01-02")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "2030-01-01T07:30+00:00  line-3      b%",
        "2030-01-01T12:00+00:00  line-1      a",
        "2030-01-02T00:00+00:00  line-1      a",
    ]
    status, out, _ = crontab(text, "--dry-run", "--until", "2030-01-01T08:00", "--log-format", "json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"time": "2030-01-01T07:30:00.000Z", "job": "line-3", "line": 3, "schedule": "30 7 * * *", "command": "b%"}
    ]


@time_machine.travel("2030-01-01T00:00:00Z", tick=False)
def test_until_when_is_in_the_zone_of_the_times(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "crontab").write_text("@hourly a")
    argv = ["crontab", str(tmp_path / "crontab"), "--zone", "Europe/Paris", "--dry-run", "--until"]
    for until in ("2030-01-01T02:00", "2030-01-01T01:00Z"):
        assert main([*argv, until]) == 0
        assert capfd.readouterr().out == "2030-01-01T02:00+01:00  line-1      a\n"


def test_a_reader_that_leaves_ends_the_dry_run(crontab: Crontab, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert crontab("@hourly a", "--dry-run", "--until", "9999-12-31")[0] == 141


def test_an_interrupt_outside_of_the_session_gives_no_traceback(
    crontab: Crontab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anysched._cli.crontab.app.anyio.run", interrupt)
    assert crontab("@daily a") == (130, "", "")


# Users


def test_who_is_the_current_user() -> None:
    assert is_current_user(ME)
    assert not is_current_user("no-such-user-here")


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", missing)
    monkeypatch.setenv("LOGNAME", "inherited")
    monkeypatch.delenv("HOME")
    environment = job_environment([("A", "1")])
    assert (environment["LOGNAME"], environment["HOME"], environment["A"]) == ("inherited", "/", "1")


def test_the_user_is_not_for_the_crontab_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "inherited")
    assert job_environment([])["USER"] == job_environment([])["LOGNAME"] == ME
    environment = job_environment([("LOGNAME", "a"), ("USER", "a")])
    assert (environment["LOGNAME"], environment["USER"]) == (ME, "a")
