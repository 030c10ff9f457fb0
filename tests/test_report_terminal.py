"""How trials and tallies read: folded, aligned, and with nothing that acts on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.cases import Case
from pytest_touchstone.report.model import summarize
from pytest_touchstone.report.terminal import as_pairs, from_pairs, judge_line, plain, summary_table, trial_block
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
        "    HTTP 400"
    )


def test_json_is_compared_as_structure_even_where_the_output_is_text():
    shown = plain(trial_block(trial('{"b": 2, "a": 1}', expected={"a": 1, "b": 3, "c": [1]})))
    assert '-   "b": 3,' in shown
    assert '+   "b": 2' in shown
    assert '    "a": 1,' in shown


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


def test_the_table_counts_every_trial_by_suite_and_tag():
    calls = (
        Call(provider="openai", model="m", usage=Usage(input_tokens=10, output_tokens=5), cost_usd=0.5),
        Call(provider="local", model="m", usage=Usage(input_tokens=1)),
        Call(role="judge", provider="openai", model="j", usage=Usage(input_tokens=1, output_tokens=1), cost_usd=0.25),
    )
    outcomes = ["passed", "passed", "failed", "error", "unscored", "not_run"]
    records = [
        record(case_id=str(index), outcome=outcome, tags=("even",) if index % 2 == 0 else ()) for index, outcome in enumerate(outcomes)
    ]
    suites = summarize([*records, record(suite="t.py::other", calls=calls)])
    assert plain(summary_table(suites)) == (
        "suite        cases  passed  failed  error  unscored  not run  pass rate  calls            tokens                  cost\n"
        "t.py::test       6       2       1      1         1        1      66.7%      0                 -                     -\n"
        "  even           3       1       1      0         1        0      50.0%      0                 -                     -\n"
        "t.py::other      1       1       0      0         0        0     100.0%      2  15 + 1 uncounted  $0.5000 + 1 unpriced"
    )
    assert judge_line(suites) == ("", "judges: 1 call, 2 tokens, cost $0.2500")


def test_a_rate_of_nothing_is_unknown():
    table = plain(summary_table(summarize([record(outcome="error", calls=(Call(provider="p", model="m"),))])))
    assert table.splitlines()[1].split()[-4:] == ["-", "1", "unknown", "unknown"]
    assert judge_line(summarize([record()])) is None


def test_many_tags_are_counted_unless_all_are_asked_for():
    suites = summarize([record(tags=tuple(f"tag{number:02}" for number in range(25)))])
    assert plain(summary_table(suites)).splitlines()[-1] == "  and 5 more tags (-v shows them)"
    assert plain(summary_table(suites, all_tags=True)).splitlines()[-1].startswith("  tag24")


def test_lines_travel_as_plain_lists():
    lines = trial_block(trial("x"))
    assert from_pairs(as_pairs(lines)) == lines
    assert from_pairs([["blink", "x"]]) == [("", "x")]
