"""What a failing golden test shows: the trial, the user's own frames, and nothing of this plugin or an SDK."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from pytest_touchstone.plugin.tracebacks import error_repr

CASES = """
cases:
  - id: late-return
    input: Can I return shoes after 40 days?
    expected: No. Returns are accepted within 30 days.
    tags: [refunds]
    split: train
"""


@pytest.fixture
def body(pytester):
    def write(*lines, head=""):
        folder = pytester.path / "evals"
        folder.mkdir(exist_ok=True)
        (folder / "support.yaml").write_text(CASES, encoding="utf-8")
        source = "\n".join(
            ["import pytest", head, "@pytest.mark.golden('support.yaml')", "def test_refunds(case):", *(f"    {line}" for line in lines)]
        )
        (folder / "test_support.py").write_text(source, encoding="utf-8")

    return write


def test_a_failed_check_shows_the_trial_and_no_traceback(body, runner):
    body("case.output = 'Yes, send them back.'", "case.check(lambda trial: trial.output == trial.expected, lambda trial: 0.9)")
    result = runner.run("--llm-eval")
    result.stdout.fnmatch_lines(
        [
            "*= FAILURES =*",
            "*_ test_refunds?late-return? _*",
            "case late-return (evals/support.yaml:3)",
            "  split train; tags refunds",
            "input",
            "  Can I return shoes after 40 days?",
            "- expected, + output",
            "  - No. Returns are accepted within 30 days.",
            "  + Yes, send them back.",
            "scores",
            "  failed   <lambda> 0.00",
            "  passed   <lambda> 0.90 0.9 >= 0.5",
            "*= golden cases =*",
        ]
    )
    text = result.stdout.str()
    assert "Traceback" not in text
    assert "site-packages" not in text
    assert "trial.py" not in text
    assert "case.check(" not in text
    result.stdout.fnmatch_lines(["FAILED evals/test_support.py::test_refunds?late-return? - failed <lambda> 0.00"])


def test_a_plain_assert_shows_the_trial_and_pytests_own_introspection(body, runner):
    body("case.output = 'Yes'", "assert 'No' in case.output")
    result = runner.run("--llm-eval")
    result.stdout.fnmatch_lines(
        ["case late-return (evals/support.yaml:3)", "*>*assert 'No' in case.output", "E*AssertionError: assert 'No' in 'Yes'*"]
    )


def test_an_error_shows_the_apps_frames_and_not_the_librarys(body, runner, pytester):
    (pytester.path / "evals" / "app.py").parent.mkdir(exist_ok=True)
    body("import app", "case.output = app.answer(case.input)")
    (pytester.path / "evals" / "app.py").write_text("import json\n\ndef answer(text):\n    return json.loads(text)\n", encoding="utf-8")
    result = runner.run("--llm-eval")
    assert result.ret == 10
    result.stdout.fnmatch_lines(
        [
            "*= ERRORS =*",
            "*ERROR at call of test_refunds?late-return?*",
            "output",
            "  not set: *",
            "*return json.loads(text)*",
            "E*JSONDecodeError*",
        ]
    )
    assert "raw_decode" not in result.stdout.str()


def test_full_trace_keeps_every_frame(body, pytester):
    body("import json", "json.loads('x')")
    assert "raw_decode" in pytester.runpytest_inprocess("--llm-eval", "--full-trace").stdout.str()


def test_an_error_without_a_frame_of_the_users_is_shown_whole(pytester):
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads("x")
    caught.traceback = caught.traceback[1:]
    assert "raw_decode" in str(error_repr(caught, pytester.parseconfig()))


def test_an_unscored_trial_is_shown_in_a_section_of_its_own(body, runner):
    body(
        "case.output = 'x'",
        "case.check(lambda trial: Score.unscored('judge', 'the judge refused'))",
        head="from pytest_touchstone import Score",
    )
    result = runner.run("--llm-eval")
    result.stdout.fnmatch_lines(
        [
            "*= UNSCORED =*",
            "*_ test_refunds?late-return? _*",
            "case late-return *",
            "  unscored judge      the judge refused",
            "*= golden cases =*",
        ]
    )
    assert "= FAILURES =" not in result.stdout.str()


@pytest.mark.parametrize("style", ["short", "line", "native", "no"])
def test_traceback_styles_keep_their_meaning(body, pytester, style):
    body("case.output = 'Yes'", "case.check(lambda trial: False)")
    result = pytester.runpytest_inprocess("--llm-eval", f"--tb={style}")
    text = result.stdout.str()
    assert ("case late-return (evals/support.yaml:3)" in text) == (style != "no")
    assert result.ret == 1
    if style == "line":
        assert "evals/test_support.py:3: failed <lambda> 0.00" in text


def test_unscored_trials_are_not_printed_with_tb_no(body, pytester):
    body("case.output = 'x'", "case.check(lambda trial: Score.unscored('judge', 'refused'))", head="from pytest_touchstone import Score")
    assert "UNSCORED ===" not in pytester.runpytest_inprocess("--llm-eval", "--tb=no").stdout.str()


@pytest.mark.parametrize(
    "body_line",
    ["case.check(lambda trial: False)", "assert case.output == 'x\\nb'", "raise OSError(case.output)", "pytest.fail(case.output)"],
)
def test_control_characters_from_a_model_are_made_visible(body, runner, body_line):
    body("case.output = '\\x1b[31mred\\nsecond \\u202e line\\x07'", body_line)
    result = runner.run("--llm-eval", "--color=no")
    text = result.stdout.str()
    assert r"\x1b[31mred" in text
    assert not any(character in text for character in "\x1b\x07\u202e")


def test_an_output_with_half_a_character_breaks_no_channel(body, runner):
    body("case.output = '\\ud800'", "case.check(lambda trial: False)")
    result = runner.run("--llm-eval", "--junitxml=out.xml")
    assert result.ret == 1
    assert r"\ud800" in result.stdout.str()


def test_colours_mark_the_difference(body, runner):
    body("case.output = 'Yes'", "case.check(lambda trial: False)")
    text = runner.run("--llm-eval", "--color=yes").stdout.str()
    assert "\x1b[31m  - No. Returns are accepted within 30 days.\x1b[0m" in text
    assert "\x1b[32m  + Yes\x1b[0m" in text


def test_junit_holds_the_same_text(body, runner, pytester):
    body("case.output = 'Yes'", "case.check(lambda trial: False)")
    runner.run("--llm-eval", "--junitxml=out.xml")
    failure = next(ET.parse(pytester.path / "out.xml").iter("failure"))
    assert failure.get("message") == "failed <lambda> 0.00"
    assert "case late-return (evals/support.yaml:3)" in failure.text


def test_very_verbose_unfolds(body, pytester):
    body("case.output = 'x' * 1000", "case.check(lambda trial: False)")
    assert "602 more characters, -vv shows them" in pytester.runpytest_inprocess("--llm-eval").stdout.str()
    assert "more characters" not in pytester.runpytest_inprocess("--llm-eval", "-vv").stdout.str()


COSTS = """
import pytest
from pytest_touchstone import Score
from pytest_touchstone.trial import Call, Usage

