from __future__ import annotations

import pytest

from pytest_touchstone import errors
from pytest_touchstone.errors import Fault, GoldenError, NetworkBlocked, RecordingMiss, TouchstoneError
from pytest_touchstone.trial import CheckFailed, Score, Unscored


def test_a_fault_shows_what_is_known():
    full = Fault(file="a.yaml", line=3, case_id="late", field="split", problem="is 'tset'", fix="use 'train' or 'holdout'")
    assert str(full) == "a.yaml:3: case 'late': split: is 'tset'; use 'train' or 'holdout'"
    assert str(Fault(file="a.yaml", problem="is empty", fix="add cases")) == "a.yaml: is empty; add cases"


def test_a_golden_error_lists_every_fault():
    faults = [Fault(file="a.yaml", line=line, problem="is bad", fix="mend it") for line in (1, 2)]
    error = GoldenError(faults)
    assert str(error) == "a.yaml:1: is bad; mend it\na.yaml:2: is bad; mend it"
    assert error.faults == tuple(faults)


@pytest.mark.parametrize("name", ["SettingsError", "GoldenError", "ScorerError", "JudgeError", "RecordingError", "ExportError"])
def test_ordinary_errors_are_of_one_tree(name):
    assert issubclass(getattr(errors, name), TouchstoneError)


def test_a_failed_check_is_an_assertion_with_its_scores():
    score = Score(name="s", value=0.0, passed=False)
    error = CheckFailed("1 of 1 scores failed", [score])
    assert isinstance(error, AssertionError)
    assert not isinstance(error, TouchstoneError)
    assert error.scores == (score,)
    assert issubclass(Unscored, CheckFailed)
    assert Unscored("m").scores == ()


@pytest.mark.parametrize("kind", [RecordingMiss, NetworkBlocked])
def test_replay_errors_pass_through_handlers_of_ordinary_exceptions(kind):
    assert not issubclass(kind, Exception)
