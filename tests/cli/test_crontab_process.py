"""``anysched crontab`` as a separate process: real commands, signals, terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_processes import FAST, MODULE, OnTerminal, Running, Start, waits_for
from cli_results import plain_lines

pytestmark = pytest.mark.slow


@pytest.fixture
def start(start_crontab: Start) -> Start:
    return start_crontab


def test_output_is_passed_on_as_it_comes(start: Start) -> None:
    runs = start(f"@reboot echo one; printf 'tw'; {waits_for('go')}; echo o; echo three >&2; printf four")
    for run in runs:
        run.read_until("line-1 running pid ", "line-1 | one")
        run.touch("go")  # it ends only now
        run.read_until("line-1 | two", "line-1 | three", "line-1 | four", "line-1 finished exit status 0 after ")
        status, lines, err = run.end()
        assert (status, err) == (143, "")
        assert lines == ["# SIGTERM", "# done: 1 finished"]


def test_times_are_in_the_zone_of_the_schedule(start: Start) -> None:
    for run in start("@reboot true\n0 12 1 1 * x\n", "--zone", "Asia/Kolkata"):
        run.read_until("line-1 finished")
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+05:30  line-", line) for line in run.lines)
        assert any("-01-01T12:00:00.000+05:30 (in " in line for line in run.lines)
        run.process.send_signal(signal.SIGTERM)
        run.process.communicate()


def test_how_commands_end_is_told(start: Start) -> None:
    text = "@reboot exit 3\n@reboot kill -9 $$\nSHELL=/no/such/shell\n@reboot x\nSHELL=/bin/sh\nHOME=/no/such/place\n@reboot x"
    for run in start(text):
        run.read_until(
            "line-1 failed exit status 3 after ",
            "line-2 failed ended by SIGKILL after ",
            "line-4 failed cannot be started: No such file or directory: /no/such/shell",
            "# line-7: HOME cannot be entered: No such file or directory: /no/such/place; it runs in /",
            "line-7 failed exit status 127 after ",
        )
        status, lines, err = run.end(signal.SIGINT)
        assert (status, lines[-1], err) == (130, "# done: 4 failed", "")


def test_assignments_and_the_standard_input_reach_the_command(start: Start) -> None:
    text = (
        "GREETING = 'good  day'\n@reboot echo \"$GREETING\"; pwd; cat; echo 100\\%%in put%last\n@reboot cat; echo empty"
    )
    for run in start(text):
        directory = run.directory
        run.read_until(f"line-2 | {directory}", "line-2 | 100%", "line-3 | empty", "line-2 finished", "line-3 finished")
        run.end()
        output = [line.rstrip().partition("| ")[2] for line in run.lines if "line-2      |" in line]
        assert output == ["good  day", str(directory), "in put", "last", "100%"]


def test_a_line_recurs(start: Start) -> None:
    for run in start("* * * * * echo tick\n*/2 * * * * sleep 60", "--grace", "0", how=("-c", FAST)):
        run.read_until("line-2 running")
        for _ in range(3):
            run.read_until("line-1 | tick", "line-1 finished exit status 0")
        status, lines, err = run.end()
        assert (status, err) == (143, "")
        assert "line-2 unfinished cancelled: sleep 60" in lines
        assert "due again" in next(line for line in run.lines if "finished" in line)
        assert sum("line-2      running" in line for line in run.lines) == 1  # however often it was due


def test_a_file_that_is_read_again_leaves_alone_what_runs_and_what_is_the_same(start: Start) -> None:
    job = f"@reboot echo begin; {waits_for('go')}; echo end"
    for run in start(f"{job}\n0 0 1 1 * same\n0 0 1 1 * old\n"):
        run.read_until("line-1 | begin")
        run.rewrite(f"# new\n0 0 1 1 * same\n{job}\n0 0 1 1 * new\n@reboot echo never\n")
        run.read_until(
            "line-3 cancelled removed, due ", "line-3 running line-1 until now", "line-4 pending due ",
            f"# SIGHUP: {run.path} read again: 2 new, 2 unchanged, 1 removed",
        )  # fmt: skip
        run.rewrite("")
        run.read_until(
            "old-line-3 running line-3 until now, removed",
            "read again: 0 new, 0 unchanged, 4 removed (1 of them running, to its end)",
        )
        run.touch("go")
        run.read_until("old-line-3 | end", "old-line-3 finished exit status 0")
        status, lines, err = run.end()
        assert (status, lines[-1], err) == (143, "# done: 1 finished", "")
        assert not any("never" in line and "|" in line for line in run.lines)


def test_a_file_that_is_wrong_when_it_is_read_again_changes_nothing(start: Start) -> None:
    for run in start("0 0 1 1 * same\n"):
        run.read_until("line-1 pending")
        run.rewrite("what?\n0 0 1 1 * same\n")
        run.read_until(f"# SIGHUP: {run.path} is refused, 1 line is wrong; the old schedule stays")
        run.path.unlink()
        run.process.send_signal(signal.SIGHUP)
        run.read_until(f"# SIGHUP: cannot read {run.path}: No such file or directory; the old schedule stays")
        os.mkfifo(run.path)
        run.process.send_signal(signal.SIGHUP)
        run.read_until("only a regular file can be read again; the old schedule stays")
        run.path.unlink()
        run.rewrite("0 0 1 1 * same\n")
        run.read_until("read again: 0 new, 1 unchanged, 0 removed")
        status, _, err = run.end()
        assert status == 143
        assert err.startswith(f"anysched: {run.path}: line 1 is wrong: neither an assignment nor five fields")


def test_lenient_also_when_the_file_is_read_again(start: Start) -> None:
    for run in start("what?\n0 0 1 1 * same\n", "--lenient"):
        run.read_until("line-2 pending")
        run.rewrite("0 0 1 1 * same\nwhat?\n")
        run.read_until("read again: 0 new, 1 unchanged, 0 removed")
        status, _, err = run.end()
        assert (status, err.count("is wrong, skipped: ")) == (143, 2)


def test_a_signal_drains_for_the_grace_and_lists_what_was_stopped(start: Start, gone: Callable[[int], bool]) -> None:
    text = f"@reboot echo slow; sleep 60\n@reboot echo quick; {waits_for('go')}; echo made it\n0 0 1 1 * waits\n"
    for run in start(text, "--grace", "1"):
        run.read_until("line-1 | slow", "line-2 | quick")
        run.process.send_signal(signal.SIGTERM)
        run.read_until("# SIGTERM: 1 pending dropped, 2 running may take 1 s more")
        run.touch("go")
        out, err = run.process.communicate(timeout=30)
        assert (run.process.returncode, err) == (143, "")
        lines = plain_lines(out)
        assert "line-2 | made it" in lines
        assert any(line.startswith("line-2 finished exit status 0") for line in lines)
        assert any(line.startswith("line-1 cancelled ended by SIGTERM") for line in lines)
        assert lines[-2:] == ["line-1 unfinished cancelled: echo slow; sleep 60", "# done: 1 finished, 1 unfinished"]
        (pid,) = (line.split("pid ")[1].split(":")[0] for line in run.lines if "line-1      running" in line)
        assert gone(int(pid))


def test_a_second_signal_cuts_the_grace_short(start: Start) -> None:
    for run in start("@reboot echo a; sleep 60\n", "--grace", "inf"):
        run.read_until("line-1 | a")
        run.process.send_signal(signal.SIGINT)
        run.read_until("# SIGINT: 1 running may take any time")
        run.process.send_signal(signal.SIGHUP)  # not this one
        status, lines, err = run.end(signal.SIGTERM)
        assert (status, err) == (130, "")
        assert lines[-1] == "# done: 1 unfinished"


def test_a_log_for_machines(start: Start) -> None:
    text = "@reboot echo 'hi \xe4'; exit 3\n@reboot kill -15 $$\n0 0 1 1 * x"
    for run in start(text, "--log-format", "json", how=("-X", "utf8", *MODULE)):
        run.read_until('"exit_status": 3', '"signal": "SIGTERM"')
        run.process.send_signal(signal.SIGTERM)
        out, err = run.process.communicate(timeout=30)
        assert (run.process.returncode, err) == (143, "")
        log = [json.loads(line) for line in (*run.lines, *out.splitlines())]
        assert all(entry["time"].endswith("Z") for entry in log)
        told = [entry for entry in log if entry.get("job") == "line-1"]
        assert [entry.get("state") for entry in told] == ["pending", "running", None, "failed"]
        assert {entry["line"] for entry in told} == {1}
        assert {entry["pid"] for entry in told[1:]} == {told[1]["pid"]}
        assert (told[0]["schedule"], told[0]["command"]) == ("@reboot", "echo 'hi \xe4'; exit 3")
        assert told[2]["output"] == "hi \xe4"
        assert told[3]["exit_status"] == 3
        assert 0 <= told[3]["duration"] < 30
        (waits,) = (entry for entry in log if entry.get("job") == "line-3")
        assert waits["due"].endswith("00.000Z")
        assert log[-1]["note"] == "done: 2 failed"


def test_what_recurs_is_told_to_machines(start: Start) -> None:
    for run in start("* * * * * true", "--log-format", "json", how=("-c", FAST)):
        run.read_until('"state": "finished"')
        assert json.loads(run.lines[-1])["next_due"] > json.loads(run.lines[0])["due"]
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(timeout=30) == 143


def test_a_reader_that_leaves_ends_it(start: Start) -> None:
    for run in start(f"@reboot {waits_for('go')}; echo out; sleep 60\n", "--grace", "0"):
        run.read_until("line-1 running")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.touch("go")
        assert run.process.wait(timeout=30) == 128 + signal.SIGPIPE
        assert run.process.stderr is not None
        assert run.process.stderr.read() == ""


def test_a_full_disk_does_not_stop_the_commands(start: Start) -> None:
    with Path("/dev/full").open("w") as full:
        for run in start("@reboot echo a; touch ran; sleep 60\n", "--grace", "0", stdout=full):
            while not (run.directory / "ran").exists():
                assert run.process.poll() is None
                time.sleep(0.01)
            run.process.send_signal(signal.SIGTERM)
            _, err = run.process.communicate(timeout=30)
            assert run.process.returncode == 143
            assert re.fullmatch(
                r"anysched: \d+ lines of the report could not be written: No space left on device\n", err
            )


def test_the_standard_input_cannot_be_read_again(tmp_path: Path) -> None:
    for backend in ("asyncio", "trio"):
        argv = [sys.executable, "-W", "error", "-m", "anysched", "crontab", "-", "--backend", backend]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "HOME": str(tmp_path)}
        ) as process:
            assert process.stdin is not None
            process.stdin.write("@reboot echo a")
            process.stdin.close()
            run = Running(process, tmp_path, tmp_path)
            run.read_until("line-1 | a")
            process.send_signal(signal.SIGHUP)
            run.read_until("# SIGHUP: cannot read the standard input: only a regular file")
            process.send_signal(signal.SIGTERM)


# Terminals


def test_a_terminal_shows_a_live_table(on_terminal: Callable[..., OnTerminal]) -> None:
    terminal = on_terminal(
        "* * * * * echo tick\n@reboot echo once; sleep 60\n0 0 1 1 * never\n", "-c", FAST, grace="inf"
    )
    for text in ("┃", "State", "line-3", "| once", "| tick", "finished"):
        terminal.read_until(text)
    os.write(terminal.ours, b"\x03")  # Ctrl-C reaches us, and not the commands
    terminal.read_until("SIGINT: 2 pending dropped, 1 running may take any time")
    os.write(terminal.ours, b"\x03")
    out = terminal.read_all()
    assert terminal.process.wait(timeout=30) == 130
    assert "unfinished" in out
    assert "\x1b[?25h" in out  # the cursor is back


def test_a_terminal_that_closes_ends_it(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    terminal = on_terminal("@reboot touch ran; sleep 60\n")
    terminal.read_until("pid ")
    terminal.close()
    assert terminal.process.wait(timeout=30) == 128 + signal.SIGHUP


def test_with_a_terminal_that_is_there_the_file_is_read_again(on_terminal: Callable[..., OnTerminal]) -> None:
    terminal = on_terminal("0 0 1 1 * never\n")
    terminal.read_until("pending")
    terminal.process.send_signal(signal.SIGHUP)
    terminal.read_until("0 new, 1 unchanged, 0 removed")


def test_nohup_is_respected(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    terminal = on_terminal(f"@reboot {waits_for('go')}; touch went-on\n", nohup=True)
    terminal.read_until("pid ")
    terminal.close()
    time.sleep(0.1)
    (tmp_path / "go").touch()
    while not (tmp_path / "went-on").exists():
        assert terminal.process.poll() is None
        time.sleep(0.01)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(timeout=30) == 143
