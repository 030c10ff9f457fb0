"""What the tests of the scorers share."""

from __future__ import annotations

from hypothesis import strategies as st

from pytest_touchstone.cases import Case
from pytest_touchstone.trial import Trial

any_text = st.text(st.characters(exclude_categories=()), max_size=40) | st.text("0123456789.,-+%$€eEkx/ {}[]\":a\n`'\u00a0", max_size=40)
json_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
json_values = st.recursive(
    json_leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)


def trial_of(output, expected=None, case_id="late"):
    trial = Trial(Case(id=case_id, input="Can I return shoes?", expected=expected, source="support.yaml:14"))
    trial.output = output
    return trial


def said(scorer, output, expected=None):
    """What the scorer says, as (passed, reason)."""
    score = scorer(trial_of(output, expected))
    assert score.value == (None if score.passed is None else float(score.passed))
    return score.passed, score.reason
