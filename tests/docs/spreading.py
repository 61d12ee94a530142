"""A program that spreads work, its workers and servers: each in a process that `test_spreading` starts and kills."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from documentation import ROOT, find_blocks

LIMIT = 90
"""The maximum time to wait for anything, in seconds."""

# What the workers run: it begins, waits until a file exists or it is asked to stop, and ends. Stopping takes a while.
WORK = """
import os
import time
from pathlib import Path

FOLDER = Path(os.environ["SPREADING_FOLDER"])


def note(word, name):
    with (FOLDER / "journal").open("a") as file:
        file.write(f"{word} {name} {os.getpid()}\\n")


def work_until(is_stopped, name):
    note("begin", name)
    if name == "bad":
        raise ZeroDivisionError(name)
    while not (FOLDER / f"{name}.go").exists():
        if is_stopped():
            time.sleep(0.5)
            note("stopped", name)
            return None
        time.sleep(0.05)
    note("end", name)
    return f"{name} done"
"""

# What calls it, with the function of the page.
ENGINES = {
    "process-pool": """
from films import in_process
from work import work_until

async def call(name):
    return await in_process(work_until, bool, name)

class around:
    async def __aenter__(self): pass
    async def __aexit__(self, *_): pass
""",
    "dask": """
import os
from distributed import Client
from films import on_dask
from work import work_until

def work(stop, name):
    return work_until(stop.is_set, name)

async def call(name):
    return await on_dask(work, name)

def around():
    return Client(os.environ["SPREADING_ADDRESS"], asynchronous=True)
""",
    "celery": """
from films import app, is_stopped, on_celery
from work import work_until

@app.task(bind=True)
def work(self, name):
    return work_until(lambda: is_stopped(self), name)

async def call(name):
    return await on_celery(work, name)

class around:
    async def __aenter__(self): pass
    async def __aexit__(self, *_): pass
""",
}

DRIVER = """
import sys

import anyio
from anyio import to_thread
from engine import around, call
from films import films


@films.handler("work")
async def handle(name):
    try:
        result = await call(name)
    except Exception as error:
        print("failed", name, type(error).__name__, flush=True)
    else:
        print("result", name, result, flush=True)


async def main():
    async with around(), films:
        print("ready", flush=True)
        while line := (await to_thread.run_sync(sys.stdin.readline)).split():
            if line[0] == "schedule":
                await films.schedule(line[1], handle, line[2])
            else:
                await films.cancel(line[1])
            print("ok", flush=True)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
"""


class Program:
    """A process whose output is read line by line."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=folder,
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("")

    def expect(self, line: str) -> None:
        """Wait for a line."""
        found = self.lines.get(timeout=LIMIT)
        assert found == line, self.text_of_log()

    def ask(self, line: str) -> None:
        """Send a command and wait for the reply."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.expect("ok")

    def text_of_log(self) -> str:
        return Path(self.log.name).read_text("utf-8", "replace")

    def end(self) -> None:
        """Let it close."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(LIMIT) == 0, self.text_of_log()
        self.kill()

    def kill(self) -> None:
        """Kill it, with what it has started in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self.reader.join(LIMIT)
        for file in (self.process.stdin, self.process.stdout, self.log):
            assert file is not None
            with suppress(BrokenPipeError):
                file.close()


class Spreading:
    """What a test starts, in a folder.

    Attributes:
        name: The name of the page.
        folder: The folder.
        workers: The processes of the workers.
    """

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.folder = folder
        self.stack = stack
        self.workers: list[Program] = []
        self.environment = {"SPREADING_FOLDER": str(folder), "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
        (block,) = [block for block in find_blocks(ROOT / "docs" / "how-to" / f"{name}.md") if "app" in block.words]
        self.code = block.code
        self.replace("5.0)", "0.5)")  # how long it takes to render
        for module, code in {"work": WORK, "engine": ENGINES[name], "driver": DRIVER}.items():
            (folder / f"{module}.py").write_text(code, "utf-8")

    def replace(self, old: str, new: str) -> None:
        """Change the program of the page."""
        assert self.code.count(old) == 1
        self.code = self.code.replace(old, new)
        (self.folder / "films.py").write_text(self.code, "utf-8")

    def start(self, *command: str) -> Program:
        """Start a process, which is killed at the end of the test."""
        program = Program([sys.executable, *command], self.folder, self.environment)
        self.stack.callback(program.kill)
        return program

    def start_driver(self, backend: str) -> Program:
        """Start the program that schedules."""
        driver = self.start("driver.py", backend)
        driver.expect("ready")
        return driver

    def journal(self) -> list[list[str]]:
        """Return the records of the workers."""
        path = self.folder / "journal"
        return [line.split() for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def wait_for(self, word: str, name: str, count: int = 1) -> int:
        """Wait until workers have recorded something a number of times; return the process of the last one."""

        def find() -> int:
            found = [int(process) for *entry, process in self.journal() if entry == [word, name]]
            return found[-1] if len(found) >= count else 0

        process: int = wait_until(find)
        return process

    def finish(self, name: str) -> None:
        """Let work end."""
        (self.folder / f"{name}.go").touch()


def wait_until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds; return its value."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def start_process_pool(spreading: Spreading) -> None:
    """Needs nothing: the program has its own processes."""


def start_dask(spreading: Spreading) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    spreading.environment["SPREADING_ADDRESS"] = address
    spreading.start("-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    wait_until(lambda: is_listening(port))
    for _ in range(2):
        options = ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
        spreading.workers.append(spreading.start("-m", "dask", "worker", address, *options))


def start_celery(spreading: Spreading, server: str) -> None:
    port = free_port()
    redis = subprocess.Popen(
        [server, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(spreading.folder)],
        stdout=subprocess.DEVNULL,
    )
    spreading.stack.callback(redis.wait)
    spreading.stack.callback(redis.kill)
    wait_until(lambda: is_listening(port))
    spreading.replace("localhost:6379", f"127.0.0.1:{port}")
    spreading.replace("LIMIT = 600", "LIMIT = 20")
    for number in range(2):
        start_celery_worker(spreading, number)


def start_celery_worker(spreading: Spreading, number: int) -> None:
    options = ["--concurrency", "1", "--hostname", f"worker{number}", "--loglevel", "INFO"]
    spreading.workers.append(spreading.start("-m", "celery", "-A", "engine", "worker", *options))


def started(name: str, folder: Path, server: str | None) -> Iterator[Spreading]:
    """Start the workers of an engine, for a fixture."""
    with ExitStack() as stack:
        spreading = Spreading(name, folder, stack)
        if name == "process-pool":
            start_process_pool(spreading)
        elif name == "dask":
            start_dask(spreading)
        else:
            assert server is not None
            start_celery(spreading, server)
        yield spreading
