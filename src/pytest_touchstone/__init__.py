"""LLM regression testing for pytest: golden cases, scorers, recordings, gates, and training data from what failed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_touchstone.cases import Case, Message, Quarantine
    from pytest_touchstone.errors import Fault, GoldenError, TouchstoneError
    from pytest_touchstone.judging.rubric import judge
    from pytest_touchstone.scoring.exact import exact_match
    from pytest_touchstone.scoring.numeric import numeric_match
    from pytest_touchstone.scoring.scorer import scorer
    from pytest_touchstone.scoring.structured import json_match
    from pytest_touchstone.scoring.text import contains, regex_match
    from pytest_touchstone.trial import Call, CheckFailed, Score, Trial, Unscored, Usage

__all__ = [
    "Call",
    "Case",
    "CheckFailed",
    "Fault",
    "GoldenError",
    "Message",
    "Quarantine",
    "Score",
    "TouchstoneError",
    "Trial",
    "Unscored",
    "Usage",
    "contains",
    "exact_match",
    "json_match",
    "judge",
    "numeric_match",
    "regex_match",
    "scorer",
]

# Resolved on first use: importing the package while pytest starts must cost nothing.
_HOMES = {
    "Call": "trial",
    "Case": "cases",
    "CheckFailed": "trial",
    "Fault": "errors",
    "GoldenError": "errors",
    "Message": "cases",
    "Quarantine": "cases",
    "Score": "trial",
    "TouchstoneError": "errors",
    "Trial": "trial",
    "Unscored": "trial",
    "Usage": "trial",
    "contains": "scoring.text",
    "exact_match": "scoring.exact",
    "json_match": "scoring.structured",
    "judge": "judging.rubric",
    "numeric_match": "scoring.numeric",
    "regex_match": "scoring.text",
    "scorer": "scoring.scorer",
}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for an object

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
