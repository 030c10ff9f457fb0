"""The gate through pytest: what fails no run by itself, what is decided in the end, and the second stage."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from running import Runner

from pytest_touchstone.runs import GateWord, RunStore
from pytest_touchstone.settings import ExitStatus

TEST = """
import json
from pathlib import Path

import pytest
from pytest_touchstone import Score, exact_match

FAILING = json.loads(Path(__file__).with_name("failing.json").read_text())
CASES = [{"id": f"c{n}", "input": str(n), "expected": "ok", "split": "train", "must_pass": n == 0} for n in range(%d)]

%s
@pytest.mark.golden(CASES)
def test_shop(case):
    numbers = FAILING.get(case.id, [])
    if numbers == "broken":
        raise RuntimeError("the app broke")
    case.output = "no" if case.number in numbers else "ok"
    case.check(exact_match())
"""


class Shop:
    """A suite of golden tests whose failures can be chosen: for each case the numbers of the trials that fail, or "broken"."""

    def __init__(self, pytester, runner):
        self.path = pytester.path
        self.runner = runner
        self.write()

    def write(self, cases=30, marker=""):
        (self.path / "test_shop.py").write_text(TEST % (cases, marker), encoding="utf-8")

    def run(self, *arguments, failing=()):
        told = failing if isinstance(failing, dict) else {id_: [1] for id_ in failing}
        (self.path / "failing.json").write_text(json.dumps(told), encoding="utf-8")
        return self.runner.run("--llm-eval", *arguments)

    def accept(self, *arguments, failing=()):
        result = self.run("--snapshot-update", *arguments, failing=failing)
        assert (self.path / "__snapshots__" / "test_shop.touchstone").exists()
        return result

    def gate(self, *arguments, failing=()):
        return self.run("--llm-gate", "regression", *arguments, failing=failing)


@pytest.fixture
def shop(pytester, runner):
    return Shop(pytester, runner)


def some(first, last):
    return [f"c{n}" for n in range(first, last + 1)]


class TestDecisions:
    def test_the_same_failures_pass_as_known(self, shop):
        shop.accept(failing=some(1, 3))
        result = shop.gate("--junitxml=out.xml", failing=some(1, 3))
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(
            [
                "*= gate =*",
                "test_shop.py::test_shop: passed: 0 of 30 cases got worse, 0 got better",
                "  known: 3 cases failed before and fail again",
                "*27 passed, 3 known in *",
            ]
        )
        reasons = [case.get("message") for case in ET.parse(shop.path / "out.xml").iter("skipped")]
        assert reasons == ["it failed in the baseline too"] * 3

    def test_a_flip_is_told_in_full_and_fails_nothing_by_itself(self, shop):
        shop.accept()
        result = shop.gate("-x", failing=["c7"])
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(
            [
                "*= WORSE OR FLAKY =*",
                "case c7 (list[[]7[]])",
                '  failed   exact_match 0.00 expected "ok", got "no"',
                "test_shop.py::test_shop: passed: 1 of 30 cases got worse, 0 got better",
                "  worse: c7 (1 of 1 before, 0 of 1 now)",
                "*29 passed, 1 worse in *",
            ]
        )

    def test_what_was_decided_is_stored_with_the_run(self, shop):
        shop.accept()
        result = shop.gate(failing=some(1, 9))
        store = RunStore.open(".touchstone/runs.db", base=shop.path)
        gated, accepted = store.runs()
        assert (gated.exit_status, gated.gate.result) == (ExitStatus.REGRESSED, "regressed")
        assert gated.gate.lines[0] == "test_shop.py::test_shop: regressed: 9 of 30 cases got worse, 0 got better"
        assert [line for line in gated.gate.lines if line not in result.outlines] == []
        assert accepted.gate is None

    def test_why_nothing_was_decided_is_stored_with_the_run(self, shop):
        shop.accept()
        shop.gate("--snapshot-update")
        newest = RunStore.open(".touchstone/runs.db", base=shop.path).runs(limit=1)[0]
        assert newest.gate == GateWord(result=None, lines=("the baseline was updated, so nothing is held against it",))

    def test_many_flips_are_a_regression_with_a_status_of_its_own(self, shop):
        shop.accept()
        result = shop.gate(failing=some(1, 9))
        assert result.ret == ExitStatus.REGRESSED
        result.stdout.fnmatch_lines(
            [
                "test_shop.py::test_shop: regressed: 9 of 30 cases got worse, 0 got better",
                "  more than chance explains: *",
                "  pass rate 100.0% before, 70.0% now: -30.0 points *",
                "  worse: c1 (1 of 1 before, 0 of 1 now)",
                "*21 passed, 9 worse in *",
            ]
        )

    def test_what_may_be_chance_is_undecided_and_warns_or_fails(self, shop):
        shop.accept()
        result = shop.gate(failing=some(1, 4))
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["test_shop.py::test_shop: undecided: 4 of 30 cases got worse, 0 got better"])
        assert shop.gate("--llm-undecided", "fail", failing=some(1, 4)).ret == ExitStatus.UNDECIDED

    def test_a_case_that_must_pass_fails_the_run(self, shop):
        shop.accept()
        result = shop.gate(failing=["c0"])
        assert result.ret == ExitStatus.REGRESSED
        result.assert_outcomes(passed=29, failed=1)
        result.stdout.fnmatch_lines(["  1 case that must pass failed: c0"])

    def test_a_failure_without_a_baseline_fails_the_run(self, shop):
        shop.write(cases=20)
        shop.accept()
        shop.write(cases=21)
        result = shop.gate(failing=["c20"])
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=20, failed=1)

    def test_without_any_baseline_the_tests_are_held_to_themselves(self, shop):
        result = shop.gate(failing=["c1"])
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(
            ["test_shop.py::test_shop has no baseline, so its failures fail the run; --snapshot-update accepts one"]
        )

    def test_an_error_is_no_flip(self, shop):
        shop.accept()
        result = shop.gate(failing={"c1": "broken"})
        assert result.ret == ExitStatus.ERRORS
        result.assert_outcomes(passed=29, errors=1)
        result.stdout.fnmatch_lines(["test_shop.py::test_shop: undecided: *"])

    def test_a_case_that_wavered_in_the_baseline_is_flaky(self, shop):
        shop.accept("--llm-repeat", "3", failing={"c1": [2]})
        result = shop.gate(failing=["c1"])
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["*29 passed, 1 flaky in *"])

    def test_every_failure_fails_a_strict_run(self, shop):
        shop.accept(failing=["c1"])
        result = shop.run(failing=["c1"])
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.no_fnmatch_line("*= gate =*")

    def test_an_update_decides_nothing(self, shop):
        shop.accept()
        result = shop.gate("--snapshot-update", failing=["c1"])
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["the baseline was updated, so nothing is held against it"])

    def test_a_run_that_breaks_off_decides_nothing(self, shop):
        shop.accept()
        (shop.path / "conftest.py").write_text(
            "import pytest\n\n@pytest.fixture(autouse=True)\ndef stop(case):\n    if case.id == 'c9':\n        pytest.exit('enough')\n",
            encoding="utf-8",
        )
        result = shop.gate(failing=some(1, 8))
        assert result.ret == pytest.ExitCode.INTERRUPTED
        result.stdout.fnmatch_lines(["no decision, because the run did not end as it should"])

    def test_some_of_the_cases_are_compared_with_theirs(self, shop):
        shop.accept()
        result = shop.gate("-k", "c1 or c2", failing=["c2"])
        result.stdout.fnmatch_lines(["test_shop.py::test_shop: *: 1 of 22 cases got worse, 0 got better"])


class TestStoppingEarly:
    def test_a_suite_that_regressed_is_tried_no_more(self, shop):
        shop.write(cases=200)
        shop.accept()
        result = shop.gate("--llm-gate-stop-early", "--llm-concurrency", "2", failing=some(1, 199))
        assert result.ret == ExitStatus.REGRESSED
        result.stdout.fnmatch_lines(
            [
                "stopped early: test_shop.py::test_shop: * of 200 trials were not made, because it had regressed by then",
                "test_shop.py::test_shop: regressed: * cases got worse, 0 got better",
                "  more than chance explains: an unchanged app looks this bad in 1 of * runs (allowed are 1 of 200 runs)",
                "  pass rate * p * (e-process, one-sided), alpha 0.005",
            ]
        )
        store = RunStore.open(".touchstone/runs.db", base=shop.path)
        run = store.runs(limit=1)[0]
        records = store.records(run)
        left = [record.reason for record in records if record.outcome == "not_run"]
        assert (len(records), run.complete, set(left)) == (200, False, {"its suite had regressed by then"})
        assert len(left) > 50
        assert not list((shop.path / ".touchstone").glob("stopped-*"))

    def test_one_that_did_not_is_tried_to_the_end(self, shop):
        shop.accept(failing=some(20, 25))
        result = shop.gate("--llm-gate-stop-early", failing=some(1, 8))
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["test_shop.py::test_shop: passed: 8 of 30 cases got worse, 6 got better"])
        result.stdout.no_fnmatch_line("stopped early*")


class TestSubtests:
    """What is checked in subtests of a golden test follows the excuse of its trial."""

    @pytest.fixture
    def shop(self, shop):
        shop.write(cases=12)
        source = (shop.path / "test_shop.py").read_text(encoding="utf-8").replace("def test_shop(case)", "def test_shop(case, subtests)")
        source = source.replace(
            "    case.check(exact_match())", "    for _ in range(2):\n        with subtests.test(): assert case.output == 'ok'"
        )
        source = source.replace(
            "    if numbers", "    with subtests.test(): assert numbers != 'torn' and 1 / (numbers != 'zero')\n    if numbers"
        )
        (shop.path / "test_shop.py").write_text(source, encoding="utf-8")
        return shop

    def test_they_fail_no_run_by_themselves(self, shop):
        shop.accept(failing=["c1"])
        result = shop.gate("-x", "--junitxml=out.xml", failing=["c1", "c2"])
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(
            [
                "test_shop.py::test_shop: passed: 1 of 12 cases got worse, 0 got better",
                "  known: 1 case failed before and fails again",
                "*= 10 passed, 1 known, 1 worse in *",
            ]
        )
        suite = ET.parse(shop.path / "out.xml").getroot()[0]
        assert (suite.get("failures"), suite.get("errors")) == ("0", "0")

    def test_they_fail_it_where_their_trial_does(self, shop):
        shop.accept()
        result = shop.gate(failing=["c0"])
        assert result.ret == ExitStatus.REGRESSED
        result.stdout.fnmatch_lines(["  1 case that must pass failed: c0", "SUBFAILED* test_shop.py::test_shop[[]c0[]]*"])

    def test_an_error_in_one_is_no_flip(self, shop):
        shop.accept()
        result = shop.gate(failing={"c1": "zero"})
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["*ZeroDivisionError*"])


class TestPolicy:
    def test_the_command_line_beats_the_marker_which_beats_the_ini_file(self, shop, pytester):
        pytester.makeini("[pytest]\nllm_gate = regression\nllm_min_pass_rate = 0.99\nllm_alpha = 0.05\n")
        shop.accept("--llm-gate", "strict")
        assert shop.run(failing=["c1"]).ret == ExitStatus.REGRESSED
        shop.write(marker="@pytest.mark.llm_gate(min_pass_rate=0.9)")
        assert shop.run(failing=["c1"]).ret == pytest.ExitCode.OK
        assert shop.run("--llm-min-pass-rate", "0.98", failing=["c1"]).ret == ExitStatus.REGRESSED
        # Alpha still comes from the ini file: five flips have a p of 0.031.
        assert shop.run("--llm-min-pass-rate", "0", failing=some(1, 5)).ret == ExitStatus.REGRESSED
        assert shop.run("--llm-min-pass-rate", "0", "--llm-alpha", "0.01", failing=some(1, 5)).ret == pytest.ExitCode.OK

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--llm-alpha", "2"], "gate: alpha is 2.0; give a number between 0 and 1"),
            (["--llm-sided", "left"], "gate: sided is 'left'; give 'one' or 'two'"),
            (["--llm-gate-stop-early"], "--llm-gate-stop-early belongs to --llm-gate regression; add it, or have every trial made"),
            (["--llm-gate-stage2", "4"], "--llm-gate-stage2 belongs to --llm-gate regression; add it, or leave the second stage out"),
            (
                ["--llm-gate", "regression", "-p", "no:syrupy"],
                "--llm-gate regression needs the baseline, which syrupy keeps; leave out -p no:syrupy",
            ),
        ],
        ids=["range", "word", "stop early", "strict", "no syrupy"],
    )
    def test_options_that_cannot_be_meant(self, pytester, arguments, message):
        result = pytester.runpytest_inprocess("--llm-eval", *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {message}"])

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("llm_gate = lenient", "ini llm_gate is 'lenient'; use one of strict, regression, for example llm_gate = regression"),
            ("llm_margin = some", "ini llm_margin is 'some'; give a number, for example llm_margin = 2"),
            ("llm_gate_stage2 = no", "ini llm_gate_stage2: 'no' is not a whole number of at least 1, for example llm_gate_stage2 = 4"),
        ],
    )
    def test_ini_values_that_cannot_be_meant(self, pytester, line, message):
        pytester.makeini(f"[pytest]\n{line}\n")
        result = pytester.runpytest_inprocess("--llm-eval")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {message}"])

    @pytest.mark.parametrize(
        ("marker", "message"),
        [
            ("llm_gate(alfa=0.1)", "test_shop.py::test_shop[[]c*[]]: llm_gate() does not know alfa; it takes alpha, margin, *"),
            ("llm_gate(0.1)", "test_shop.py::test_shop[[]c*[]]: llm_gate() takes no values without a name; it takes alpha, margin, *"),
            ("llm_gate(alpha=7)", "test_shop.py::test_shop[[]c*[]]: llm_gate: alpha is 7; give a number between 0 and 1"),
            ("llm_gate(alpha='low')", "test_shop.py::test_shop[[]c*[]]: llm_gate: *"),
        ],
    )
    def test_markers_that_cannot_be_meant(self, pytester, marker, message):
        (pytester.path / "failing.json").write_text("{}", encoding="utf-8")
        (pytester.path / "test_shop.py").write_text(TEST % (3, f"@pytest.mark.{marker}"), encoding="utf-8")
        result = pytester.runpytest_inprocess("--llm-eval")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {message}"])


class TestSecondStage:
    def test_every_case_of_a_suspicious_suite_is_tried_again(self, shop):
        shop.accept("--llm-repeat", "5")
        result = shop.gate("--llm-gate-stage2", "4", failing=some(1, 5))
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(
            [
                "test_shop.py::test_shop * 150 * 145 * 5 * 0 * 0 * 0 *",
                "second stage: every case of test_shop.py::test_shop was tried 4 more times",
                "  worse: c1 (5 of 5 before, 4 of 5 now)",
                "*145 passed, 5 worse in *",
            ]
        )

    def test_what_fails_again_is_a_regression(self, shop):
        shop.accept("--llm-repeat", "5")
        result = shop.gate("--llm-gate-stage2", "4", "--llm-concurrency", "4", "-v", failing={id_: [1, 2, 3, 4, 5] for id_ in some(1, 8)})
        assert result.ret == ExitStatus.REGRESSED
        assert any("WORSE" in line and "test_shop.py::test_shop[c1@5]" in line for line in result.outlines)
        result.stdout.fnmatch_lines(["  worse: c1 (5 of 5 before, 0 of 5 now)"])

    def test_a_suite_that_is_not_suspicious_is_left_alone(self, shop):
        shop.accept("--llm-repeat", "5")
        result = shop.gate("--llm-gate-stage2", "4", failing=["c1"])
        result.stdout.no_fnmatch_line("second stage*")
        result.stdout.fnmatch_lines(["*29 passed, 1 worse in *"])

    def test_what_stops_the_run_stops_before_it(self, shop):
        shop.accept("--llm-repeat", "5")
        result = shop.gate("--llm-gate-stage2", "4", "-x", failing={**{id_: [1] for id_ in some(1, 5)}, "c29": "broken"})
        result.stdout.no_fnmatch_line("second stage*")

    def test_further_trials_keep_their_marks_and_parameters(self, shop):
        (shop.path / "conftest.py").write_text(
            "import pytest\n\ndef pytest_collection_modifyitems(items):\n    for item in items:\n        item.add_marker('slow')\n\n"
            "@pytest.fixture(autouse=True)\ndef marked(request):\n    assert request.node.get_closest_marker('slow')\n",
            encoding="utf-8",
        )
        (shop.path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
        shop.write(marker='@pytest.mark.parametrize("language", ["en", "de"])')
        source = (shop.path / "test_shop.py").read_text(encoding="utf-8").replace("def test_shop(case)", "def test_shop(case, language)")
        (shop.path / "test_shop.py").write_text(source, encoding="utf-8")
        shop.accept("--llm-repeat", "5")
        result = shop.gate("--llm-gate-stage2", "4", failing=some(1, 5))
        result.assert_outcomes(passed=290, errors=0)
        result.stdout.fnmatch_lines(
            ["second stage: every case of test_shop.py::test_shop[[]*[]], test_shop.py::test_shop[[]*[]] was tried*"]
        )


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal", "each"])
def test_each_way_to_share_tests_runs_two_stages(pytester, dist):
    """Those with which all workers do the same, too: a trial that two of them made is one trial."""
    many, one = (Shop(pytester, Runner(pytester=pytester, arguments=arguments)) for arguments in (("-n", "2", "--dist", dist), ()))
    many.write(cases=16)
    one.accept("--llm-repeat", "3")
    failing = {id_: [1, 2, 3] for id_ in some(1, 4)} | {"c5": [3]}
    result = many.gate("--llm-gate-stage2", "2", failing=failing)
    result.stdout.fnmatch_lines(["2 workers [[]16 items[]]*", "test_shop.py::test_shop * 48 * 35 * 13 * 0 * 0 * 0 *", "second stage: *"])
    alone = one.gate("--llm-gate-stage2", "2", failing=failing)
    store = RunStore.open(".touchstone/runs.db", base=pytester.path)
    of_one, of_many = store.runs(limit=2)
    assert (result.ret, of_many.gate, of_many.complete) == (alone.ret, of_one.gate, True)
    assert told(store, of_many) == told(store, of_one)


def told(store, run):
    """What is stored of a run's trials that does not depend on when and where they ran."""
    return [(record.nodeid, record.number, record.outcome, record.reason, record.output) for record in store.records(run)]
