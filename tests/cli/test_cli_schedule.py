"""Schedules from files, run in this process: their reports and exit statuses."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_results import Result, plain_lines

from anysched._cli import buffers, demo, subprocesses
from anysched._cli.app import run
from anysched._cli.arguments import Arguments

Cli = Callable[..., Result]


def states(result: Result, task_id: str) -> list[str]:
    return [line.split()[1] for line in result.lines if line.split()[0] == task_id]


def test_output_and_exit_status_are_reported_when_a_command_ends(cli: Cli) -> None:
    result = cli({"id": "a", "run": ["sh", "-c", "echo one; echo two >&2; printf three"]})
    assert result.status == 0
    pending, running, *output, finished, done = result.lines
    assert pending.startswith("a pending due ")
    assert pending.endswith("+00:00: sh -c 'echo one; echo two >&2; printf three'")
    assert running.startswith("a running pid ")
    assert output == ["a | one", "a | two", "a | three"]
    assert finished.startswith("a finished exit status 0 after 0.")
    assert done == "# done: 1 finished"
    assert result.err == ""


@pytest.mark.slow
def test_each_command_starts_when_it_is_due(cli: Cli) -> None:
    at = datetime.now(UTC) + timedelta(seconds=0.6)
    begin = time.monotonic()
    result = cli(
        {"id": "late", "in": 0.9, "run": ["true"]},
        {"id": "at", "at": at.isoformat(), "run": ["true"]},
        {"id": "past", "at": "2001-01-01T00:00:00Z", "run": ["true"]},
        {"id": "soon", "in": 0.3, "run": ["true"]},
    )
    assert time.monotonic() - begin >= 0.9
    assert result.status == 0
    assert [line.split()[0] for line in result.lines if " running " in line] == ["past", "soon", "at", "late"]


def test_malformed_lines_are_reported_with_their_number_and_skipped(cli: Cli) -> None:
    result = cli(b"", {"id": "a", "run": ["echo", "hello"]}, b"what?", {"id": 1, "run": []}, {"cancel": True})
    assert result.status == 1
    assert result.err.splitlines() == [
        "anysched: line 3 is malformed, skipped: not JSON: Expecting value, at column 1",
        'anysched: line 4 is malformed, skipped: "run" is empty: it must name a command',
        'anysched: line 5 is malformed, skipped: "cancel" must be a string or a whole number, not true',
    ]
    assert "a | hello" in result.lines
    assert result.lines[-1] == "# done: 1 finished, 3 malformed lines skipped"


def test_one_malformed_line_is_enough_for_status_1(cli: Cli) -> None:
    result = cli(b"what?")
    assert (result.status, result.lines) == (1, ["# done: 1 malformed line skipped"])


def test_nothing_to_do(cli: Cli) -> None:
    result = cli()
    assert (result.status, result.lines) == (0, ["# done: nothing to do"])


def test_a_failing_command_does_not_stop_the_others(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = cli(
            {"id": "bad", "run": ["sh", "-c", "echo oh >&2; exit 3"]},
            {"id": "killed", "run": ["sh", "-c", "kill -9 $$"]},
            {"id": "good", "in": 0.1, "run": ["true"]},
        )
    assert result.status == 1
    assert states(result, "bad") == ["pending", "running", "|", "failed"]
    assert any(line.startswith("bad failed exit status 3 after ") for line in result.lines)
    assert any(line.startswith("killed failed ended by SIGKILL after ") for line in result.lines)
    assert states(result, "good")[-1] == "finished"
    assert result.lines[-1] == "# done: 2 failed, 1 finished"
    assert result.err == ""
    assert caplog.records == []  # it is reported: the library has nothing to log


def test_a_command_that_cannot_be_started_has_failed(
    cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_text("no program")
    result = cli(
        {"id": "missing", "run": ["no-such-command-here", "x"]},
        {"id": "data", "run": [str(tmp_path / "data")]},
        {"id": "nul", "run": ["echo", "\0"]},
        {"id": "surrogate", "run": ["echo", "\ud800"]},
    )
    assert result.status == 1
    assert "missing failed cannot be started: No such file or directory: no-such-command-here" in result.lines
    assert f"data failed cannot be started: Permission denied: {tmp_path / 'data'}" in result.lines
    assert "nul failed cannot be started: embedded null byte" in result.lines
    assert any(line.startswith("surrogate failed cannot be started: ") for line in result.lines)
    assert result.lines[-1] == "# done: 4 failed"
    assert (result.err, caplog.records) == ("", [])


def test_a_new_line_replaces_a_pending_task(cli: Cli) -> None:
    result = cli({"id": "a", "in": 60, "run": ["echo", "first"]}, {"id": "a", "run": ["echo", "second"]})
    assert result.status == 0
    assert states(result, "a") == ["pending", "cancelled", "pending", "running", "|", "finished"]
    assert result.lines[1].startswith("a cancelled replaced by line 2, due ")
    assert "a | second" in result.lines
    assert result.lines[-1] == "# done: 1 cancelled, 1 finished"


def test_a_new_line_replaces_a_running_task_which_ends_first(
    cli: Cli, backend: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = 'trap "echo bye; exit 0" TERM; echo hello; sleep 30 & wait'
    monkeypatch.setattr(
        demo,
        "SAMPLE",
        (
            (0.0, b'{"id": "a", "run": ["sh", "-c", "%s"]}' % first.replace('"', '\\"').encode()),
            (0.3, b'{"id": "a", "run": ["echo", "second"]}'),
        ),
    )
    status = run(Arguments("-", backend, 5, demo=True))  # type: ignore[arg-type]
    result = Result(status, *capfd.readouterr())
    assert status == 0
    assert states(result, "a") == [
        "pending", "running", "cancelling", "pending", "|", "|", "cancelled", "running", "|", "finished",
    ]  # fmt: skip
    assert "a cancelling replaced by line 2" in result.lines
    assert [line for line in result.lines if "|" in line] == ["a | hello", "a | bye", "a | second"]


def test_a_cancel_line_drops_a_pending_task(cli: Cli) -> None:
    result = cli({"id": 1, "in": 60, "run": ["echo"]}, {"id": "1", "run": ["echo", "other"]}, {"cancel": 1})
    assert result.status == 0
    assert states(result, "1") == ["pending", "cancelled"]
    assert '"1" | other' in result.lines  # the number and the string are two IDs, and shown as such


def test_nothing_to_cancel_is_told_and_no_failure(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    result = cli({"cancel": "x y"})
    assert result.status == 0
    assert result.lines[0] == '# line 1: nothing to cancel, no task holds the ID "x y"'
    assert caplog.records == []


def feed_when(ready: Callable[[], bool], first: bytes, then: bytes) -> Iterator[tuple[float, bytes]]:
    """Two lines: the second one when the command of the first is ready, however busy the machine is."""
    yield 0.0, first
    tries = 0
    while not ready():
        tries += 1
        assert tries < 1500
        yield 0.02 * tries, b""  # blank lines are nothing
    yield 0.0, then


def test_cancelling_terminates_all_processes_and_keeps_the_output(
    backend: str, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, gone: Callable[[int], bool],
) -> None:  # fmt: skip
    command = f"sleep 60 & echo $! > {tmp_path}/child; echo so far; echo $$ > {tmp_path}/shell; wait"
    shell = tmp_path / "shell"
    sample = feed_when(
        lambda: shell.exists() and bool(shell.read_text()),
        b'{"id": "a", "run": ["sh", "-c", "%s"]}' % command.encode(),
        b'{"cancel": "a"}',
    )
    monkeypatch.setattr(demo, "SAMPLE", sample)
    begin = time.monotonic()
    assert run(Arguments("-", backend, 5, demo=True)) == 0  # type: ignore[arg-type]
    assert time.monotonic() - begin < 30  # and not a minute
    lines = plain_lines(capfd.readouterr().out)
    assert any(line.startswith("a cancelling by line ") for line in lines)
    assert "a | so far" in lines
    assert any(line.startswith("a cancelled ended by SIGTERM after ") for line in lines)
    assert all(gone(int((tmp_path / name).read_text())) for name in ("child", "shell"))


def test_what_does_not_terminate_is_killed(
    backend: str, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, gone: Callable[[int], bool],
) -> None:  # fmt: skip
    monkeypatch.setattr(subprocesses, "TERMINATE_TIMEOUT", 0.2)
    command = f"trap '' TERM; echo stubborn; echo $$ > {tmp_path}/shell; sleep 60; sleep 60"
    shell = tmp_path / "shell"
    sample = feed_when(
        lambda: shell.exists() and bool(shell.read_text()),
        b'{"id": "a", "run": ["sh", "-c", "%s"]}' % command.encode(),
        b'{"cancel": "a"}',
    )
    monkeypatch.setattr(demo, "SAMPLE", sample)
    assert run(Arguments("-", backend, 5, demo=True)) == 0  # type: ignore[arg-type]
    lines = plain_lines(capfd.readouterr().out)
    assert "a | stubborn" in lines
    assert any(line.startswith("a cancelled ended by SIGKILL after ") for line in lines)
    assert gone(int((tmp_path / "shell").read_text()))


# The lowest anyio leaves the pipe that is held open to the garbage collector, and to this test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_process_that_left_the_group_cannot_hold_up_the_end(
    backend: str, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocesses, "TERMINATE_TIMEOUT", 0.2)
    monkeypatch.setattr(subprocesses, "DRAIN_TIMEOUT", 0.1)
    left = tmp_path / "left"
    program = (
        "import subprocess, time; subprocess.Popen(['sleep', '20'], start_new_session=True); "
        f"open('{left}', 'w').close(); time.sleep(60)"
    )
    sample = feed_when(
        left.exists,
        b'{"id": "a", "run": ["%s", "-S", "-c", "%s"]}' % (sys.executable.encode(), program.encode()),
        b'{"cancel": "a"}',
    )
    monkeypatch.setattr(demo, "SAMPLE", sample)
    begin = time.monotonic()
    assert run(Arguments("-", backend, 5, demo=True)) == 0  # type: ignore[arg-type]
    assert time.monotonic() - begin < 15  # and not the 20 seconds for which the other one holds the pipe
    assert "a cancelled ended by SIGTERM" in "\n".join(plain_lines(capfd.readouterr().out))
    gc.collect()


def test_a_long_output_is_cut_at_its_beginning(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "OUTPUT_LIMIT", 10)
    result = cli(
        {"id": "a", "run": ["sh", "-c", "echo 0123456; sleep 0.05; echo 789; sleep 0.05; echo; echo abcdef; echo XYZ"]}
    )
    output = [line for line in result.lines if "|" in line.split()[1]]
    assert output == ["a | ... (14 bytes before this were left out)", "a | bcdef", "a | XYZ"]


def test_output_just_over_the_limit_is_cut_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "OUTPUT_LIMIT", 10)
    result = cli({"id": "a", "run": ["printf", "0123456789ab"]})
    assert "a | 23456789ab" in result.lines


def test_output_that_is_no_text_is_escaped(cli: Cli) -> None:
    result = cli({"id": "a", "run": ["printf", r"\377\n"]})
    assert r"a | \xff" in result.lines


def test_real_time_signals_have_no_name(cli: Cli) -> None:
    result = cli({"id": "a", "run": ["sh", "-c", "kill -40 $$"]})
    assert any(line.startswith("a failed ended by signal 40 after ") for line in result.lines)


def test_the_schedule_cannot_be_opened(backend: str, cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(Arguments("/no/such/file", backend, 5, demo=False)) == 2  # type: ignore[arg-type]
    assert capfd.readouterr().err == "anysched: cannot open /no/such/file: No such file or directory\n"


def test_the_schedule_cannot_be_read(backend: str, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(Arguments(str(tmp_path), backend, 5, demo=False)) == 2  # type: ignore[arg-type]
    assert capfd.readouterr().err == "anysched: the schedule cannot be read after line 0: Is a directory\n"


def test_an_interrupt_outside_of_the_session_gives_no_traceback(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anysched._cli.app.anyio.run", interrupt)
    result = cli({"id": "a", "run": ["true"]})
    assert (result.status, result.out, result.err) == (130, "", "")


def test_a_line_that_is_too_long_is_malformed(cli: Cli) -> None:
    result = cli(b'{"id": "a", "run": ["true"]}', b"x" * 1_100_000, {"id": "b", "run": ["true"]})
    assert (result.status, result.err) == (1, "anysched: line 2 is malformed, skipped: longer than 1,048,576 bytes\n")
    assert result.lines[-1] == "# done: 2 finished, 1 malformed line skipped"
