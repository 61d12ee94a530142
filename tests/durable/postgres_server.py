"""A PostgreSQL server for tests, in a separate folder, if its programs are installed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

SETTINGS = {
    "fsync": "off",  # processes are killed, not the system
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "deadlock_timeout": "100ms",
}


def find_program(name: str) -> Path | None:
    """Return the path of a program of PostgreSQL; Debian does not put all of them on the path."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return installed[-1] if installed else None


def reason_to_skip() -> str | None:
    """Return why there cannot be a server."""
    if sys.platform == "win32":
        return "the tests do not start PostgreSQL on Windows"
    if find_program("initdb") is None or find_program("postgres") is None:
        return "PostgreSQL is not installed"
    import pwd  # not on Windows

    if os.geteuid() == 0 and "postgres" not in (user.pw_name for user in pwd.getpwall()):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


class PostgresServer:
    """A server on a separate port, on the loopback interface. It is stopped on exit, and its folder removed.

    Args:
        settings: More settings, as in postgresql.conf.
    """

    def __init__(self, **settings: str) -> None:
        self.settings = SETTINGS | settings
        self.user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="anysched-postgres-"))
        self.numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.schemas: str | None = None

    def __enter__(self) -> Self:
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        initdb = [str(find_program("initdb")), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        # In the folder: the current one may not be readable.
        subprocess.run(
            [*initdb, "-E", "UTF8", "--no-locale", "--no-sync"],
            check=True, capture_output=True, user=self.user, group=self.user, cwd=self.folder,
        )  # fmt: skip
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        settings = self.settings | {"port": str(self.port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(find_program("postgres")), "-D", str(self.folder / "data"), *options],
                stdout=log, stderr=log, user=self.user, group=self.user, cwd=self.folder,
            )  # fmt: skip
        wait_for_connections(self.conninfo("postgres"), self.process, self.folder / "log")

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop the server: at once with SIGQUIT, as in a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def conninfo(self, database: str, user: str = "postgres") -> str:
        """Return how to connect to a database."""
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user}"

    def new_database(self) -> str:
        """Make an empty database, and return how to connect to it."""
        name = f"test{next(self.numbers)}"
        self.execute(f"create database {name}")
        return self.conninfo(name)

    def drop_database(self, conninfo: str) -> None:
        """Drop a database. It is an error if there are connections left."""
        name = conninfo_to_dict(conninfo)["dbname"]
        try:
            self.check_no_connections(conninfo)
        finally:
            self.execute(f"drop database {name} with (force)")

    def check_no_connections(self, conninfo: str) -> None:
        """Raise an error if there are connections to a database which do not end within a second."""
        name = conninfo_to_dict(conninfo)["dbname"]
        deadline = time.monotonic() + 1
        connections = f"select application_name, query from pg_stat_activity where datname = '{name}'"
        while left := self.execute(connections):
            if time.monotonic() > deadline:
                raise AssertionError(f"connections were left open: {left}")
            time.sleep(0.01)

    @contextmanager
    def new_schema(self) -> Iterator[str]:
        """Make a schema for a test, which takes a small part of the time of a database.

        It is an error if there are connections left at the end.
        """
        if self.schemas is None:
            self.schemas = self.new_database()
        name = f"test{next(self.numbers)}"
        self.execute(f"create schema {name}", self.schemas)
        yield f"{self.schemas} options='-csearch_path={name}'"
        self.check_no_connections(self.schemas)
        self.execute(f"drop schema {name} cascade", self.schemas)

    def execute(self, statement: str, conninfo: str | None = None) -> list[tuple[object, ...]]:
        """Execute a statement as the superuser, and return its rows."""
        with psycopg.connect(conninfo or self.conninfo("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def run_pgbouncer(conninfo: str, mode: str) -> Iterator[str]:
    """Run a PgBouncer in front of a database, and return how to connect to it."""
    given = conninfo_to_dict(conninfo)
    folder = Path(tempfile.mkdtemp(prefix="anysched-pgbouncer-"))
    port = free_port()
    user = "postgres" if os.geteuid() == 0 else None
    (folder / "users").write_text(f'"{given["user"]}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{given['dbname']} = host=127.0.0.1 port={given['port']}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\npool_mode = {mode}\n"
        "ignore_startup_parameters = extra_float_digits,options\n"
    )
    if user:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user, user)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(find_program("pgbouncer")), str(folder / "pgbouncer.ini")],
            stdout=log, stderr=log, user=user, group=user, cwd=folder,
        )  # fmt: skip
    pooled = f"host=127.0.0.1 port={port} dbname={given['dbname']} user={given['user']}"
    try:
        wait_for_connections(pooled, process, folder / "log")
        yield pooled
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for_connections(conninfo: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(conninfo).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2_000:]) from None
            time.sleep(0.05)
