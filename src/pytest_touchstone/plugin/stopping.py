"""Which suites are tried no more: the controlling process says it, and those that run tests ask."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_touchstone.settings import GateSettings

STOPPING = "touchstone-stopping"
WORKER_KEY = "touchstone_stopping"
REASON = "its suite had regressed by then"


class Stopping:
    """The suites that are tried no more; workers of pytest-xdist learn of them through a file, which only their controller writes."""

    def __init__(self, config: pytest.Config, gate: GateSettings, *, folder: Path) -> None:
        """Make the file in `folder`, where this process controls workers and may stop suites.

        Raises:
            pytest.UsageError: that file cannot be made.
        """
        self.suites: set[str] = set()
        self._path: Path | None = None
        self._read = 0
        workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._is_worker = workerinput is not None
        if not gate.stop_early:
            return
        if workerinput is not None:
            self._path = Path(workerinput[WORKER_KEY])
        elif config.getoption("dist", "no") != "no":
            self._path = _new_file(folder)

    def stop(self, suite: str) -> None:
        """Have no further trial of the suite made."""
        self.suites.add(suite)
        if self._path is not None:
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"{json.dumps(suite)}\n")

    def why(self, suite: str) -> str | None:
        """Why no further trial of the suite is made, None where one is."""
        if self._is_worker and self._path is not None:
            self._take_news(self._path)
        return REASON if suite in self.suites else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401 - xdist's WorkerController
        """Tell a worker where it learns of stopped suites."""
        if self._path is not None:
            node.workerinput[WORKER_KEY] = str(self._path)

    def pytest_unconfigure(self) -> None:
        """Remove the file that this process made."""
        if self._path is not None and not self._is_worker:
            self._path.unlink(missing_ok=True)

    def _take_news(self, path: Path) -> None:
        try:
            if path.stat().st_size == self._read:
                return
            data = path.read_bytes()
        except OSError:
            return  # the controller is gone, and nobody waits for what is tried
        whole = data[: data.rfind(b"\n") + 1]
        self._read = len(whole)
        self.suites = {json.loads(line) for line in whole.splitlines()}


def _new_file(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="stopped-", suffix=".jsonl", dir=folder)
    except OSError as error:
        msg = f"{folder}: workers cannot be told there what is stopped ({error}); make it writable, or leave --llm-gate-stop-early out"
        raise pytest.UsageError(msg) from error
    os.close(handle)
    return Path(name)
