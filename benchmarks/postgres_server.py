"""A PostgreSQL server for the length of a benchmark, on the loopback interface, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["find_binaries", "server"]

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
}
"""Otherwise it is as it comes: what is committed is on the disk."""


def find_binaries() -> Path | None:
    """Return the folder of the newest server that is installed; Debian keeps it off the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


@contextmanager
def server() -> Iterator[str]:
    """Start a server; yield how to connect to it as its superuser.

    Raises:
        RuntimeError: if there is none, or it does not start.
    """
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed: .ci/get-servers postgresql")
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        user = _change_user(name)
        data = str(Path(name) / "data")
        command = [str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=name, **user)  # noqa: S603
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [str(binaries / "postgres"), "-D", data, "-p", str(port)]
        command += [word for setting in SETTINGS.items() for word in ("-c", "=".join(setting))]
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=name, **user)  # noqa: S603
        try:
            _wait_until_ready(binaries, port, process)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(2)  # SIGINT: a fast shutdown
            process.wait(30)


def _change_user(folder: str) -> dict[str, Any]:
    """Give a folder to the user of the server, which root cannot be; return the options of `subprocess.Popen` for it."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _wait_until_ready(binaries: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    command = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    end = time.monotonic() + 30
    while subprocess.run(command, check=False).returncode:  # noqa: S603
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the PostgreSQL server has not started")
        time.sleep(0.1)
