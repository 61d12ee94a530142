"""What other systems lack or do differently, tried here as far as it can be: the tests run on Linux only."""

from __future__ import annotations

import selectors
import subprocess
import sys

import pytest

SELECTORS = sorted(
    name
    for name, value in vars(selectors).items()
    if isinstance(value, type)
    and issubclass(value, selectors.BaseSelector)
    and not name.startswith(("_", "Base", "Default"))
)
"""The selectors of this system. That of Windows, `SelectSelector`, is on all of them."""

MONTH = """
import selectors, sys

selectors.DefaultSelector = getattr(selectors, sys.argv[1])

import anyio
from anysched import Scheduler
from anysched.testing import VirtualClock

clock = VirtualClock(seed=1)

async def read(receive):
    return await receive.receive()

async def main():
    send, receive = anyio.create_memory_object_stream(1)
    async with Scheduler("jobs") as scheduler, receive, send:
        task = scheduler.schedule("read", read, receive)
        scheduler.schedule_later(30 * 86_400, "send", send.send, "rent")
        print(await task, await anyio.to_thread.run_sync(len, "four"), anyio.current_time())

backend, options = clock.backend("asyncio")
anyio.run(main, backend=backend, backend_options=options)
"""

WITHOUT_POSIX = """
import asyncio, importlib, os, pkgutil, signal, subprocess, sys, zoneinfo

import anyio, hypercorn.asyncio, hypercorn.trio, opentelemetry.metrics, pytest, rich.console, starlette.applications, trio

for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "killpg", "pidfd_open", "uname", "waitid", "O_NONBLOCK", "O_CLOEXEC"):
    delattr(os, name)
for name in [name for name in vars(signal) if name.startswith("SIG") and not name.startswith("SIG_")]:
    if name not in ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"):
        delattr(signal, name)
sys.platform = "win32"

import anysched

for module in pkgutil.walk_packages(anysched.__path__, "anysched."):
    if not module.name.startswith("anysched._cli."):
        importlib.import_module(module.name)

from anysched.__main__ import main

try:
    main(sys.argv[1:])
except SystemExit as error:
    print(f"exit status {error.code}")
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", SELECTORS)
def test_virtual_time_works_with_the_selector_of_every_system(name: str) -> None:
    result = run(MONTH, name)
    assert (result.stdout, result.stderr) == ("rent 4 2592000.0\n", "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has what this takes away")
@pytest.mark.parametrize(
    ("arguments", "output", "error"),
    [
        (["--version"], "anysched 0", ""),
        (["crontab", "--help"], "exit status 0", ""),
        (["demo"], "exit status 2", "the command line needs POSIX signals"),
    ],
)
def test_without_posix_all_but_the_command_line_works(arguments: list[str], output: str, error: str) -> None:
    result = run(WITHOUT_POSIX, *arguments)
    assert output in result.stdout, result.stderr
    assert error in result.stderr
    assert "Traceback" not in result.stderr
