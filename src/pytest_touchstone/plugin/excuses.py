"""Failures that decide nothing by themselves: known ones, flips that the gate decides together, and quarantined cases."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_touchstone.plugin.outcome import outcome_of
from pytest_touchstone.plugin.repeats import repeat_of
from pytest_touchstone.plugin.trials import trial_of_subtest
from pytest_touchstone.trial import TrialRecord, changed

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_touchstone.baseline_syrupy import BaselineExtension, BaselineFiles
    from pytest_touchstone.gate import Evidence
    from pytest_touchstone.settings import GateSettings, Settings

EXCUSES_GIVEN = "touchstone-excuses"


def is_held_against_baseline(config: pytest.Config, settings: GateSettings) -> bool:
    """Whether the baseline decides what fails this run: not where a new one is being accepted."""
    return settings.mode == "regression" and not getattr(config.option, "update_snapshots", False)


class Excuses:
    """Has failures that decide nothing by themselves not fail the run: each process that runs tests looks into the baseline for itself."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        """Read nothing yet; where each failure counts, and where a new baseline is accepted, the baseline excuses nothing."""
        self._rootdir = config.rootpath
        self._repeat = settings.repeat
        self._by_baseline = is_held_against_baseline(config, settings.gate)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Report an excused failure as pytest reports an expected one; a subtest's failure is excused where that of its trial will be."""
        report = yield
        data: dict[str, Any] | None = getattr(report, "touchstone", None)
        if data is not None:
            # A trial whose subtests failed has a body, and so a report, that passed.
            if data["record"]["outcome"] == "failed" and not report.skipped:
                excuse = self._excuse(item, TrialRecord.from_dict(data["record"]))
                if excuse is not None:
                    data["excused"], report.wasxfail = excuse
                    report.outcome = "skipped"
        elif report.failed and (planned := trial_of_subtest(item)) is not None and outcome_of(_raised(call)) == "failed":
            excuse = self._excuse(item, changed(planned, outcome="failed"))
            if excuse is not None:
                _, report.wasxfail = excuse
                report.outcome = "skipped"
        return report

    def _excuse(self, item: pytest.Item, record: TrialRecord) -> tuple[str, str] | None:
        if record.must_pass:
            return None
        if record.quarantine:
            return "quarantined", f"quarantined: {record.quarantine}"
        return self._beside_baseline(item, record) if self._by_baseline else self._beside_other_trials(item)

    def _beside_other_trials(self, item: pytest.Item) -> tuple[str, str] | None:
        repeat = repeat_of(item, self._repeat)
        return ("tried", f"{repeat.needed} of {repeat.times} trials of its case have to pass") if repeat.needed < repeat.times else None

    def _beside_baseline(self, item: pytest.Item, record: TrialRecord) -> tuple[str, str] | None:
        from pytest_touchstone.gate import compare, evidence

        before = self._before(item, record)
        if before is None or compare(before, evidence([record])[record.case_id]).difference is None:
            return None
        if not before.passes:
            return "known", "it failed in the baseline too"
        if before.flaky:
            return "flaky", f"it passed {before.passes} of {before.trials} times in the baseline; the gate decides over all cases together"
        return "worse", "it passed in the baseline; the gate decides over all cases together"

    def _before(self, item: pytest.Item, record: TrialRecord) -> Evidence | None:
        from syrupy.location import PyTestLocation

        from pytest_touchstone.baseline import entry_name, test_of

        files, extension = self._baselines
        path = Path(extension.get_location(test_location=PyTestLocation(cast("Any", item)), index=0))
        entry = files.entries(path).get(entry_name(test_of(record.suite), record.case_id))
        return None if entry is None else entry.evidence

    @functools.cached_property
    def _baselines(self) -> tuple[BaselineFiles, type[BaselineExtension]]:
        from pytest_touchstone.baseline_syrupy import BaselineExtension, BaselineFiles

        files = BaselineFiles(self._rootdir)
        return files, BaselineExtension.of(files)


def _raised(call: pytest.CallInfo[None]) -> BaseException | None:
    return None if call.excinfo is None else call.excinfo.value
