"""How far a run went: which test modules ran in full, and what they asked for; recordings are dropped on this evidence only."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.recording.evidence import Evidence, ModuleRun, with_asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pytest_touchstone.recording.recorder import Recorder
    from pytest_touchstone.trial import TrialRecord

EXTENT = "touchstone-extent"
WORKER_KEY = "touchstone_extent"
NO_TRACE = "a worker process died, and what it had asked for is not known"


class Extent:
    """Gathers, in every process, what kept the run from being of all tests; the controlling process makes the evidence of it."""

    def __init__(self, config: pytest.Config, recorder: Recorder) -> None:
        self.config = config
        self.recorder = recorder
        self.began = time.time()
        self.partial: dict[str, str] = {}
        self.selected = ""
        self.lost = ""
        self.asked: list[dict[str, list[str]]] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note the modules of golden tests that -k, -m, --llm-limit, --llm-split or another plugin took out of the run."""
        for item in items:
            if item.get_closest_marker("golden") is not None:
                self.partial.setdefault(_module(item.nodeid), "some of its golden tests were deselected")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what could not be collected, or said that it is to be skipped."""
        if report.passed:
            return
        place = _module(report.nodeid)
        self.partial.setdefault(place, "not all of it was collected")
        self.selected = self.selected or f"{place or 'the project'} was not collected"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Note how the run ended; in a worker of pytest-xdist, hand over what the controller cannot know."""
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            self.lost = "the run ended with an error of pytest or a plugin"
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[WORKER_KEY] = {"partial": self.partial, "selected": self.selected, "asked": self.recorder.asked()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:  # noqa: ANN401 - pytest-xdist's WorkerController
        """In the controller, take over what a worker knew."""
        output: dict[str, Any] | None = getattr(node, "workeroutput", None)
        told = None if error is not None or output is None else output.get(WORKER_KEY)
        if told is None:
            self.lost = NO_TRACE
            return
        self.partial = {**told["partial"], **self.partial}
        self.selected = self.selected or told["selected"]
        self.asked.append(told["asked"])

    def evidence(self, records: Iterable[TrialRecord]) -> Evidence:
        """What the run shows, from the records of every planned trial."""
        made = Evidence(began=self.began, selected=self.selected or _selected(self.config), modules=self.module_runs(records))
        for asked in (self.recorder.asked(), *self.asked):
            made = with_asked(made, asked)
        return made

    def module_runs(self, records: Iterable[TrialRecord]) -> tuple[ModuleRun, ...]:
        """How far the run went in each module, from the records of every planned trial."""
        by_module: dict[str, list[TrialRecord]] = {}
        for record in records:
            by_module.setdefault(_module(record.nodeid), []).append(record)
        stopped = self.lost or ("--lf ran only what had failed" if self.config.getoption("lf", default=False) else "")
        return tuple(self._module_run(module, trials, stopped) for module, trials in by_module.items())

    def _module_run(self, module: str, trials: list[TrialRecord], stopped: str) -> ModuleRun:
        partial = stopped or self.partial.get(module, "") or _chosen(self.config, module) or _not_run(trials)
        # Recordings name every trial of a case as its first one.
        names = {(record.suite, record.case_id): record.nodeid.partition("::")[2] for record in trials if record.number == 1}
        unfinished = {(record.suite, record.case_id) for record in trials if record.outcome != "passed"}
        return ModuleRun(
            module=module,
            partial=partial,
            tests=frozenset(names.values()),
            unfinished=frozenset(names[case] for case in unfinished & names.keys()),
            trials=max(record.number for record in trials),
        )


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _not_run(trials: list[TrialRecord]) -> str:
    outcomes = Counter(record.outcome for record in trials)
    if outcomes["not_run"]:
        return f"{outcomes['not_run']} of its {len(trials)} trials did not run"
    return f"{outcomes['error']} of its {len(trials)} trials ended in an error" if outcomes["error"] else ""


def _chosen(config: pytest.Config, module: str) -> str:
    """Why the command line asks for a part of the module only; a node id that names no file may be of any module."""
    for argument in config.args:
        path, found, _ = argument.partition("::")
        chosen = config.invocation_params.dir / path
        if found and (not chosen.is_file() or chosen.resolve() == (config.rootpath / module).resolve()):
            return f"only a part of it was asked for ({argument})"
    return ""


def _selected(config: pytest.Config) -> str:
    """Why the command line asks for a part of the project only."""
    if config.args_source is config.ArgsSource.TESTPATHS:
        return ""
    root, start = config.rootpath.resolve(), config.invocation_params.dir
    covered = any(_resolved(start, argument) == root for argument in config.args)
    return "" if covered else "it was given paths, or was started below the rootdir"


def _resolved(start: Path, argument: str) -> Path:
    return (start / argument).resolve()
