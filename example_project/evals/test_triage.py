"""Triage: the labels are right, or they are not; no judge is needed."""

import pytest

from pytest_touchstone import json_match
from support.triage import triage


@pytest.mark.golden("triage.jsonl")
def test_triage(case):
    case.output = triage(case.input)
    case.check(json_match())
