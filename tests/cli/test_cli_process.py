"""The command line as a separate process: an input that stays open, signals, a reader that closes the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cli_results import plain_lines

pytestmark = pytest.mark.slow

Start = Callable[..., "list[subprocess.Popen[str]]"]


def feed(process: subprocess.Popen[str], *entries: object) -> None:
    assert process.stdin is not None
    process.stdin.writelines(json.dumps(entry) + "\n" for entry in entries)
    process.stdin.flush()


def read_until(process: subprocess.Popen[str], *texts: str) -> None:
    """Wait until lines with these texts have been reported."""
    assert process.stdout is not None
    missing = set(texts)
    out = ""
    for line in process.stdout:
        out += line
        missing = {text for text in missing if text not in " ".join(line.split())}
        if not missing:
            return
    raise AssertionError(f"{missing} was not reported: {out}")


def test_standard_input_stays_open_and_feeds_lines(start: Start) -> None:
    for process in start():
        feed(process, {"id": "a", "run": ["echo", "first"]})
        read_until(process, "a finished")
        feed(process, {"id": "b", "in": 60, "run": ["echo"]}, {"id": "c", "run": ["sleep", "60"]})
        read_until(process, "c running")
        feed(process, {"cancel": "b"}, {"cancel": "c"})
        read_until(process, "c cancelled ended by SIGTERM")
        assert process.stdin is not None
        process.stdin.write('{"id": "d", "run"')  # half a line
        process.stdin.flush()
        time.sleep(0.05)
        assert process.poll() is None
        out, err = process.communicate(': ["cat"]}')  # and the last one needs no end
        assert (process.returncode, err) == (0, "")
        assert plain_lines(out)[-1] == "# done: 2 finished, 2 cancelled"


def test_many_commands_leave_nothing_behind(start: Start) -> None:
    for process in start():
        descriptors: list[int] = []
        memory: list[int] = []
        for batch in "abcd":
            names = [f"{batch}{number:03}" for number in range(100)]
            feed(process, *({"id": name, "run": ["echo", name]} for name in names))
            read_until(process, *(f"{name} finished" for name in names))
            descriptors.append(len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
            memory.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        assert descriptors == descriptors[:1] * 4
        assert memory[-1] - memory[0] < 4_000_000
        process.communicate()
        assert process.returncode == 0


def test_a_signal_closes_with_a_grace_and_lists_what_did_not_finish(
    start: Start, tmp_path: Path, gone: Callable[[int], bool]
) -> None:
    cases = [(process, number) for number in (signal.SIGINT, signal.SIGTERM) for process in start("--grace", "1")]
    for process, _ in cases:
        feed(
            process,
            {"id": "waits", "in": 3600, "run": ["echo", "never"]},
            {"id": "done", "run": ["true"]},
            {"id": "slow", "run": ["sh", "-c", "echo $$; sleep 60"]},
            {"id": "quick", "run": ["sh", "-c", f"until [ -e {tmp_path}/{process.pid} ]; do sleep 0.02; done"]},
        )
    for process, number in cases:
        read_until(process, "done finished", "slow running", "quick running")
        process.send_signal(number)
        read_until(process, f"# {number.name}: 1 pending dropped, 2 running may take 1 s more")
        (tmp_path / str(process.pid)).touch()
    for process, number in cases:
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (128 + number, "")
        lines = plain_lines(out)
        assert any(line.startswith("quick finished exit status 0") for line in lines)
        assert any(line.startswith("slow cancelled ended by SIGTERM") for line in lines)
        first, second, done = lines[-3:]
        assert first.startswith("waits unfinished pending, due ")
        assert re.search(r" \(in (1 h|59 min .*)\): echo never$", first)
        assert second == "slow unfinished cancelled: sh -c 'echo $$; sleep 60'"
        assert done == "# done: 2 finished, 2 unfinished"
        assert gone(next(int(line.split()[-1]) for line in lines if line.startswith("slow |")))


def test_a_second_signal_cuts_the_grace_short(start: Start) -> None:
    for process in start("--grace", "inf"):
        feed(process, {"id": "a", "run": ["sleep", "60"]})
        read_until(process, "a running")
        process.send_signal(signal.SIGHUP)
        read_until(process, "# SIGHUP: 1 running may take any time")
        process.send_signal(signal.SIGHUP)  # not this one: a terminal may send it twice
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (128 + signal.SIGHUP, "")
        assert plain_lines(out)[-2:] == ["a unfinished cancelled: sleep 60", "# done: 1 unfinished"]


def test_a_signal_that_has_no_meaning_here_ends_it_and_leaves_no_commands_behind(
    start: Start, gone: Callable[[int], bool]
) -> None:
    """A crontab is read again on SIGUSR2."""
    for process in start("--grace", "0"):
        feed(process, {"id": "a", "run": ["sleep", "60"]})
        assert process.stdout is not None
        assert "pending" in process.stdout.readline()
        pid = int(process.stdout.readline().split()[-1])
        process.send_signal(signal.SIGUSR2)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (128 + signal.SIGUSR2, "")
        assert plain_lines(out)[-1] == "# done: 1 unfinished"
        assert gone(pid)


def test_a_broken_pipe_that_is_not_the_report_does_not_end_it(start: Start) -> None:
    """The system sends SIGPIPE, for example, when a browser closes its connection to the page."""
    for process in start():
        feed(process, {"id": "a", "run": ["true"]})
        read_until(process, "a finished")
        process.send_signal(signal.SIGPIPE)
        feed(process, {"id": "b", "run": ["true"]})
        read_until(process, "b finished")
        assert process.communicate(timeout=30)[1] == ""
        assert process.returncode == 0


def test_nohup_is_respected(start: Start) -> None:
    for process in start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)):
        feed(process, {"id": "a", "run": ["sh", "-c", "sleep 0.1; echo alive"]})
        read_until(process, "a running")
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert "a | alive" in plain_lines(out)


def test_a_reader_that_leaves_closes_the_schedule(start: Start, gone: Callable[[int], bool]) -> None:
    for process in start("--grace", "0"):
        feed(process, {"id": "a", "run": ["sleep", "60"]})
        assert process.stdout is not None
        assert "pending" in process.stdout.readline()
        pid = int(process.stdout.readline().split()[-1])
        process.stdout.close()
        feed(process, {"id": "b", "in": 60, "run": ["true"]})
        assert process.wait(timeout=10) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert gone(pid)


def test_a_closed_standard_input(start: Start) -> None:
    for process in start(stdin=None, preexec_fn=lambda: os.close(0)):
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (2, "anysched: cannot open the standard input: Bad file descriptor\n")


def test_what_the_encoding_cannot_express_is_escaped(start: Start) -> None:
    for process in start(env={**os.environ, "PYTHONIOENCODING": "ascii"}):
        out, err = process.communicate('{"id": "größe", "run": ["echo", "ünï"]}\n{"id": "größe", "it": 1}', timeout=10)
        assert (process.returncode, err) == (1, 'anysched: line 2 is malformed, skipped: unknown key: "it"\n')
        assert r"gr\xf6\xdfe | \xfcn\xef" in " ".join(plain_lines(out))


def test_the_demo_shows_it_all_within_five_seconds() -> None:
    argv = [sys.executable, "-W", "error", "-m", "anysched", "--demo", "--backend"]
    demos = [
        subprocess.Popen([*argv, backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for backend in ("asyncio", "trio")
    ]
    for demo in demos:
        with demo:
            out, err = demo.communicate()
        assert (demo.returncode, err) == (0, "")
        # By the due times: how long the processes take to start depends on what else the machine does.
        begin, *due = (datetime.fromisoformat(text) for text in re.findall(r"(?:\A|due )(\d\S+\+00:00)", out))
        begin -= timedelta(seconds=1)  # a line that is due at once is due before it is reported
        assert timedelta(seconds=3) < max(time - begin for time in due) < timedelta(seconds=6)
        lines = plain_lines(out)
        assert {line for line in lines if "|" in line} == {
            "now | no delay: at once",
            "tea | after one second: the tea is ready",
            "backup | copying...",
            "broken | this one fails",
            "report | the second version, in place of the first",
        }
        assert any(line.startswith("report cancelled replaced by line 7") for line in lines)
        assert any(line.startswith("alarm cancelled by line 8") for line in lines)
        assert any(line.startswith("broken failed exit status 3") for line in lines)
        assert lines[-2:] == [
            "# done: 3 finished, 3 cancelled, 1 failed",
            "# demo: one command was meant to fail; the exit status is 0, of a schedule it would be 1",
        ]


def test_the_console_script_is_the_same() -> None:
    from importlib.metadata import entry_points

    from anysched.__main__ import main

    (script,) = entry_points(group="console_scripts", name="anysched")
    assert script.load() is main
