"""What an exception that ended a test body means for its trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from pytest_touchstone.errors import BudgetSpent
from pytest_touchstone.text import visible
from pytest_touchstone.trial import CheckFailed, Unscored

if TYPE_CHECKING:
    from pytest_touchstone.trial import Outcome

REASON_WIDTH = 300
# pytest-timeout ends a body that hangs with pytest.fail; an app that hangs is broken, whatever it would have answered.
FROM_TIMEOUT = "from pytest-timeout"
_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (pytest.skip.Exception, "not_run"),
    (BudgetSpent, "not_run"),
    (Unscored, "unscored"),
    (AssertionError, "failed"),
    (pytest.fail.Exception, "failed"),
)


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome of a trial whose body ended with `error`: an assertion fails it, anything else is an error.

    A provider that is down and an app that crashes say nothing about quality, so they are never `failed`.
    """
    if error is None:
        return "passed"
    if isinstance(error, BaseExceptionGroup):
        return _outcome_of_group(cast("BaseExceptionGroup[BaseException]", error))
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return "error" if FROM_TIMEOUT in str(error) else outcome
    return "error"


def reason_of(error: BaseException | None) -> str:
    """One line that says why the body ended, safe to print."""
    if error is None:
        return ""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, CheckFailed):
        text = "; ".join(line for line in text.splitlines()[1:] if not line.startswith("passed ")) or text
    elif not isinstance(error, (AssertionError, pytest.fail.Exception, pytest.skip.Exception, BudgetSpent)):
        text = f"{type(error).__name__}: {text}"
    line = visible(text.splitlines()[0])
    return line if len(line) <= REASON_WIDTH else f"{line[:REASON_WIDTH]}..."


def make_skipped(report: pytest.TestReport, item: pytest.Item, reason: str) -> None:
    """Have the report of a failed phase say that the test was skipped, and why."""
    path, line, _ = item.location
    report.outcome = "skipped"
    report.longrepr = (path, (line or 0) + 1, f"Skipped: {reason}")


def _outcome_of_group(group: BaseExceptionGroup[BaseException]) -> Outcome:
    outcomes = {outcome_of(error) for error in group.exceptions}
    for outcome in ("error", "failed", "unscored"):
        if outcome in outcomes:
            return outcome
    return "error"
