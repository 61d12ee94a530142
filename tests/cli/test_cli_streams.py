"""Streams that are not read, not blocking, full or closed; signals; and process 1: with real processes on both backends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cli_processes import FAST, MODULE, OnTerminal, Running, Start
from cli_results import plain_lines

pytestmark = pytest.mark.slow

BACKENDS = ("asyncio", "trio")


@pytest.fixture
def start(start_crontab: Start) -> Start:
    return start_crontab


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


def shown_and_not(out: str) -> tuple[int, int]:
    """Return the number of lines of output, and the number that are reported as not shown."""
    shown = len(re.findall(r"line-1 +\| \d+$", out, re.MULTILINE))
    return shown, sum(int(count.replace(",", "")) for count in re.findall(r"# \.\.\. ([\d,]+) lines not shown", out))


# A reader that does not read


def test_output_that_is_not_read_stops_nothing(start: Start) -> None:
    text = "@reboot seq 300000; touch flooded\n* * * * * touch tick; echo tick\n"
    for run in start(text, how=("-c", FAST)):
        wait_for(run.directory / "flooded", run.process)
        for _ in range(2):
            (run.directory / "tick").unlink(missing_ok=True)
            wait_for(run.directory / "tick", run.process)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(timeout=20) == 143
        assert run.process.stderr is not None
        assert re.fullmatch(
            r"anysched: [\d,]+ lines of the report could not be written: it is not read\n", run.process.stderr.read()
        )


def test_a_late_reader_finds_all_events_and_the_number_of_lines_that_are_missing(start: Start) -> None:
    for run in start("@reboot seq 200000; touch flooded\n"):
        wait_for(run.directory / "flooded", run.process)
        time.sleep(0.1)
        run.read_until("line-1 running")
        run.read_until("line-1 finished")
        status, _, err = run.end()
        assert (status, err) == (143, "")
        shown, missing = shown_and_not("\n".join(line.rstrip() for line in run.lines))
        assert missing > 0
        assert shown + missing == 200_000


def test_a_terminal_that_is_stopped_stops_nothing(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    terminal = on_terminal("@reboot touch first; sleep 0.2; echo out; touch second; sleep 60\n")
    terminal.read_until("pid ")
    os.write(terminal.ours, b"\x13")  # Ctrl-S
    while not (tmp_path / "second").exists():
        assert terminal.process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(timeout=20) == 143


# Other streams


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_lost_where_the_output_does_not_block(backend: str, tmp_path: Path) -> None:
    (tmp_path / "crontab").write_text("@reboot seq 50000\n")
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    argv = [sys.executable, *MODULE, "crontab", str(tmp_path / "crontab"), "--backend", backend]
    with os.fdopen(ours, "rb") as reader, subprocess.Popen(argv, stdout=theirs) as process:
        os.close(theirs)
        out = b""
        while b"line-1      finished" not in out:
            time.sleep(0.001)
            out += reader.read1(20_000)
        process.send_signal(signal.SIGTERM)
        out += reader.read()
        assert process.wait(timeout=20) == 143
    shown, missing = shown_and_not(out.decode())
    assert shown + missing == 50_000


def run_cli(
    *argv: str, closed: tuple[int, ...] = (), stdin: str = "", program: tuple[str, ...] = MODULE, **streams: object
) -> tuple[int, str, str]:
    """Run the command line with some standard streams closed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    run = subprocess.run(
        [sys.executable, *program, *argv], input=stdin, text=True, timeout=30, env=environment, check=False,
        preexec_fn=close, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore[call-overload]
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr


@pytest.fixture
def crontab(tmp_path: Path) -> Path:
    path = tmp_path / "crontab"
    path.write_text("@hourly a\n")
    return path


@pytest.mark.parametrize("argv", [("crontab", "FILE"), ("crontab", "FILE", "--test"), ("--demo",), ("FILE",)])
def test_a_closed_standard_output_is_refused(argv: tuple[str, ...], crontab: Path) -> None:
    argv = tuple(str(crontab) if word == "FILE" else word for word in argv)
    message = "anysched: the standard output is closed; to see nothing, redirect it to /dev/null\n"
    assert run_cli(*argv, closed=(1,)) == (2, "", message)


def test_a_closed_standard_error_sends_no_errors_elsewhere(crontab: Path) -> None:
    crontab.write_text("what?\n")
    assert run_cli("crontab", str(crontab), closed=(2,)) == (1, "", "")
    assert run_cli("crontab", str(crontab), closed=(0, 2)) == (1, "", "")
    status, out, err = run_cli(closed=(2,), stdin='what?\n{"id": 1, "run": ["echo", "a"]}\n')
    assert (status, err) == (1, "")
    assert "what" not in out
    assert "1 | a" in plain_lines(out)


def test_a_closed_standard_input_cannot_be_read(crontab: Path) -> None:
    message = "anysched: cannot read the standard input: Bad file descriptor\n"
    assert run_cli("crontab", "-", closed=(0,)) == (2, "", message)
    status, out, err = run_cli("crontab", str(crontab), "--test", closed=(0,))
    assert (status, err) == (0, "")
    assert "1 command" in out


@pytest.mark.parametrize("options", [("--test",), ("--dry-run", "--until", "2100-01-01")])
def test_a_full_disk_is_told(options: tuple[str, ...], crontab: Path) -> None:
    with Path("/dev/full").open("w") as full:
        status, _, err = run_cli("crontab", str(crontab), *options, stdout=full)
    assert (status, err) == (1, "anysched: cannot write to the standard output: No space left on device\n")


@pytest.mark.parametrize("argv", [("--help",), ("--version",), ("crontab", "--help"), ("durable", "ls", "--help")])
def test_help_that_cannot_be_written_is_told(argv: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        status, _, err = run_cli(*argv, stdout=full)
    assert (status, err) == (1, "anysched: cannot write to the standard output: No space left on device\n")


def test_help_whose_reader_has_left_needs_no_message() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    status, _, err = run_cli("--help", stdout=theirs)
    os.close(theirs)
    assert (status, err) == (0, "")


def test_until_the_ends_of_the_calendar(crontab: Path) -> None:
    for until in ("0001-01-01T00:00+14:00", "0001-01-01"):
        options = ("--dry-run", "--until", until, "--zone", "Asia/Tokyo")
        assert run_cli("crontab", str(crontab), *options) == (0, "", "")
    crontab.write_text("0 0 1 1 * a\n")
    for until in ("9999-12-31T23:59-14:00", "9999-12-31T23:59"):
        options = ("--dry-run", "--until", until, "--zone", "America/New_York")
        status, out, err = run_cli("crontab", str(crontab), *options)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1].startswith("9999-01-01T00:00")


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_thread_to_be_had_the_report_is_written_all_the_same(backend: str) -> None:
    program = """
import sys, threading
def refuse(thread): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
from anysched.__main__ import main
sys.exit(main())
"""
    entry = '{"id": "a", "run": ["sh", "-c", "echo out; exit 3"]}'
    status, out, err = run_cli("--backend", backend, program=("-c", program), stdin=entry)
    assert (status, err) == (1, "")
    assert "a | out" in plain_lines(out)
    assert any(line.startswith("a failed exit status 3") for line in plain_lines(out))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ignored_sigchld_is_not_inherited(backend: str) -> None:
    """The system would reap the commands itself, and their exit statuses would be lost."""
    program = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, '-m', 'anysched', *sys.argv[1:]])"
    status, out, _ = run_cli("--backend", backend, program=("-c", program), stdin='{"id": 1, "run": ["false"]}')
    assert status == 1
    assert any(line.startswith("1 failed exit status 1") for line in plain_lines(out))


