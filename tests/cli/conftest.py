"""Running the command line in this process or in another one, on both backends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_processes import MODULE, OnTerminal, Running, Start
from cli_results import Result

from anysched.__main__ import main


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cli(tmp_path: Path, backend: str, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a schedule from a file in this process."""

    def run(*lines: object, options: tuple[str, ...] = ()) -> Result:
        path = tmp_path / "schedule.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        status = main([str(path), "--backend", backend, *options])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers.

    After a schedule in this process, asyncio leaves SIGPIPE to the system: a later test that writes to a closed pipe
    would end the process.
    """
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def start() -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Start the command line in two processes, one for each backend, which saves time; with warnings as errors."""
    processes: list[subprocess.Popen[str]] = []
    # Each line must be flushed at once, regardless of the environment of the tests.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def run(*options: str, **kwargs: object) -> list[subprocess.Popen[str]]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        kwargs = {**pipes, "text": True, "env": buffered} | kwargs
        for backend in ("asyncio", "trio"):
            argv = [sys.executable, "-W", "error", "-m", "anysched", "--backend", backend, *options]
            processes.append(subprocess.Popen(argv, **kwargs))  # type: ignore[call-overload]
        return processes[-2:]

    yield run
    for process in processes:
        process.kill()
        with process:
            pass


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Return whether a process has ended; this includes zombies that are not ours to reap.

    One that has closed its output needs a moment to end.
    """

    def is_gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return state.stdout.strip()[:1] in ("", "Z")

    def check(pid: int) -> bool:
        for _ in range(100):
            if is_gone(pid):
                return True
            time.sleep(0.02)
        return False

    return check


@pytest.fixture
def start_crontab(tmp_path: Path) -> Iterator[Start]:
    """Run a crontab in two processes, one for each backend, with warnings as errors; their jobs run in HOME."""
    processes: list[subprocess.Popen[str]] = []
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def run(text: str, *options: str, how: tuple[str, ...] = MODULE, **kwargs: object) -> list[Running]:
        runs: list[Running] = []
        for backend in ("asyncio", "trio"):
            directory = tmp_path / f"{backend}-{len(processes)}"
            directory.mkdir()
            path = directory / "crontab"
            path.write_text(text)
            argv = [sys.executable, "-W", "error", *how, "crontab", str(path), "--backend", backend, *options]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            environment = {**buffered, "HOME": str(directory)}
            process = subprocess.Popen(argv, **{**pipes, "env": environment, **kwargs})  # type: ignore[call-overload]
            processes.append(process)
            runs.append(Running(process, path, directory))
        return runs

    yield run
    for process in processes:
        process.kill()
        with process:
            pass


@pytest.fixture
def on_terminal(tmp_path: Path) -> Iterator[Callable[..., OnTerminal]]:
    terminals: list[OnTerminal] = []

    def run(text: str, *how: str, grace: str = "0", nohup: bool = False) -> OnTerminal:
        (tmp_path / "crontab").write_text(text)
        terminals.append(OnTerminal(tmp_path / "crontab", how or MODULE, grace, nohup=nohup))
        return terminals[-1]

    yield run
    for terminal in terminals:
        terminal.process.kill()
        terminal.process.wait()
        with suppress(OSError):
            terminal.close()
