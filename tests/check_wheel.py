"""Looks into the wheel that tox built and installed, and named in TOX_PACKAGE."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest_touchstone

SOURCE = Path(__file__).parents[1] / "src"
REQUIRED = ("pytest_touchstone/py.typed", "pytest_touchstone/plugin/entry.py")


def faults(names: list[str]) -> list[str]:
    """What is wrong with a wheel that holds these files, one line each."""
    missing = [f"{name}: is missing" for name in REQUIRED if name not in names]
    foreign = [f"{name}: does not belong in the wheel" for name in names if not _belongs(name)]
    licence = [] if any(name.endswith(".dist-info/licenses/LICENSE") for name in names) else ["LICENSE: is missing"]
    return [*missing, *foreign, *licence]


def _belongs(name: str) -> bool:
    folder = name.partition("/")[0]
    if folder.endswith(".dist-info"):
        return True
    return folder == "pytest_touchstone" and name.endswith((".py", "/py.typed"))


def main(wheel: str) -> list[str]:
    """Check the wheel and its metadata, and that what Python imports is what was installed from it."""
    with zipfile.ZipFile(wheel) as archive:
        found = faults(archive.namelist())
    if subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=False).returncode:
        found.append(f"{wheel}: twine would not upload it")
    imported = Path(pytest_touchstone.__file__)
    if imported.is_relative_to(SOURCE):
        found.append(f"{imported}: the source tree is imported instead of the wheel")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(main(os.environ["TOX_PACKAGE"])) or None)