# Signals


def test_the_state_is_written_to_the_standard_error(start: Start) -> None:
    for run in start("@reboot echo a; sleep 60\n0 0 1 1 * never\n@reboot true\n", "--grace", "0"):
        run.read_until("line-1 | a", "line-3 finished")
        run.process.send_signal(signal.SIGUSR1)
        assert run.process.stderr is not None
        state = [run.process.stderr.readline() for _ in range(3)]
        assert state[0] == "anysched: 1 running, 1 pending\n"
        assert re.fullmatch(r"  line-1      running since \S+ \(\d s\): echo a; sleep 60\n", state[1])
        assert re.fullmatch(r"  line-2      due \S+ \(in .*\): never\n", state[2])
        run.end()


def test_the_state_of_a_schedule(tmp_path: Path) -> None:
    for backend in BACKENDS:
        argv = [sys.executable, *MODULE, "--backend", backend, "--grace", "0"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdin is not None
            process.stdin.write('{"id": "a", "run": ["sleep", "60"]}\n{"id": 7, "in": 90, "run": ["x"]}\n')
            process.stdin.flush()
            Running(process, tmp_path, tmp_path).read_until("a running")
            process.send_signal(signal.SIGUSR1)
            assert process.stderr is not None
            assert process.stderr.readline() == "anysched: 1 running, 1 pending\n"
            assert "running since" in process.stderr.readline()
            assert "(in 1 min 3" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            process.communicate()


def test_the_state_is_also_written_during_the_grace(start: Start) -> None:
    for run in start("@reboot echo a; sleep 60\n", "--grace", "inf"):
        run.read_until("line-1 | a")
        run.process.send_signal(signal.SIGTERM)
        run.read_until("# SIGTERM: 1 running may take any time")
        run.process.send_signal(signal.SIGUSR1)
        assert run.process.stderr is not None
        assert run.process.stderr.readline() == "anysched: 1 running\n"
        status, lines, _ = run.end()
        assert (status, lines[-1]) == (143, "# done: 1 unfinished")


def test_sigusr2_reads_the_file_again(start: Start) -> None:
    for run in start("0 0 1 1 * old\n"):
        run.read_until("line-1 pending")
        run.path.write_text("0 0 1 1 * old\n0 0 1 1 * new\n")
        run.process.send_signal(signal.SIGUSR2)
        run.read_until(f"# SIGUSR2: {run.path} read again: 1 new, 1 unchanged, 0 removed")
        run.end()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGALRM, signal.SIGXCPU, signal.SIGIO])