NOW = Call(provider="p", model="m", usage=Usage(input_tokens=10, output_tokens=2), cost_usd=0.25, latency_s=0.5)
REPLAYED = Call(provider="p", model="m", usage=Usage(input_tokens=10, output_tokens=2), cost_usd=0.6, replayed=True, latency_s=0.5)
JUDGED = Call(role="judge", provider="p", model="j", cost_reason="no price is known for j at p")

@pytest.mark.golden([{"id": name, "input": "x"} for name in ("a", "b")])
def test_it(case):
    case.output = "x"
    for call in (NOW, REPLAYED, JUDGED):
        case.add_call(call)
    assert case.id == "a"
"""


def test_tokens_and_cost_are_summed_by_trial_suite_and_run(pytester, runner):
    pytester.makepyfile(test_suite=COSTS)
    result = runner.run("--llm-eval")
    result.stdout.fnmatch_lines(
        [
            "calls",
            "  p m, 500 ms, 10 + 2 tokens, cost $0.2500",
            "  p m, 500 ms (replayed), 10 + 2 tokens, cost $0.6000",
            "  judge p j, latency unknown, unknown + unknown tokens, cost unknown (no price is known for j at p)",
            "  app: 2 calls, 20 + 4 tokens, cost $0.2500 now, $0.6000 when recorded",
            "  in all: 3 calls, >= 20 + >= 4 tokens, cost at least $0.2500 now, $0.6000 when recorded",
            "suite * pass rate  calls  tokens in  out   cost  judge cost",
            "test_suite.py::test_it * 50.0%      4         40    8  $1.70     unknown",
            "app: 4 calls, 40 + 8 tokens, cost $0.5000 now, $1.20 when recorded",
            "judges: 2 calls, unknown + unknown tokens, cost unknown",
            "in all: 6 calls, >= 40 + >= 8 tokens, cost at least $0.5000 now, $1.20 when recorded (2 calls without a price: *j at p)",
        ]
    )


QUARANTINED = """
cases:
  - {id: a, input: x, quarantine: {reason: the vendor answers at random, until: 9999-12-31}}
  - {id: b, input: x}
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["quarantined: 1 case, 0 of them did not pass (-v says why)"]),
        (
            ("-v", "--llm-repeat", "2"),
            ["quarantined: 1 case, 0 of them did not pass", "  test_suite.py::test_it a (2 passed): the vendor answers at random"],
        ),
    ],
)
def test_cases_in_quarantine_are_counted_in_the_summary(pytester, runner, arguments, expected):
    (pytester.path / "cases.yaml").write_text(QUARANTINED, encoding="utf-8")
    pytester.makepyfile(test_suite="import pytest\n@pytest.mark.golden('cases.yaml')\ndef test_it(case): pass")
    result = runner.run("--llm-eval", *arguments)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*= golden cases =*", "test_suite.py::test_it *", *expected], consecutive=False)


def test_reports_that_are_kept_to_the_end_are_small(body, pytester):
    body("case.output = 'x' * 10_000", "case.check(lambda trial: False)")
    pytester.makeconftest("""
        def pytest_terminal_summary(terminalreporter):
            (report,) = terminalreporter.stats["failed"]
            print("kept:", *report.touchstone, *report.touchstone["record"])
    """)
    result = pytester.runpytest_inprocess("--llm-eval")
    result.stdout.fnmatch_lines(["kept: record suite case_id outcome reason"])
