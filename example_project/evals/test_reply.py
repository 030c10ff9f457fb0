"""Replies: what must be in them is checked by text, how they say it by a judge."""

import pytest

from pytest_touchstone import contains, judge
from support.reply import reply


@pytest.mark.golden("reply.yaml", where=lambda case: "window" in case.tags)
def test_return_window(case):
    case.output = reply(case.input)
    case.check(contains("30 days"), judge("Polite, and cites the 30-day window."))


@pytest.mark.golden("reply.yaml", where=lambda case: case.rubric)
def test_reply(case):
    case.output = reply(case.input)
    assert len(case.output) < 600, "an answer is two to four sentences"
    case.check(judge())
