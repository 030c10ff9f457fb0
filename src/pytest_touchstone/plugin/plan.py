"""`--llm-plan`: after collection, prints what a run would ask, and runs nothing."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.plugin.collect import case_of, name_in_recordings, number_of, suite_of
from pytest_touchstone.plugin.summary import write_lines
from pytest_touchstone.recording.journal import read_free_journals
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.store import newest, read_recording, recording_path
from pytest_touchstone.report.plan import Load, PlannedCase, load_of, plan_lines, plan_suites
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_touchstone.recording.store import Entry
    from pytest_touchstone.settings import Settings

PLAN = "touchstone-plan"
FIXTURE = "fixture:"

Recorded = dict[str, dict[int, Load]]


def stay_in_one_process(config: pytest.Config) -> None:
    """Have pytest-xdist start no workers: there is nothing for them to do."""
    if hasattr(config.option, "dist"):
        config.option.dist, config.option.tx, config.option.numprocesses = "no", [], 0


class Planner:
    """Takes the place of everything that runs tests."""

    def __init__(self, config: pytest.Config, settings: Settings, *, journal_dir: Path) -> None:
        self.config = config
        self.settings = settings
        self.journal_dir = journal_dir

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Print the plan; faults of the collection are pytest's to report.

        Raises:
            pytest.UsageError: a recording cannot be read.
        """
        if session.testsfailed and not self.config.option.continue_on_collection_errors:
            return None
        golden = [item for item in session.items if case_of(item) is not None]
        try:
            suites = plan_suites(self._planned(golden), self.settings.record)
        except RecordingError as error:
            raise pytest.UsageError(str(error)) from error
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.section("plan: nothing is run")
            others = len(session.items) - len(golden)
            write_lines(terminal, [*plan_lines(suites, self.settings.record), *_about_others(others)])
        return True

    def _planned(self, items: Iterable[pytest.Item]) -> list[PlannedCase]:
        numbers: dict[tuple[Path, str, str], list[int]] = {}
        for item in items:
            numbers.setdefault((item.path, name_in_recordings(item), suite_of(item)), []).append(number_of(item))
        recorded = {module: self._recorded(module) for module in dict.fromkeys(module for module, _, _ in numbers)}
        cases = [
            PlannedCase(suite=suite, trials=tuple(trials), recorded=recorded[module].get(test, {}))
            for (module, test, suite), trials in numbers.items()
        ]
        return [*cases, *self._shared(recorded)]

    def _shared(self, recorded: dict[Path, Recorded]) -> list[PlannedCase]:
        """The calls of fixtures that many tests share, as suites without cases."""
        return [
            PlannedCase(suite=f"{_relative(module, self.config)}::{test}", trials=(1,), recorded=loads, is_shared=True)
            for module, tests in recorded.items()
            for test, loads in tests.items()
            if test.startswith(FIXTURE)
        ]

    def _recorded(self, module: Path) -> Recorded:
        root = self.config.rootpath.resolve()
        saved = [entry for entry in self._saved() if entry.module == _relative(module, self.config)]
        return _by_test(newest([*saved, *read_recording(recording_path(module.resolve()), root=root)]))

    def _saved(self) -> tuple[Entry, ...]:
        """What killed sessions left behind, which the next run replays."""
        return read_free_journals(self.journal_dir, redactor=Redactor(os.environ))


def _by_test(entries: Iterable[Entry]) -> Recorded:
    tests: defaultdict[str, dict[int, Load]] = defaultdict(dict)
    for entry in entries:
        # A teacher is asked about what fails, which a plan does not know.
        load = None if entry.role == "teacher" else load_of(entry.role, entry)
        if load is not None:
            trials = tests[entry.test]
            trials[entry.trial] = trials.get(entry.trial, Load()) + load
    return tests


def _relative(module: Path, config: pytest.Config) -> str:
    path, root = module.resolve(), config.rootpath.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _about_others(count: int) -> list[Line]:
    if not count:
        return []
    return [Line("", f"{counted(count, 'test')} without golden cases would run too; what they ask is not in the plan")]