def test_whatever_signal_ends_it_leaves_no_commands_behind(
    number: signal.Signals, start: Start, gone: Callable[[int], bool]
) -> None:
    for run in start("@reboot echo $$; exec sleep 60\n", "--grace", "0"):
        run.read_until("line-1 |")
        pid = int(run.lines[-1].split()[-1])
        status, lines, err = run.end(number)
        assert (status, err) == (128 + number, "")
        assert lines[-1] == "# done: 1 unfinished"
        assert gone(pid)


def test_sigquit_restores_the_terminal(on_terminal: Callable[..., OnTerminal]) -> None:
    terminal = on_terminal("@reboot sleep 60\n", grace="inf")
    before = termios.tcgetattr(terminal.ours)[3]
    terminal.read_until("pid ")
    assert termios.tcgetattr(terminal.ours)[3] & termios.ECHOCTL == 0  # ^C would be shown in the table
    os.write(terminal.ours, b"\x1c")  # Ctrl-\
    terminal.read_until("SIGQUIT: 1 running")
    os.write(terminal.ours, b"\x1c")
    out = terminal.read_all()
    assert terminal.process.wait(timeout=20) == 131
    assert "^\\" not in out
    assert out.endswith("\x1b[?25h")
    assert before


# Process 1


def in_namespace() -> tuple[str, ...]:
    """Return the command that runs another one as process 1 of its own namespace."""
    for options in (("-fp", "--mount-proc"), ("-rfp", "--mount-proc")):
        with suppress(OSError):
            if subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode == 0:
                return ("unshare", *options)
    pytest.skip("no namespaces here")


