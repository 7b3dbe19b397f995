"""A PostgreSQL server of the tests: a cluster of its own in a temporary folder."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["POSTGRES", "PostgresServer", "needs_postgres", "postgres_server", "running_server"]


def _find_programs() -> Path | None:
    """Find the folder of the server's programs, which Debian keeps out of the path."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


POSTGRES = _find_programs()
needs_postgres = pytest.mark.skipif(POSTGRES is None, reason="needs the programs of PostgreSQL")


class PostgresServer:
    """A running server, reached over a socket in its folder.

    Attributes:
        folder: The folder of the cluster and its socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    def start(self) -> None:
        assert POSTGRES is not None
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self.folder, "nobody")
        self._run("initdb", "-U", "tests", "--auth=trust", "-N", "--no-locale", "-E", "UTF8")
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\n")
            settings.write("statement_timeout = 30s\n")  # a lock that is never free fails a test
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")

    def restart(self) -> None:
        """Kill all connections and start again, as after a crash."""
        self.stop()
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))

    def new_schema(self) -> str:
        """Return the URL of a schema of its own."""
        name = f"t{next(self._numbers)}_{os.getpid()}"
        url = f"postgresql://tests@/postgres?host={quote(str(self.folder), safe='')}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{url}&options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: str) -> None:
        assert POSTGRES is not None
        user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        command = [*user, str(POSTGRES / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, cwd="/")


@contextmanager
def running_server() -> Generator[PostgresServer]:
    """Run a server until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    server = PostgresServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for all tests of one process."""
    with running_server() as server:
        yield server
