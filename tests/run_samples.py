"""Trials and runs that the tests of the run store share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pytest_touchstone.cases import content_hash
from pytest_touchstone.git import Checkout
from pytest_touchstone.runs import new_run
from pytest_touchstone.trial import Call, Score, TrialRecord, Usage

START = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
COMMIT = "3b4f2aa9c0" + "0" * 30
SUITE = "evals/test_shop.py::test_refunds"
PROMPT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})


def call(**changes):
    values = {
        "provider": "openai",
        "model": "gpt-test",
        "messages": PROMPT,
        "usage": Usage(input_tokens=11, output_tokens=7, cached_tokens=None),
        "cost_usd": 0.5,
        "latency_s": 2.0,
        "status": 200,
    }
    return Call(**{**values, **changes})


def record(case_id="late", outcome="passed", **changes):
    suite, number = changes.get("suite", SUITE), changes.get("number", 1)
    values = {
        "nodeid": f"{suite}[{case_id}]",
        "suite": suite,
        "case_id": case_id,
        "source": "evals/support.yaml:14",
        "content_hash": content_hash(input=case_id),
        "split": "train",
        "number": number,
        "outcome": outcome,
        "reason": "" if outcome == "passed" else "failed exact_match 0.00",
        "output": "No.",
        "duration_s": 0.25,
    }
    return TrialRecord(**{**values, **changes})


def full_record():
    """A record with a value in every field that is stored."""
    return record(
        outcome="failed",
        split="holdout",
        tags=("refunds", "ünïcode"),
        must_pass=True,
        quarantine="the vendor answers at random",
        number=3,
        input="Can I return it?",
        scores=(
            Score(name="exact_match", value=0.0, passed=False, reason="differs"),
            Score.unscored("judge", "refused", judge="openai:judge-1 0123abcd"),
        ),
        calls=(
            call(replayed=True, host="127.0.0.1:8000"),
            call(
                role="judge", messages=(), cost_usd=None, cost_reason="no price", latency_s=None, status=None, error="ended", usage=Usage()
            ),
        ),
    )


def run(records=(), *, minutes=0, **changes):
    values = {
        "started": START + timedelta(minutes=minutes),
        "ended": START + timedelta(minutes=minutes, seconds=5),
        "complete": True,
        "exit_status": 0,
        "checkout": Checkout(commit=COMMIT, dirty=False, branch="main"),
        "options": {"record": "none", "arguments": ["evals"]},
        "versions": {"python": "3.11.7"},
    }
    return new_run(records, **{**values, **changes})


def keep(text):
    """Redacts nothing."""
    return text
