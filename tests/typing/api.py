"""A user of every public name, for type checkers only: `mypy tests/typing` and `pyright tests/typing`, both strict."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import re
from datetime import date
from typing import Any, assert_type

import pytest_touchstone
from pytest_touchstone import (
    Call,
    Case,
    CheckFailed,
    Fault,
    GoldenError,
    Message,
    Quarantine,
    Score,
    TouchstoneError,
    Trial,
    Unscored,
    Usage,
    contains,
    exact_match,
    json_match,
    judge,
    numeric_match,
    regex_match,
    scorer,
)


def cases() -> list[Case]:
    """What a callable source returns."""
    message = Message(role="user", content="Can I swap it?")
    return [
        Case(id="text", input="Can I swap it?", expected="Yes.", tags=("gifts",), split="holdout", must_pass=True),
        Case(id="flaky", input="Where is it?", quarantine=Quarantine(reason="The carrier answers at random.", until=date(2026, 12, 31))),
        Case(id="turns", input=[message.model_dump()], rubric="Offers an exchange.", metadata={"source": "ticket-8812"}),
        Case(id="object", input={"subject": "Refund"}, expected={"category": "refund"}, reference="refund"),
    ]


@scorer
def polite(trial: Trial) -> bool:
    """A scorer with its own name."""
    return "please" in str(trial.output)


@scorer(name="brevity", threshold=0.8)
def brief(trial: Trial) -> float:
    """A scorer with a name and a threshold."""
    return 1 / len(str(trial.output))


@scorer(asks_model=True)
async def thoughtful(trial: Trial) -> Score:
    """An async scorer."""
    return Score.unscored("thoughtful", f"nobody was asked about {trial.id}")


class Strict:
    """A scorer may be any object that can be called."""

    def __call__(self, trial: Trial) -> Score:
        """Score it."""
        return Score(name="strict", value=0.0, passed=False, reason=f"{trial.id} is not perfect")


def check(case: Trial) -> None:
    """The body of a golden test."""
    case.output = {"category": "refund"}
    case.check(
        exact_match(strip=False, casefold=True, normalize_whitespace=True, unicode="NFKC", extract=r"A: (.*)", remove=re.compile(",")),
        contains("refund", "30 days", any=True),
        regex_match(r"\d+ days"),
        json_match(),
        numeric_match(),
        judge(),
        judge("Polite.", model="openai:gpt-5-mini", scale=(1, 5), threshold=4, votes=3),
        polite,
        brief,
        thoughtful,
        Strict(),
        lambda trial: trial.output == trial.expected,
    )
    score = case.score(Strict())
    assert_type(score, Score)
    assert_type(score.value, float | None)
    assert_type(score.passed, bool | None)


async def acheck(case: Trial) -> None:
    """The body of an async golden test."""
    await case.acheck(polite, thoughtful)


def facts(case: Trial) -> tuple[str | None, int | None, float | None]:
    """What a trial knows about its calls."""
    call: Call = case.calls[-1]
    usage: Usage = call.usage
    assert_type(case.id, str)
    assert_type(case.tags, tuple[str, ...])
    assert_type(case.rubric, str | None)
    assert_type(case.input, Any)
    return call.text, usage.input_tokens, call.cost_usd


def report(error: TouchstoneError | CheckFailed) -> list[str]:
    """Errors carry what they found."""
    if isinstance(error, GoldenError):
        faults: tuple[Fault, ...] = error.faults
        return [fault.fix for fault in faults]
    if isinstance(error, Unscored):
        return ["no verdict"]
    if isinstance(error, CheckFailed):
        return [score.reason for score in error.scores]
    return [str(error)]


def misspelt() -> object:
    """A name that does not exist is an error: both checkers report an ignore that is not needed."""
    return pytest_touchstone.exact_mach  # type: ignore[attr-defined]
