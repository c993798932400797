"""A private PostgreSQL server for tests: made in a folder of its own, reached by a Unix socket, gone after.

Needs the server's programs (Debian: the package `postgresql`) and, as root, an account without rights, which
the server insists on. Nothing of a server that the machine may run is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ACCOUNTS = ("postgres", "nobody")


class NoServerError(Exception):
    """There is none to be had here; says why."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server; gives its connection string.

    Raises:
        NoServerError: If this machine has no server to start.
    """
    programs = _programs()
    account = _account()
    # Not pytest's folder: the server's account could not enter it, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="der-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if account:
            shutil.chown(folder, account["user"], account["group"])
        data = folder / "data"
        _run(
            [programs / "initdb", "-D", data, "-U", "der", "-A", "trust", "-E", "UTF8", "-N"],
            folder,
            account,
        )
        settings = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories='{folder}'"
        control = [programs / "pg_ctl", "-D", data, "-w"]
        _run([*control, "-t", "60", "-l", folder / "log", "-o", settings, "start"], folder, account)
        try:
            yield f"postgresql://der@/postgres?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder, account)


def _programs() -> Path:
    """The folder of `initdb` and `pg_ctl`, which Debian keeps out of the path."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise NoServerError("no PostgreSQL server is installed (Debian: apt-get install postgresql)")


def _account() -> dict[str, Any]:
    """Whose processes the server's are: the caller's own, or as root those of an account without rights."""
    if not hasattr(os, "geteuid"):
        raise NoServerError("the tests' PostgreSQL server needs Unix sockets")
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ACCOUNTS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise NoServerError(f"as root PostgreSQL needs one of the accounts {', '.join(ACCOUNTS)}")


def _run(command: list[Any], folder: Path, account: dict[str, Any]) -> None:
    with (folder / "output").open("ab") as output:  # not a pipe: the server would keep it open
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            **account,
        )
    if done.returncode:
        said = (folder / "output").read_text(errors="replace")[-500:]
        raise NoServerError(f"{Path(command[0]).name} failed here: {said}")
