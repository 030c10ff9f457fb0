"""What bounds a run's live calls: the pace of each host, and the budget that all processes of the run share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.plugin.shares import share_of
from pytest_touchstone.recording.budget import Budget, FileLedger, new_ledger_file
from pytest_touchstone.recording.pace import Mark, Paces, throttled

if TYPE_CHECKING:
    from pytest_touchstone.settings import Settings

LIMITS = "touchstone-limits"
WORKER_KEY = "touchstone_limits"


class Limits:
    """Makes the paces and the budget of this process; under pytest-xdist, hands them to the workers and gathers what became of them."""

    def __init__(self, config: pytest.Config, settings: Settings, *, folder: Path) -> None:
        """Make the file of a shared budget in `folder`, where this process controls workers.

        Raises:
            pytest.UsageError: that file cannot be made.
        """
        self.config = config
        self.paces = Paces(ceiling=share_of(settings.max_in_flight or settings.concurrency, config))
        self.budget: Budget | None = None
        self._ledger: FileLedger | None = None
        self._marks: list[Mark] = []
        if settings.max_calls is not None or settings.max_cost_usd is not None:
            path = self._shared_file(folder)
            self._ledger = None if path is None else FileLedger(path)
            self.budget = Budget(max_calls=settings.max_calls, max_cost_usd=settings.max_cost_usd, ledger=self._ledger)

    def spent(self) -> str | None:
        """Why no further live call may begin, None while one may."""
        return None if self.budget is None else self.budget.spent

    def lines(self) -> list[str]:
        """What the report says of hosts that answered with rate limits."""
        return [str(mark) for mark in throttled([*self._marks, *self.paces.marks()])]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401 - xdist's WorkerController
        """Tell a worker where the budget is counted."""
        if self._ledger is not None:
            node.workerinput[WORKER_KEY] = str(self._ledger.path)

    def pytest_sessionfinish(self) -> None:
        """In a worker, hand over what became of its hosts."""
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[WORKER_KEY] = [dataclasses.asdict(mark) for mark in self.paces.marks()]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # noqa: ANN401 - as above
        """Gather what became of a worker's hosts."""
        output: dict[str, Any] = getattr(node, "workeroutput", None) or {}
        self._marks += [Mark(**fields) for fields in output.get(WORKER_KEY, ())]

    def pytest_unconfigure(self) -> None:
        """Let the shared file go; the process that made it removes it."""
        if self._ledger is not None:
            self._ledger.close()
            if not hasattr(self.config, "workerinput"):
                self._ledger.path.unlink(missing_ok=True)

    def _shared_file(self, folder: Path) -> Path | None:
        workerinput: dict[str, Any] | None = getattr(self.config, "workerinput", None)
        if workerinput is not None:
            return Path(workerinput[WORKER_KEY])
        if self.config.getoption("dist", "no") == "no":
            return None
        try:
            return new_ledger_file(folder)
        except OSError as error:
            msg = f"{folder}: the workers' budget cannot be counted there ({error}); make the folder writable, or run without -n"
            raise pytest.UsageError(msg) from error