ORPHANS = """
for i in 1 2 3 4 5; do (sleep 0.1 & sh -c 'exit 7' &); done
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sleep 0.1
    zombies=$(ps -eo stat= | grep -c '^Z')
    [ $zombies = 0 ] && break
done
echo zombies: $zombies
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_process_1_waits_for_orphans_and_takes_no_status_of_a_command(backend: str, tmp_path: Path) -> None:
    (tmp_path / "orphans").write_text(ORPHANS)
    text = "".join(f"@reboot sleep 0.{number}; exit {number}\n" for number in range(1, 6))
    (tmp_path / "crontab").write_text(f"{text}@reboot sh {tmp_path}/orphans; kill -TERM 1; exit 6\n")
    argv = [*in_namespace(), sys.executable, *MODULE, "crontab", str(tmp_path / "crontab"), "--backend", backend]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (143, "")
    lines = plain_lines(run.stdout)
    assert "line-6 | zombies: 0" in lines
    for number in range(1, 7):
        assert any(line.startswith(f"line-{number} failed exit status {number}") for line in lines)


@pytest.mark.parametrize("backend", BACKENDS)
def test_so_does_a_subreaper(backend: str, tmp_path: Path) -> None:
    program = """
import ctypes, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
from anysched.__main__ import main
sys.exit(main())
"""
    (tmp_path / "crontab").write_text(
        "@reboot (sleep 0.1 & echo $$ > pid); sleep 0.5; ps -o stat= --ppid $PPID | grep -c ^Z; kill -TERM $PPID\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    argv = [sys.executable, "-c", program, "crontab", str(tmp_path / "crontab"), "--backend", backend]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert run.returncode == 143
    assert "line-1 | 0" in plain_lines(run.stdout)


def in_a_shell(on_terminal: Callable[..., OnTerminal], command: str) -> OnTerminal:
    """Start an interactive shell, and in it a command that runs a crontab; wait until its line has started."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    shell = f"import os; os.execv({bash!r}, ['bash', '--norc', '--noprofile', '--noediting', '-i'])"
    terminal = on_terminal("@reboot sleep 60\n", "-c", shell)
    os.write(terminal.ours, f"{command}\n".encode())
    terminal.read_until("pid ")
    return terminal


def test_in_the_background_of_a_shell_it_draws_no_table(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    terminal = in_a_shell(on_terminal, f"{sys.executable} -m anysched crontab {tmp_path}/crontab --grace 0 &")
    os.write(terminal.ours, b"kill %1; wait %1; exit $?\n")
    out = terminal.read_all()
    assert terminal.process.wait(timeout=20) == 143
    assert "done: 1 unfinished" in out
    assert "┏" not in out


def test_in_a_shell_it_is_stopped_and_continued(on_terminal: Callable[..., OnTerminal], tmp_path: Path) -> None:
    """The shell gets the terminal back, and the table is drawn again below the shell's output."""
    terminal = in_a_shell(on_terminal, f"{sys.executable} -m anysched crontab {tmp_path}/crontab --grace 0")
    terminal.read_until("└")
    assert termios.tcgetattr(terminal.ours)[3] & termios.ECHOCTL == 0
    terminal.out = b""
    os.write(terminal.ours, b"\x1a")  # Ctrl-Z
    terminal.read_until("Stopped")
    assert "\x1b[?25h" in terminal.out.decode().partition("Stopped")[0]
    assert termios.tcgetattr(terminal.ours)[3] & termios.ECHOCTL
    terminal.out = b""
    os.write(terminal.ours, b"fg\n")
    terminal.read_until("└")
    assert "\x1b[?25l" in terminal.out.decode()
    os.write(terminal.ours, b"\x03")  # Ctrl-C
    terminal.read_until("done: ")
    os.write(terminal.ours, b"exit $?\n")
    terminal.read_all()
    assert terminal.process.wait(timeout=20) == 130
