"""The verdict: promoted on evidence only, and refused for each reason by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_samples import record

from pytest_touchstone.errors import SettingsError
from pytest_touchstone.gate import Evidence
from pytest_touchstone.improve import PromotionPolicy, Refusal, Side, hopeless, promote, untried
from pytest_touchstone.improve_text import by_tag, headline, verdict_lines

SUITE = "evals/test_triage.py::test_triage"


def side(holdout, train="", *, suite=SUITE, **fields):
    """A side from letters, one a case: `p` passed, `f` failed, `e` an error, `-` is not there; `M` and `m` must pass, and did or not."""
    cases, splits = {}, {}
    for split, letters in (("holdout", holdout), ("train", train)):
        for number, letter in enumerate(letters):
            case_id = f"{split[0]}{number}"
            if letter == "-":
                continue
            known = letter != "e"
            values = {"trials": int(known), "passes": int(letter in "pM"), "errors": int(not known), "must_pass": letter in "Mm"}
            cases[case_id] = Evidence(case_id=case_id, content_hash="", tags=("odd" if number % 2 else "even",), **{**values, **fields})
            splits[suite, case_id] = split
    return Side(suites={suite: cases}, splits=splits, outcomes={"passed": len(cases)})


def rules(verdict):
    return [reason.rule for reason in verdict.reasons]


class TestPromoted:
    def test_on_a_significant_gain_without_a_loss(self):
        verdict = promote(side("p" * 30 + "f" * 20, "p" * 30 + "f" * 20), side("p" * 50, "p" * 50))
        assert (verdict.result, verdict.reasons, verdict.notes) == ("promoted", (), ())
        (gain,) = verdict.gains
        assert (gain.compared, gain.before.rate, gain.after.rate, gain.difference) == (50, 0.6, 1.0, pytest.approx(0.4))
        assert gain.p == pytest.approx(0.5**20)
        assert gain.interval.low < 0.4 < gain.interval.high
        assert (len(verdict.fixed), len(verdict.broken)) == (40, 0)
        assert headline(verdict) == "promoted: the tuned model is better on cases that it never saw, and lost nothing that counts"

    def test_although_a_few_of_those_that_passed_fail_now(self):
        verdict = promote(side("p" * 60 + "f" * 40), side("p" * 58 + "ff" + "p" * 40))
        assert verdict.result == "promoted"
        assert [case.case_id for _, case in verdict.broken] == ["h58", "h59"]
        assert verdict.notes == (
            f"{SUITE} holdout: of what passed before, up to 11.5% may be forgotten (95% interval); more cases would tell",
        )

    def test_although_a_case_lost_its_verdict_where_that_changes_nothing(self):
        verdict = promote(side("p" * 30 + "f" * 20), side("p" * 29 + "e" + "p" * 20))
        assert (verdict.result, verdict.notes) == ("promoted", ("1 case that had a verdict before has none that counts now: h29",))


class TestRefused:
    def test_without_a_gain(self):
        verdict = promote(side("p" * 30 + "f" * 20), side("p" * 32 + "f" * 18))
        assert verdict.reasons == (
            Refusal(
                rule="gain",
                text=(
                    f"no significant gain on holdout: {SUITE}: 50 cases, 60.0% before, 64.0% after, +4.0 points (95% interval -3.4 to "
                    "+13.5); p 0.25 (exact McNemar, one-sided); a gain of about 19.0 points or more would have been seen 4 times of 5"
                ),
            ),
        )
        assert headline(verdict) == "refused: no significant gain on the holdout cases"

    def test_where_only_train_got_better(self):
        assert rules(promote(side("p" * 30 + "f" * 20, "f" * 50), side("p" * 30 + "f" * 20, "p" * 50))) == ["gain"]

    def test_for_too_few_holdout_cases_that_could_improve(self):
        verdict = promote(side("p" * 90 + "f" * 6), side("p" * 96))
        (reason,) = verdict.reasons
        assert reason.text == (
            "too few holdout cases fail to tell a gain from chance: 96 can be compared and 6 of them fail; even if all were mended, an "
            "unchanged model looks this good in 1 of 64 runs (allowed are 1 of 100 runs)"
        )

    def test_without_a_holdout_case(self):
        assert hopeless(side("", "ffff")) == Refusal(rule="cases", text="no holdout case has a verdict, and nothing else measures a gain")

    def test_for_forgetting_in_spite_of_a_gain(self):
        verdict = promote(side("p" * 60 + "f" * 40), side("p" * 40 + "f" * 20 + "p" * 40))
        assert rules(verdict) == ["forgetting"]
        assert verdict.reasons[0].text.startswith(
            f"it forgot more than the 5 in 100 that are allowed: {SUITE} holdout: 20 of 60 cases that passed before fail now (95% interval "
        )

    def test_for_forgetting_half_of_few(self):
        assert rules(promote(side("p" * 10 + "f" * 10, "p" * 10), side("p" * 20, "p" * 5 + "f" * 5))) == ["forgetting"]

    def test_for_one_lost_case_where_none_may_be(self):
        strict = PromotionPolicy(max_forgetting=0)
        assert rules(promote(side("p" * 30 + "f" * 20), side("f" + "p" * 49), strict)) == ["forgetting"]
        assert promote(side("p" * 30 + "f" * 20), side("p" * 50), strict).result == "promoted"

    def test_for_a_loss_in_another_suite(self):
        better = (side("p" * 30 + "f" * 20), side("p" * 50))
        worse = (side("", "p" * 200, suite="other"), side("", "p" * 192 + "f" * 8, suite="other"))
        both = [Side(suites={**a.suites, **b.suites}, splits={**a.splits, **b.splits}) for a, b in zip(better, worse, strict=True)]
        verdict = promote(*both)
        assert rules(verdict) == ["loss"]
        assert verdict.reasons[0].text.startswith(
            "other train got worse: 200 cases, 100.0% before, 96.0% after, -4.0 points (95% interval "
        )

    def test_for_holdout_that_was_forgotten_where_train_was_learned_by_heart(self):
        """The pooled rate would hide it."""
        before, after = side("p" * 40 + "f" * 60, "p" * 300), side("p" * 25 + "f" * 15 + "p" * 60, "p" * 300)
        assert rules(promote(before, after)) == ["forgetting"]

    def test_for_a_case_that_must_pass(self):
        verdict = promote(side("M" + "p" * 29 + "f" * 20), side("m" + "p" * 49))
        assert verdict.reasons == (Refusal(rule="must_pass", text="1 case that must pass failed: h0"),)

    def test_for_verdicts_that_might_have_decided(self):
        verdict = promote(side("p" * 42 + "f" * 8), side("p" * 48 + "ee"))
        assert rules(verdict) == ["gain"]
        verdict = promote(side("p" * 40 + "f" * 10), side("p" * 30 + "e" * 10 + "p" * 10))
        assert rules(verdict) == ["verdicts"]
        assert verdict.reasons[0].text.startswith(
            "10 cases that had a verdict before have none that counts now: h30, h31, h32, h33, h34 and 5 more; if they failed: "
        )

    def test_where_everything_broke(self):
        verdict = promote(side("p" * 30 + "f" * 20), side("e" * 50))
        assert rules(verdict) == ["gain"]
        assert "no case can be compared with the baseline" in verdict.reasons[0].text
        assert verdict.notes == ("50 cases that had a verdict before have none that counts now: h0, h1, h2, h3, h4 and 45 more",)

    def test_where_nothing_was_trained(self):
        before = side("p" * 9, "f")
        reason = hopeless(before)
        verdict = untried(before, reason)
        assert (verdict.result, verdict.reasons, verdict.notes, dict(verdict.after)) == ("refused", (reason,), ("nothing was trained",), {})
        assert list(verdict_lines(verdict))[-2:] == ["refused: the holdout cases cannot tell whether a model is better", f"  {reason.text}"]


class TestSides:
    def test_a_side_is_made_of_trials(self):
        trials = [record("a", split="holdout"), record("a", "failed", split="holdout", number=2), record("b", "error")]
        found = Side.of(trials)
        assert (found.suites[trials[0].suite]["a"].trials, found.suites[trials[0].suite]["a"].passes) == (2, 1)
        assert {case_id: split for (_, case_id), split in found.splits.items()} == {"a": "holdout", "b": "train"}
        assert found.outcomes == {"passed": 1, "failed": 1, "error": 1}

    def test_a_case_that_was_train_on_any_side_measures_nothing(self):
        before, after = side("f" * 20), side("p" * 20)
        moved = Side(suites=after.suites, splits=dict.fromkeys(after.splits, "train"))
        assert promote(before, after).result == "promoted"
        verdict = promote(before, moved)
        assert (rules(verdict), verdict.gains) == (["gain"], ())
        assert verdict.reasons[0].text == "no significant gain on holdout: nothing to compare"

    def test_by_tag(self):
        (part,) = promote(side("p" * 30 + "f" * 20), side("p" * 50)).parts.suites
        assert [(tag.suite, tag.compared) for tag in by_tag(part)] == [("even", 25), ("odd", 25)]


def test_the_terminal_shows_every_number_and_nothing_that_acts():
    evil = "x\x1b[31m"
    verdict = promote(side("p" * 30 + "f" * 20, suite=evil), side("p" * 50, suite=evil))
    lines = list(verdict_lines(verdict))
    assert not any("\x1b" in line for line in lines)
    assert lines[1].split() == [r"x\x1b[31m", "holdout", "50", "60.0%", "100.0%", "+40.0", "+27.6", "to", "+53.8", "20", "0"]
    assert lines[-1] == headline(verdict)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 1.5}, "improve: alpha is 1.5; give a number between 0 and 1"),
        ({"max_forgetting": -1}, "improve: max_forgetting is -1; give points from 0 to less than 100"),
    ],
)
def test_a_policy_that_cannot_be_meant(values, message):
    with pytest.raises(SettingsError) as error:
        PromotionPolicy(**values)
    assert str(error.value) == message


LETTERS = st.text("pfe", min_size=1, max_size=40)
PAIRS = st.integers(1, 40).flatmap(lambda n: st.tuples(*[st.text("pfe", min_size=n, max_size=n)] * 2))


@given(PAIRS, LETTERS)
def test_no_case_is_dropped(pair, train):
    verdict = promote(side(pair[0], train), side(pair[1], train))
    counted = sum(sum(part.counts.values()) for part in verdict.parts.suites)
    assert counted == len(pair[0]) + len(train)


@given(LETTERS, LETTERS)
def test_an_unchanged_model_is_never_promoted(holdout, train):
    same = side(holdout, train)
    assert promote(same, same).result == "refused"


@given(PAIRS)
def test_a_promotion_has_a_gain_that_is_significant(pair):
    verdict = promote(side(pair[0]), side(pair[1]))
    (gain,) = verdict.gains
    if verdict.result == "promoted":
        assert gain.difference > 0
        assert gain.p_adjusted <= 0.01
    else:
        assert verdict.reasons
    assert promote(side(pair[1]), side(pair[0])).result == "refused" or verdict.result == "refused"


@given(PAIRS, st.data())
def test_failing_once_more_never_promotes(pair, data):
    before, after = pair
    place = data.draw(st.integers(0, len(after) - 1))
    if promote(side(before), side(after)).result == "refused":
        assert promote(side(before), side(after[:place] + after[place].replace("p", "f") + after[place + 1 :])).result == "refused"


def test_a_model_that_only_wavers_is_rarely_promoted_or_called_forgetful():
    """Seeded: one case in ten passes by the throw of a coin, so 5 % flip from run to run, and nothing changed."""
    draw = random.Random(20261129)
    found = []
    for _ in range(60):
        sure = ["p" if draw.random() < 0.89 else "f" for _ in range(200)]
        flaky = [draw.random() < 0.1 for _ in range(200)]
        state, again = ([draw.choice("pf") if wavers else letter for letter, wavers in zip(sure, flaky, strict=True)] for _ in range(2))
        found.append(rules(promote(side("".join(state)), side("".join(again)))))
    assert all(found), "none was promoted"
    assert sum("forgetting" in reasons for reasons in found) == 0
    assert sum("loss" in reasons for reasons in found) <= 2
