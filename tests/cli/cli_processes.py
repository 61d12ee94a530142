"""A crontab that runs in a separate process, with pipes or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cli_results import plain_lines

MODULE = ("-m", "anysched")

# A minute of the wall clock takes a second, so that lines that are due in a few minutes run in a few seconds.
FAST = """
import sys, time
from anysched._core import clock as clock_module

real, begin, system_clock = time.time_ns, time.time_ns(), clock_module.SystemClock
clock_module.SystemClock = lambda monotonic: system_clock(monotonic, lambda: begin + 60 * (real() - begin), 0.02)
from anysched.__main__ import main
sys.exit(main())
"""


class Running:
    """A running crontab and its report so far."""

    def __init__(self, process: subprocess.Popen[str], path: Path, directory: Path) -> None:
        self.process = process
        self.path = path
        self.directory = directory
        self.lines: list[str] = []

    def read_until(self, *texts: str) -> None:
        """Wait until lines with these texts have been reported."""
        assert self.process.stdout is not None
        missing = set(texts)
        while missing:
            line = self.process.stdout.readline()
            assert line, f"{missing} was not reported: {self.lines}"
            self.lines.append(line)
            missing = {text for text in missing if text not in " ".join(line.split())}

    def rewrite(self, text: str) -> None:
        """Change the file and send a signal."""
        self.path.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str], str]:
        """End it by a signal, and return its status, its last lines and its errors."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        self.lines += out.splitlines()
        return self.process.returncode, plain_lines(out), err


Start = Callable[..., "list[Running]"]


def waits_for(name: str) -> str:
    """A command of the shell that waits for a file."""
    return f"until [ -e {name} ]; do sleep 0.02; done"


class OnTerminal:
    """A crontab with its own pseudo-terminal."""

    def __init__(self, path: Path, how: tuple[str, ...], grace: str, *, nohup: bool) -> None:
        self.ours, theirs = pty.openpty()
        # Unbuffered, what cannot be written would not be tried again at exit.
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            "TERM": "xterm-256color",
            "COLUMNS": "100",
            "LINES": "30",
            "HOME": str(path.parent),
        }

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if nohup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *how, "crontab", str(path), "--grace", grace], stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment, start_new_session=True, preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(theirs)
        self.out = b""

    def read_until(self, text: str) -> None:
        while text.encode() not in self.out:
            chunk = b""
            with suppress(OSError):  # Linux's way to say that the other end is closed
                chunk = os.read(self.ours, 65536)
            assert chunk, self.out.decode()
            self.out += chunk

    def read_all(self) -> str:
        with suppress(OSError):
            while chunk := os.read(self.ours, 65536):
                self.out += chunk
        return self.out.decode()

    def close(self) -> None:
        os.close(self.ours)
