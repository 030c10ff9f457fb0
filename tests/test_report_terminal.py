"""How trials and tallies read: folded, aligned, and with nothing that acts on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.cases import Case
from pytest_touchstone.report.model import Cost, summarize
from pytest_touchstone.report.terminal import (
    Failure,
    as_pairs,
    call_lines,
    from_pairs,
    further_failures,
    plain,
    quarantine_lines,
    summary_table,
    trial_block,
    unpriced_note,
)
from pytest_touchstone.trial import Call, Score, Trial, TrialRecord, Usage


def trial(output=None, *, set_output=True, scores=(), calls=(), judge_calls=(), **case):
    made = Trial(Case(**{"id": "gift", "input": "Can I swap it?", "source": "support.yaml:14", "split": "train", **case}))
    if set_output:
        made.output = output
    made.scores += scores
    made.calls += calls
    made.judge_calls += judge_calls
    return made


def record(**fields):
    defaults = {"nodeid": "t.py::test[a]", "suite": "t.py::test", "case_id": "a", "source": "a:1", "content_hash": "", "split": "train"}
    return TrialRecord(**{**defaults, "outcome": "passed", **fields})


OUTCOMES = [
    record(case_id=str(index), outcome=outcome, tags=("even",) if index % 2 == 0 else ())
    for index, outcome in enumerate(["passed", "passed", "failed", "error", "unscored", "not_run"])
]
PRICED = Call(provider="openai", model="m", usage=Usage(input_tokens=10, output_tokens=5), cost_usd=0.5)
UNPRICED = Call(provider="local", model="m", usage=Usage(input_tokens=1), cost_reason="no price is known for m at local")
JUDGED = Call(role="judge", provider="openai", model="j", usage=Usage(input_tokens=1, output_tokens=1), cost_usd=0.25)


def test_a_block_says_where_what_and_how_well():
    shown = trial(
        "Sure.",
        expected="Yes.",
        tags=["gifts", "swap"],
        must_pass=True,
        scores=[
            Score(name="exact_match", value=0.0, passed=False, reason='expected "Yes.", got "Sure."'),
            Score(name="judge", value=1.0, passed=True, reason="polite", judge="openai:m#12345678"),
            Score.unscored("panel", "it refused"),
        ],
        calls=[Call(provider="openai", model="m", usage=Usage(input_tokens=1200, output_tokens=7), latency_s=0.8124, cost_usd=0.00123)],
        judge_calls=[
            Call(
                role="judge",
                provider="local",
                model="j",
                replayed=True,
                latency_s=0.1,
                cost_reason="no price is known for local",
                error="HTTP 400",
            )
        ],
    )
    assert plain(trial_block(shown)) == (
        "case gift (support.yaml:14)\n"
        "  split train; tags gifts, swap; must pass\n"
        "input\n"
        "  Can I swap it?\n"
        "- expected, + output\n"
        "  - Yes.\n"
        "  + Sure.\n"
        "scores\n"
        '  failed   exact_match 0.00 expected "Yes.", got "Sure."\n'
        "  passed   judge 1.00 polite\n"
        "           judged by openai:m#12345678\n"
        "  unscored panel      it refused\n"
        "calls\n"
        "  openai m, 812 ms, 1,200 + 7 tokens, cost $0.0012\n"
        "  judge local j, 100 ms (replayed), unknown + unknown tokens, cost unknown (no price is known for local)\n"
        "    HTTP 400\n"
        "  in all: 2 calls, >= 1,200 + >= 7 tokens, cost $0.0012 now, unknown when recorded"
    )


def test_json_is_compared_as_structure_even_where_the_output_is_text():
    shown = plain(trial_block(trial('{"b": 2, "a": 1}', expected={"a": 1, "b": 3, "c": [1]})))
    assert '-   "b": 3,' in shown
    assert '+   "b": 2' in shown
    assert '    "a": 1,' in shown


def test_text_that_is_no_json_is_compared_as_text():
    assert "  + Sure." in plain(trial_block(trial("Sure.", expected={"a": 1})))


def test_equal_texts_show_no_diff():
    assert "output (equal to expected)\n  Yes." in plain(trial_block(trial("Yes.", expected="Yes.")))


def test_without_an_expectation_the_output_stands_alone():
    assert "output\n  Sure." in plain(trial_block(trial("Sure.")))


@pytest.mark.parametrize("expected", [None, "Yes."])
def test_an_output_that_was_never_set_is_said_so(expected):
    shown = plain(trial_block(trial(set_output=False, expected=expected)))
    assert shown.endswith("output\n  not set: the test ended before case.output was")
    assert ("expected\n  Yes." in shown) == (expected is not None)


def test_unchanged_lines_between_differences_are_left_out():
    before = "\n".join(f"line {number}" for number in range(50))
    shown = plain(trial_block(trial(before.replace("line 25", "LINE"), expected=before)))
    assert "- line 25\n  + LINE" in shown
    assert "line 10" not in shown
    assert "..." in shown


def test_long_texts_are_folded_unless_all_is_asked_for():
    long = trial("x" * 1000 + "\n" + "\n".join(map(str, range(100))))
    assert "... (600 more characters, -vv shows them)" in plain(trial_block(long))
    assert "... (71 more lines, -vv shows them)" in plain(trial_block(long))
    assert "more" not in plain(trial_block(long, full=True))


def test_huge_texts_are_shown_whole_rather_than_compared():
    before, after = "\n".join(map(str, range(3000))), "\n".join(map(str, range(1, 3001)))
    assert "... (5,970 more lines, -vv shows them)" in plain(trial_block(trial(after, expected=before)))


def test_only_the_last_calls_are_shown():
    calls = [Call(provider="openai", model=f"m{number}") for number in range(8)]
    shown = plain(trial_block(trial("x", calls=calls)))
    assert "... (3 earlier calls, -vv shows them)\n  openai m3, latency unknown" in shown
    assert "openai m0" in plain(trial_block(trial("x", calls=calls), full=True))


def test_messages_read_as_a_conversation():
    shown = plain(trial_block(trial("x", input=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])))
    assert "input\n  user: Hi\n  assistant: Hello" in shown


@pytest.mark.parametrize(("output", "text"), [(object, "<class 'object'>"), ({"b": 1, "a": None}, '"a": null')])
def test_any_output_can_be_shown(output, text):
    assert text in plain(trial_block(trial(output)))


@given(st.text(st.characters(codec=None), max_size=40), st.text(st.characters(codec=None), max_size=40))
def test_nothing_untrusted_reaches_the_terminal_as_it_is(output, reason):
    shown = trial(
        output,
        expected="x",
        scores=[Score.unscored(reason or "n", reason)],
        calls=[Call(provider=reason, model=output, error=output or "e")],
    )
    text = plain(trial_block(shown, full=True))
    assert not any(character in text for character in "\x1b\r\x07\x9b\u202e\ud800")
    assert text.encode()


def test_calls_of_one_kind_are_added_up_apart():
    shown = plain(trial_block(trial("x", calls=[PRICED, PRICED], judge_calls=[JUDGED])))
    assert "\n  app: 2 calls, 20 + 10 tokens, cost $1.00\n  in all: 3 calls, 21 + 11 tokens, cost $1.25" in shown


def test_one_call_is_not_added_up():
    assert "app:" not in plain(trial_block(trial("x", calls=[Call(provider="openai", model="m")])))


def test_the_table_counts_every_trial_by_suite_and_tag():
    assert plain(summary_table(summarize([*OUTCOMES, record(suite="t.py::other")]))) == (
        "suite        cases  passed  failed  error  unscored  not run  pass rate\n"
        "t.py::test       6       2       1      1         1        1      66.7%\n"
        "  even           3       1       1      0         1        0      50.0%\n"
        "t.py::other      1       1       0      0         0        0     100.0%"
    )


def test_the_table_adds_up_what_the_application_asked():
    suites = summarize([*OUTCOMES, record(suite="t.py::other", calls=(PRICED, UNPRICED))])
    assert plain(summary_table(suites)) == (
        "suite        cases  passed  failed  error  unscored  not run  pass rate  calls  tokens in   out        cost\n"
        "t.py::test       6       2       1      1         1        1      66.7%      0          -     -           -\n"
        "  even           3       1       1      0         1        0      50.0%      0          -     -           -\n"
        "t.py::other      1       1       0      0         0        0     100.0%      2      >= 10  >= 5  >= $0.5000"
    )
    assert plain(call_lines(suites)) == (
        "app: 2 calls, >= 10 + >= 5 tokens, cost at least $0.5000 (1 call without a price: no price is known for m at local)"
    )


def test_judges_have_a_column_and_a_line_of_their_own():
    suites = summarize([record(calls=(JUDGED, JUDGED)), record(suite="t.py::other", calls=(PRICED,))])
    header, first, second = plain(summary_table(suites)).splitlines()
    assert header.split()[-4:] == ["out", "cost", "judge", "cost"]
    assert first.split()[-5:] == ["0", "-", "-", "-", "$0.5000"]
    assert second.split()[-5:] == ["1", "10", "5", "$0.5000", "-"]
    assert plain(call_lines(suites)) == (
        "app: 1 call, 10 + 5 tokens, cost $0.5000\njudges: 2 calls, 2 + 2 tokens, cost $0.5000\nin all: 3 calls, 12 + 7 tokens, cost $1.00"
    )


def test_what_is_paid_now_and_what_replayed_calls_cost_are_told_apart():
    replayed = [Call(provider="openai", model="m", cost_usd=0.6, replayed=True)] * 2
    assert plain(call_lines(summarize([record(calls=replayed)]))) == (
        "app: 2 calls, unknown + unknown tokens, cost $0.00 now, $1.20 when recorded"
    )
    assert plain(call_lines(summarize([record(calls=[*replayed, PRICED])]))).endswith("cost $0.5000 now, $1.20 when recorded")


def test_a_rate_of_nothing_is_unknown():
    table = plain(summary_table(summarize([record(outcome="error", calls=(Call(provider="p", model="m"),))])))
    assert table.splitlines()[1].split()[-5:] == ["-", "1", "unknown", "unknown", "unknown"]
    assert call_lines(summarize([record()])) == []


def test_reasons_for_a_missing_price_are_given_once():
    lines = plain(call_lines(summarize([record(calls=(UNPRICED, JUDGED))]))).splitlines()
    assert lines == [
        "app: 1 call, unknown + unknown tokens, cost unknown",
        "judges: 1 call, 1 + 1 tokens, cost $0.2500",
        "in all: 2 calls, >= 1 + >= 1 tokens, cost at least $0.2500 (1 call without a price: no price is known for m at local)",
    ]


def test_reasons_for_a_missing_price_are_few_and_safe():
    assert unpriced_note(Cost()) == ""
    note = unpriced_note(Cost(usd=None, unpriced=1200, reasons=("a \x1b", "b", "c", "d")))
    assert note == " (1,200 calls without a price: a \\x1b; b; and 2 more)"
    assert unpriced_note(Cost(usd=None, unpriced=1)) == " (1 call without a price)"


def test_further_failures_are_a_line_each_and_say_how_to_see_more():
    failures = [
        Failure(nodeid="t.py::test[late return's]", case_id="late return's", reason="failed exact_match: expected 1, got 2\x1b"),
        Failure(nodeid="t.py::test[gift]", case_id="gift", reason="x" * 500),
        Failure(nodeid="t.py::test[none]", case_id="none", reason=""),
    ]
    lines = plain(further_failures({"t.py::test": failures, "t.py::other": failures[1:2]}, width=60)).splitlines()
    assert lines[:2] == ["3 more of t.py::test, a line each", "  late return's  failed exact_match: expected 1, got 2\\x1b"]
    assert lines[2] == f"  gift{' ' * 11}{'x' * 28}…{'x' * 14}"
    assert lines[3:5] == ["  none", "1 more of t.py::other, a line each"]
    assert lines[-2:] == [
        """one of them in full: pytest --llm-eval 't.py::test[late return'"'"'s]' -vv""",
        "all in full: --llm-show all",
    ]


def test_a_narrow_terminal_leaves_room_for_a_reason():
    failure = Failure(nodeid="t.py::test[a]", case_id="a" * 100, reason="x" * 100)
    (_, text), *_ = further_failures({"t.py::test": [failure]}, width=20)[1:]
    assert text == f"  {'a' * 26}…{'a' * 13}  {'x' * 26}…{'x' * 13}"


def test_many_tags_are_counted_unless_all_are_asked_for():
    suites = summarize([record(tags=tuple(f"tag{number:02}" for number in range(25)))])
    assert plain(summary_table(suites)).splitlines()[-1] == "  and 5 more tags (-v shows them)"
    assert plain(summary_table(suites, all_tags=True)).splitlines()[-1].startswith("  tag24")


def test_a_block_says_that_its_case_is_in_quarantine_and_until_when():
    lines = plain(trial_block(trial("x", quarantine={"reason": "slow vendor", "until": "2026-12-31"}))).splitlines()
    assert lines[1] == "  split train; quarantined until 2026-12-31: slow vendor"


QUARANTINED = [
    record(case_id="late", outcome="failed", quarantine="slow vendor"),
    record(case_id="other", outcome="failed"),
    record(case_id="gift", quarantine="the \x1b[2J vendor"),
    record(case_id="late", quarantine="slow vendor"),
    record(case_id="late", suite="t.py::more", outcome="not_run", quarantine="slow vendor"),
]


def test_cases_in_quarantine_are_counted_in_one_line():
    assert quarantine_lines(QUARANTINED) == [("", "quarantined: 3 cases, 2 of them did not pass (-v says why)")]
    assert quarantine_lines(QUARANTINED[2:3]) == [("", "quarantined: 1 case, 0 of them did not pass (-v says why)")]
    assert quarantine_lines([record(outcome="failed")], reasons=True) == []


def test_the_reasons_of_quarantine_are_a_line_for_each_case_and_safe():
    assert quarantine_lines(QUARANTINED, reasons=True) == [
        ("", "quarantined: 3 cases, 2 of them did not pass"),
        ("dim", "  t.py::test late (1 failed, 1 passed): slow vendor"),
        ("dim", "  t.py::test gift (1 passed): the \\x1b[2J vendor"),
        ("dim", "  t.py::more late (1 not run): slow vendor"),
    ]


def test_lines_travel_as_plain_lists():
    lines = trial_block(trial("x"))
    assert from_pairs(as_pairs(lines)) == lines
    assert from_pairs([["blink", "x"]]) == [("", "x")]
