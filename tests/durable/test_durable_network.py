"""A machine that vanishes from the network: another one takes over. See `network_cut`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import network
import postgres_server
import pytest

from anysched.durable.postgres import CLIENT_PARAMETERS, SESSION

REASON = postgres_server.reason_to_skip() or network.reason_to_skip()


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_another_machine_takes_over_when_that_of_the_owner_vanishes() -> None:
    """Without limits of our own, TCP would wait for hours, and the program gives up after two minutes."""
    script = str(Path(__file__).with_name("network_cut.py"))
    command = [*network.OWN_NETWORK, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["safe", "prompt", "back", "safe", "prompt"]


def test_an_owner_that_is_cut_off_notices_it_before_the_server() -> None:
    server = {name: int(value) for name, value in re.findall(r"set tcp_(\w+) = '?(\d+)", SESSION)}
    assert server["user_timeout"] == latest(server)
    assert CLIENT_PARAMETERS["tcp_user_timeout"] == 1_000 * latest(CLIENT_PARAMETERS)
    # Packets that are sent after the cut are waited for afresh. The last answer to the server came before the cut, by the idle time
    # at most.
    assert 2 * latest(CLIENT_PARAMETERS) + 1 < latest(server) - server["keepalives_idle"]


def latest(settings: dict[str, int]) -> int:
    """Return when TCP gives up, in seconds after the last answer."""
    idle, interval, count = (settings[f"keepalives_{name}"] for name in ("idle", "interval", "count"))
    return idle + interval * count
