"""What trials add up to: nothing counted twice, and nothing unknown counted as nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.report.model import Cost, Totals, combined, summarize, totals
from pytest_touchstone.trial import Call, TrialRecord, Usage

CALLS = st.lists(
    st.builds(
        lambda role, cost, tokens, replayed, reason: Call(
            role=role,
            provider="p",
            model="m",
            usage=Usage(input_tokens=tokens, output_tokens=tokens),
            cost_usd=cost,
            cost_reason="" if cost is not None else reason,
            replayed=replayed,
        ),
        st.sampled_from(["app", "judge"]),
        st.one_of(st.none(), st.integers(0, 9).map(float)),
        st.one_of(st.none(), st.integers(0, 9)),
        st.booleans(),
        st.sampled_from(["", "no price", "no tokens"]),
    ),
    max_size=6,
)


def record(**fields):
    defaults = {"nodeid": "n", "suite": "s", "case_id": "a", "source": "a:1", "content_hash": "", "split": "train", "outcome": "passed"}
    return TrialRecord(**{**defaults, **fields})


@given(st.lists(CALLS, max_size=4))
def test_totals_of_parts_are_the_totals_of_the_whole(parts):
    whole = totals([call for calls in parts for call in calls], "app")
    assert combined(totals(calls, "app") for calls in parts) == whole


@given(CALLS)
def test_every_call_is_priced_or_said_not_to_be(calls):
    asked = totals(calls, "judge")
    own = [call for call in calls if call.role == "judge"]
    assert asked.calls == len(own)
    assert asked.paid.unpriced + asked.replayed.unpriced == asked.cost.unpriced == sum(call.cost_usd is None for call in own)
    assert asked.cost.usd == (sum(call.cost_usd or 0 for call in own) if not own or asked.cost.unpriced < len(own) else None)
    assert (asked.input_tokens is None) == (0 < asked.calls == asked.uncounted)


def test_nothing_asked_costs_nothing():
    assert totals([], "app") == Totals() == combined([])
    assert Totals().cost == Cost(usd=0.0)


def test_replayed_calls_cost_what_they_cost_when_recorded():
    live, replayed = Call(provider="p", model="m", cost_usd=2.0), Call(provider="p", model="m", cost_reason="why", replayed=True)
    asked = totals([live, replayed], "app")
    assert (asked.paid, asked.replayed) == (Cost(usd=2.0), Cost(usd=None, unpriced=1, reasons=("why",)))
    assert asked.cost == Cost(usd=2.0, unpriced=1, reasons=("why",))


def test_a_tag_that_a_case_has_twice_counts_it_once():
    (suite,) = summarize([record(tags=("b", "a", "b"))])
    assert [(tag.name, tag.trials) for tag in suite.tags] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("cases", [10, 100])
def test_tags_are_counted_in_one_pass_over_the_cases(cases):
    class Seen(str):  # noqa: SLOT000 - counts in an attribute of the class
        looked_at = 0

        def __eq__(self, other):
            Seen.looked_at += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    (suite,) = summarize([record(case_id=str(number), tags=(Seen(f"tag{number}"),)) for number in range(cases)])
    assert len(suite.tags) == cases
    assert Seen.looked_at <= 10 * cases
