"""Machines in a network that exists only for a test: network namespaces of Linux, plugged into a switch.

The test itself must run in a separate namespace (`OWN_NETWORK`), in which the server listens on `ADDRESS`. Everything is
gone when the process that made it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from postgres_server import PostgresServer
from psycopg.conninfo import make_conninfo

ADDRESS = "192.0.2.254"
"""The address of the process that makes the network; this range is for documentation, and routed nowhere."""

OWN_NETWORK = ("unshare", "--net")

PROBE = "ip link add switch type bridge && ip link add plug1 type veth peer name socket1"


def reason_to_skip() -> str | None:
    """Return why there cannot be a network."""
    if sys.platform != "linux":
        return "network namespaces are of Linux"
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    probe = subprocess.run([*OWN_NETWORK, "sh", "-c", PROBE], capture_output=True, text=True, check=False)
    return f"network namespaces are not permitted: {probe.stderr.strip()}" if probe.returncode else None


class Machine:
    """A machine with a cable to the switch.

    Args:
        number: Which one, from 1.
    """

    def __init__(self, number: int) -> None:
        self.plug = f"plug{number}"
        # It keeps the namespace as long as this process lives, even if that is killed.
        self.keeper = subprocess.Popen([*OWN_NETWORK, "cat"], stdin=subprocess.PIPE)
        namespace = Path(f"/proc/{self.keeper.pid}/ns/net")
        while namespace.readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.001)
        self.enter = ("nsenter", f"--net={namespace}")
        run("ip", "link", "add", self.plug, "type", "veth", "peer", "name", f"socket{number}")
        run("ip", "link", "set", f"socket{number}", "netns", str(self.keeper.pid))
        run("ip", "link", "set", self.plug, "master", "switch", "up")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        run(*self.enter, "ip", "address", "add", f"192.0.2.{number}/24", "dev", f"socket{number}")
        run(*self.enter, "ip", "link", "set", f"socket{number}", "up")

    def command(self, *arguments: str) -> Sequence[str]:
        """Return a command that runs another one on the machine."""
        return (*self.enter, *arguments)

    def cut(self) -> None:
        """Pull the plug: neither side is told, and all packets are lost."""
        run("ip", "link", "set", self.plug, "down")

    def mend(self) -> None:
        """Put the plug back."""
        run("ip", "link", "set", self.plug, "up")

    def stop(self) -> None:
        """Remove the machine."""
        assert self.keeper.stdin is not None
        with suppress(OSError):
            self.keeper.stdin.close()
        self.keeper.wait()


class Network:
    """A switch with some machines."""

    def __init__(self, machines: int) -> None:
        self.count = machines
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "switch", "type", "bridge")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", "switch")
        run("ip", "link", "set", "switch", "up")
        self.machines += [Machine(number) for number in range(1, self.count + 1)]
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.stop()

    def new_server(self) -> PostgresServer:
        """Make a server that also listens on `ADDRESS`."""
        return PostgresServer(listen_addresses=f"127.0.0.1,{ADDRESS}")

    def new_database(self, server: PostgresServer) -> str:
        """Make a database, and return how to connect to it from the machines."""
        with (server.folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 192.0.2.0/24 trust\n")
        server.execute("select pg_reload_conf()")
        return make_conninfo(server.new_database(), host=ADDRESS)


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)
