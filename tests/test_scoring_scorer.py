from __future__ import annotations

import asyncio
import functools

import pytest
from scoring_samples import trial_of

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.scorer import scorer
from pytest_touchstone.trial import Score, as_score, asks_model, is_async, scorer_name


def short(trial):
    """Short enough."""
    return len(trial.output) < 5


class Polite:
    def __call__(self, trial):
        return 0.7


class AsyncPolite:
    async def __call__(self, trial):
        return 0.7


class Judge:
    name = "judge"
    asks_model = True

    def __call__(self, trial):
        return Score(name="judge", value=1.0, passed=True)

    async def ascore(self, trial):
        return Score(name="judge", value=0.0, passed=False)


def test_without_arguments_it_keeps_the_functions_name():
    named = scorer(short)
    assert (named.name, named.asks_model, named.__doc__) == ("short", False, "Short enough.")
    assert named(trial_of("abc")) is True
    assert not hasattr(short, "name")
    assert not hasattr(named, "threshold")


def test_name_threshold_and_asks_model():
    named = scorer(name="tone", threshold=0.8, asks_model=True)(Polite())
    assert (scorer_name(named), named.threshold, asks_model(named)) == ("tone", 0.8, True)
    score = as_score(named, named(trial_of("x")))
    assert (score.name, score.value, score.passed, score.reason) == ("tone", 0.7, False, "0.7 < 0.8")


def test_partials_and_objects_are_named_by_what_they_hold():
    assert scorer(functools.partial(short)).name == "short"
    assert scorer(Polite()).name == "Polite"


def test_methods_are_bound():
    class Suite:
        limit = 3

        @scorer(name="brief")
        def brief(self, trial):
            return len(trial.output) <= self.limit

    assert Suite().brief.name == "brief"
    assert Suite().brief(trial_of("abcd")) is False


@pytest.mark.parametrize("build", [lambda f: f, functools.partial])
def test_async_functions_stay_async(build):
    async def slow(trial):
        return trial.output == "x"

    named = scorer(build(slow))
    assert named.name == "slow"
    assert is_async(named)
    assert asks_model(named)
    assert trial_of("x").score(named).passed


def test_objects_with_an_async_call_stay_async():
    named = scorer(name="tone")(AsyncPolite())
    assert is_async(named)
    assert trial_of("x").score(named).name == "tone"


def test_a_given_name_is_carried_by_returned_scores_too():
    named = scorer(name="tone")(Judge())
    assert named(trial_of("x")).name == "tone"
    assert scorer(Judge())(trial_of("x")).name == "judge"
    trial = trial_of("x")
    with pytest.raises(AssertionError, match=r"failed tone 0\.00"):
        asyncio.run(trial.acheck(named))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scorer(3), "@scorer got int; decorate a callable `(trial) -> bool | float | Score`"),
        (lambda: scorer(short, name=" "), "@scorer: name is ' '; give a text that is not empty, or leave it out"),
        (lambda: scorer(short, name=3), "@scorer: name is 3; give a text that is not empty, or leave it out"),
        (lambda: scorer(short, threshold=1.5), "@scorer: threshold is 1.5; give a number from 0 to 1"),
        (lambda: scorer(short, threshold=float("nan")), "@scorer: threshold is nan; give a number from 0 to 1"),
        (lambda: scorer(short, threshold=True), "@scorer: threshold is True; give a number from 0 to 1"),
        (lambda: scorer(short, threshold="0.5"), "@scorer: threshold is '0.5'; give a number from 0 to 1"),
    ],
)
def test_mistakes_are_refused_when_it_decorates(call, message):
    with pytest.raises(ScorerError) as caught:
        call()
    assert str(caught.value) == message
