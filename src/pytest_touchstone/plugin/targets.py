"""Where the targets of failed cases come from beside the golden files: accepted corrections, and a teacher."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.errors import ExportError
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.text import counted, listed, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_touchstone.export.corrections import Corrections
    from pytest_touchstone.export.example import Example, LeftOut, Lesson
    from pytest_touchstone.export.teacher import Teacher
    from pytest_touchstone.export.write import Manifest
    from pytest_touchstone.plugin.collect import GoldenCollector
    from pytest_touchstone.settings import Settings
    from pytest_touchstone.trial import Trial, TrialRecord

# What the report says of corrections that were not used.
_UNUSED = {
    "stale": "made for what their cases said before, and not used; give them anew",
    "holdout": "of holdout cases, and never used; remove their lines",
    "unknown": "of no case of their suites; correct the ids, or remove their lines",
    "elsewhere": "of suites that this run did not collect",
}
MAX_NAMED = 10


class Targets:
    """What a process that runs tests knows of corrections and of a teacher."""

    def __init__(self, settings: Settings, *, redact: Callable[[str], str]) -> None:
        """Read the accepted corrections, where the run exports.

        Raises:
            pytest.UsageError: their file cannot be used.
        """
        self.redact = redact
        self.settings = settings
        self.corrections: Corrections | None = None if settings.corrections is None else _read(settings)
        self.teacher: Teacher | None = None
        if settings.export is not None and settings.teacher.model is not None:
            from pytest_touchstone.export.teacher import Teacher

            self.teacher = Teacher(settings=settings.teacher)

    def example_of(self, trial: Trial, outcome: Any, *, suite: str, lesson: Lesson | None = None) -> Example | LeftOut:  # noqa: ANN401 - an Outcome
        """The example of a trial, with its correction as the first of its targets and the teacher's answer as the last."""
        from pytest_touchstone.export.select import example_of

        return example_of(trial, outcome, suite=suite, correction=self._correction(trial, suite), lesson=lesson)

    def offers_of(self, trial: Trial, outcome: Any, *, suite: str, lesson: Lesson | None) -> tuple[Example | LeftOut, ...]:  # noqa: ANN401 - an Outcome
        """What a trial offers, of those of its calls that the run trains on."""
        from pytest_touchstone.export.select import offers_of

        return offers_of(
            trial, outcome, suite=suite, call=self.settings.export_call, correction=self._correction(trial, suite), lesson=lesson
        )

    def to_be_taught(self, trial: Trial, suite: str) -> Example | None:
        """The example that lacks an answer which a teacher may give; None without a teacher, or where nothing is lacking."""
        if self.teacher is None or trial.split == "holdout" or trial.case.quarantine is not None or trial.misses:
            return None
        return getattr(self.example_of(trial, "failed", suite=suite), "unanswered", None)

    def uncorrected(self, trial: Trial, left: LeftOut, *, suite: str, why: str, lesson: Lesson | None) -> dict[str, Any] | None:
        """What the list of cases that need a correction would say of the trial, without secrets; None where it is not to be on it."""
        if left.unanswered is None:
            return None
        from pytest_touchstone.export.corrections import Uncorrected, digest
        from pytest_touchstone.export.example import map_texts

        tried = self._correction(trial, suite)
        found = Uncorrected(
            example=left.unanswered,
            input=trial.case.input,
            rubric=trial.rubric or "",
            why=f"{why}; {left.reason}" if why else left.reason,
            tried="" if tried is None else digest(tried),
            taught="" if lesson is None else lesson.outcome,
        )
        # Redacted here, because only this process knows the keys that its clients have sent.
        data = found.to_dict()
        for part, names in ((data, ("input", "rubric", "why")), (data["example"], ("prompt", "completion", "tools", "input_text"))):
            part.update({name: map_texts(part[name], self.redact) for name in names})
        return data

    def placed(self, collector: GoldenCollector) -> list[dict[str, Any]]:
        """How each correction stands to the collected cases; plain data."""
        if self.corrections is None or not self.corrections.entries:
            return []
        from pytest_touchstone.export.corrections import Collected, named, sort_out

        cases = {
            named(function, "", self.redact)[0]: {
                named("", case.id, self.redact)[1]: (case.content_hash, case.split == "holdout") for case in of_function
            }
            for function, of_function in collector.functions.items()
        }
        collected = Collected(
            suites={named(suite, "", self.redact)[0] for suite in collector.suites},
            cases=cases,
            holdout={case.content_hash for case in collector.holdout.values()},
            holdout_ids={named("", case.id, self.redact)[1] for case in collector.holdout.values()},
        )
        return [dataclasses.asdict(placed) for placed in sort_out(self.corrections, collected)]

    def _correction(self, trial: Trial, suite: str) -> Any:  # noqa: ANN401 - a JSON value
        if self.corrections is None or not self.corrections.entries or trial.split == "holdout":
            return None
        from pytest_touchstone.export.corrections import named

        return self.corrections.of(named(suite, trial.id, self.redact), trial.case.content_hash)


