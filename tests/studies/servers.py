"""Database servers of our own on the loopback interface, from the programs of Debian's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

MISSING = """\
{package} is not installed. Install Debian's package and run this again:

    sudo apt-get install {package}
"""

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}


class Server(Protocol):
    """Starts a server that keeps its data in a folder; gives the URL of an empty database."""

    def __call__(self, folder: Path) -> AbstractContextManager[str]: ...


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server."""
    bin, data, port = programs("initdb", "postgresql"), folder / "data", free_port()
    become = as_other_user(folder, "postgres")
    subprocess.run(
        [*become, str(bin / "initdb"), "-D", str(data), "-U", "archdsl", "-A", "trust", "-E", "UTF8"],
        cwd=folder, check=True, **QUIET,
    )  # fmt: skip
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    control = [*become, str(bin / "pg_ctl"), "-D", str(data), "-w"]
    log = str(folder / "server.log")
    subprocess.run([*control, "-l", log, "-o", options, "start"], cwd=folder, check=True, **QUIET)
    try:
        yield f"postgresql://archdsl@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], cwd=folder, check=True, **QUIET)


@contextmanager
def mysql(folder: Path) -> Iterator[str]:
    """A MariaDB server, which speaks MySQL's protocol."""
    programs("mariadbd", "mariadb-server")
    become, data, port = as_other_user(folder, "mysql"), f"--datadir={folder}/data", free_port()
    subprocess.run(
        [*become, "mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal"],
        cwd=folder, check=True, **QUIET,
    )  # fmt: skip
    address = ["--no-defaults", "--host=127.0.0.1", f"--port={port}", "--user=root"]
    running = subprocess.Popen(
        [*become, "mariadbd", "--no-defaults", data, "--bind-address=127.0.0.1", f"--port={port}",
         f"--socket={folder}/server.sock", "--innodb-flush-log-at-trx-commit=0"],
        cwd=folder, **QUIET,
    )  # fmt: skip
    try:
        _wait(["mariadb-admin", *address, "ping"])
        subprocess.run(["mariadb", *address, "-e", "create database studies"], check=True)
        yield f"mysql://root@127.0.0.1:{port}/studies"
    finally:
        running.kill()
        running.wait()


SERVERS: dict[str, Server] = {"postgresql": postgresql, "mysql": mysql}
"""By the scheme of their URLs."""


def programs(name: str, package: str) -> Path:
    """The folder of a server's programs, which are installed first where that is permitted.

    Raises:
        SystemExit: they are not there and cannot be installed; says what to type.
    """
    found = installed(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"{package} is missing: apt-get install {package}", flush=True)
        subprocess.run(["apt-get", "install", "-y", "-q", package], check=False)
        found = installed(name)
    if found is None:
        sys.exit(MISSING.format(package=package))
    return found


def installed(name: str) -> Path | None:
    """The folder of a server's program, PostgreSQL's newest first, if it is there."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = [folder for folder in folders if (folder / name).exists()]
    on_path = shutil.which(name)
    return found[0] if found else Path(on_path).parent if on_path else None


def as_other_user(folder: Path, user: str) -> list[str]:
    """How to run a server's programs, which refuse to run as root; the folder becomes the user's."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, user, user)
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(command: list[str], seconds: float = 60) -> None:
    """Ask again until a command succeeds."""
    end = time.monotonic() + seconds
    while subprocess.run(command, check=False, **QUIET).returncode != 0:
        assert time.monotonic() < end, f"`{command[0]}` has no answer"
        time.sleep(0.2)
