"""The page of the command line: ``--web``."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from anysched.__main__ import main
from anysched._cli import options
from anysched._cli.arguments import Arguments, parse_arguments

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@contextmanager
def served(*arguments: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """Run a command with a page, and yield a client of the page; end it by SIGTERM."""
    command = [sys.executable, "-m", "anysched", *arguments, "--web", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"# the page is (\S+)$", line)
        assert found, line
        with httpx.Client(base_url=found[1], trust_env=False) as client:
            yield client, process
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 128 + signal.SIGTERM, output
        assert errors == ""


def wait_for(client: httpx.Client, status: str, text: str) -> Any:
    """Wait until the page shows a task in a status."""
    for _ in range(300):
        rows = client.get("/api/tasks", params={"status": status}).json()["rows"]
        found = [row for row in rows if row["id"] == text]
        if found:
            return found[0]
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
@BACKENDS
def test_the_demo_runs_on_with_a_page(backend: str) -> None:
    with served("demo", "--backend", backend) as (client, _):
        assert "<title>anysched</title>" in client.get("/").text
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        assert "exit status 3" in wait_for(client, "failed", "broken")["failure"]
        assert wait_for(client, "finished", "tea")


@BACKENDS
def test_a_crontab_with_a_page(backend: str, tmp_path: Path) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text("0 0 1 1 * echo new year\n@reboot exit 3\n@reboot true\n")
    with served("crontab", "--backend", backend, str(crontab)) as (client, _):
        assert wait_for(client, "pending", "echo new year")
        assert "exit status 3" in wait_for(client, "failed", "exit 3")["failure"]
        assert wait_for(client, "finished", "true")


@BACKENDS
@pytest.mark.parametrize("command", ["run", "crontab"])
def test_an_address_that_is_taken(
    command: str, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "schedule"
    file.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([command, "--backend", backend, "--web", f"127.0.0.1:{port}", str(file)]) == 2
    assert f"cannot serve the page on 127.0.0.1:{port}: " in "".join(capsys.readouterr())


@pytest.mark.parametrize("address", ["8080", "localhost", ":8080", "localhost:", "localhost:x", "::1:80", "host:65536"])
def test_what_is_not_an_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["run", "--web", address, "schedule"])
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_the_demo_needs_no_address() -> None:
    demo, silent = parse_arguments(["demo", "--web"]), parse_arguments(["demo"])
    run = parse_arguments(["run", "--web", "example.org:80", "schedule"])
    assert isinstance(demo, Arguments)
    assert isinstance(silent, Arguments)
    assert isinstance(run, Arguments)
    assert (demo.web, silent.web, run.web) == (("127.0.0.1", 8080), None, ("example.org", 80))


def test_what_it_needs_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None if name == "hypercorn" else True)
    with pytest.raises(SystemExit):
        parse_arguments(["run", "--web", "localhost:80", "schedule"])
    assert "pip install 'anysched[web]'" in capsys.readouterr().err