def accept_filled(settings: Settings) -> list[Line]:
    """Accept what was filled into the list of the export's folder; says so.

    Raises:
        ExportError: the list, or the file of accepted corrections, cannot be used.
    """
    from pytest_touchstone.export.corrections import NEEDS_FILE, accept_filled

    assert settings.export is not None
    assert settings.corrections is not None
    count = accept_filled(settings.export, settings.corrections)
    if not count:
        return []
    told = f"{counted(count, 'correction')} accepted from {settings.export / NEEDS_FILE} into {settings.corrections}"
    return [Line("", f"export: {visible(told)}")]


def target_lines(settings: Settings, manifest: Manifest, records: Iterable[TrialRecord], placed: Iterable[Mapping[str, Any]]) -> list[Line]:
    """What the end of a run says of corrections and teacher."""
    from pytest_touchstone.export.corrections import NEEDS_FILE, Placed

    assert settings.export is not None
    lines = _teacher_lines(settings, records)
    all_placed = [Placed(**fields) for fields in placed]
    for state, told in _UNUSED.items():
        found = [str(each) for each in all_placed if each.state == state]
        if found:
            verb = "is" if len(found) == 1 else "are"
            where = f"{settings.corrections}: {listed(found, MAX_NAMED)}"
            said = visible(f"{counted(len(found), 'correction')} {verb} {told}: {where}")
            lines.append(Line("" if state == "elsewhere" else "yellow", f"export: {said}"))
    if manifest.needs_correction:
        names = [f"{case['suite']} {case['case_id']}" for case in manifest.needs_correction]
        count = f"{len(names):,} case{' needs' if len(names) == 1 else 's need'} a correction"
        how = f"fill in {settings.export / NEEDS_FILE}, or run touchstone correct {settings.export}"
        lines.append(Line("", f"export: {visible(f'{count}: {listed(names, MAX_NAMED)}; {how}')}"))
    return lines


def _teacher_lines(settings: Settings, records: Iterable[TrialRecord]) -> list[Line]:
    if settings.teacher.model is None:
        return []
    taught: Counter[str] = Counter()
    for record in records:
        if record.example is not None and record.example["target_source"] == "teacher":
            taught["passed"] += 1
        elif record.uncorrected is not None and record.uncorrected["taught"]:
            taught[record.uncorrected["taught"]] += 1
    counts = ", ".join(
        f"{taught[outcome]:,} {outcome}" for outcome in ("passed", "did not pass", "no answer", "not asked") if taught[outcome]
    )
    failed = f"{counted(taught.total(), 'failed trial')} without another target"
    told = f"teacher {settings.teacher.model}: {failed}" + (f": {counts}" if counts else "")
    return [Line("", f"export: {visible(told)}")]


def _read(settings: Settings) -> Corrections:
    from pytest_touchstone.export.corrections import Corrections

    assert settings.corrections is not None
    try:
        return Corrections.read(settings.corrections)
    except (ExportError, OSError) as error:
        raise pytest.UsageError(str(error)) from error
