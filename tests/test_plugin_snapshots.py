"""The fixture `llm_snapshot`: equal texts, scorers that say as good, and syrupy's life cycle."""

from __future__ import annotations

import json
import re

import pytest
from running import Runner
from syrupy.extensions.amber import AmberSnapshotExtension

TEST = """
import json
from pathlib import Path

import pytest
from pytest_touchstone import Score, scorer

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text())
CASES = [{"id": "gift", "input": "one", "split": "train"}, {"id": "late", "input": "two", "split": "train"}]


def answer(case):
    return ANSWERS.get(f"{case.id}@{case.number}", ANSWERS.get(case.id, f"Yes, {case.id}."))


@scorer
def same_words(trial):
    assert trial.reference == trial.expected
    return sorted(trial.output.split()) == sorted(trial.reference.split())
"""
SYNC = """
@pytest.mark.golden(CASES)
def test_it(case, llm_snapshot):
    case.output = answer(case)
    llm_snapshot(case.output)
"""
JUDGED = SYNC.replace("(case.output)", "(case.output, same_words)")
FILE = "__snapshots__/test_it.ambr"


class Project:
    def __init__(self, pytester, runner):
        self.pytester = pytester
        self.runner = runner
        self.file = pytester.path / FILE
        self.answers()

    def answers(self, **answers):
        (self.pytester.path / "answers.json").write_text(json.dumps(answers))

    def test(self, text):
        self.pytester.makepyfile(test_it=TEST + text)

    def run(self, *args):
        # syrupy keeps what it has read by the id of its session, which another session in this process may get.
        AmberSnapshotExtension._AmberSnapshotExtension__cacheable_read_snapshot.cache_clear()
        self.result = self.runner.run("--llm-eval", "--llm-store", "off", *args)
        return self.result

    @property
    def text(self):
        return self.file.read_text(encoding="utf-8")

    @property
    def names(self):
        return re.findall(r"^# name: (.*)$", self.text, flags=re.MULTILINE)

    @property
    def counted(self):
        """What syrupy counted besides the entries of the baseline."""
        lines = [line for line in self.result.stdout.lines if re.match(r"\d+ (unused )?snapshots? ", line)]
        return lines[0] if lines else ""

    def has(self, text):
        assert text in self.result.stdout.str(), self.result.stdout.str()
        return True


@pytest.fixture
def project(pytester):
    return Project(pytester, Runner(pytester=pytester, arguments=()))


@pytest.fixture
def any_project(pytester, runner):
    return Project(pytester, runner)


def test_an_output_passes_where_it_equals_the_stored_one(any_project):
    any_project.test(SYNC)
    assert any_project.run().ret == 1
    assert any_project.has("failed   llm_snapshot 0.00 there is no snapshot yet; --snapshot-update stores one")
    assert not any_project.file.exists()
    assert any_project.run("--snapshot-update").ret == 0
    assert any_project.text == (
        "# serializer version: 1\n# name: test_it[gift]\n  | Yes, gift.\n# ---\n# name: test_it[late]\n  | Yes, late.\n# ---\n"
    )
    assert any_project.run().ret == 0
    assert any_project.counted == "4 snapshots passed."
    any_project.answers(late="No.")
    before = any_project.text
    assert any_project.run().ret == 1
    assert any_project.has('failed   llm_snapshot 0.00 "No." is not what the snapshot holds: "Yes, late."; --snapshot-update accepts it')
    assert any_project.counted == "2 snapshots failed. 2 snapshots passed."
    assert any_project.text == before
    assert any_project.run("--snapshot-update").ret == 0
    assert "  | No.\n" in any_project.text


@pytest.mark.parametrize(
    "test",
    [
        JUDGED,
        JUDGED.replace("def test_it", "async def test_it").replace("llm_snapshot(case", "await llm_snapshot.acheck(case"),
        JUDGED.replace("same_words)", "'same_words')"),
        JUDGED.replace("same_words)", "later)").replace(
            "@pytest", "@scorer(threshold=0.9)\nasync def later(trial):\n    return 0.95 if same_words(trial) else 0.85\n\n@pytest"
        ),
        JUDGED.replace("def test_it", "async def test_it")
        .replace("llm_snapshot(case", "await llm_snapshot.acheck(case")
        .replace("same_words)", "Later())")
        .replace(
            "@pytest",
            "class Later:\n    asks_model = True\n    async def ascore(self, trial):\n        return same_words(trial)\n"
            "    def __call__(self, trial):\n        raise AssertionError\n\n@pytest",
        ),
    ],
    ids=["sync", "async", "by name", "async scorer", "ascore"],
)
def test_a_scorer_may_say_that_another_output_is_as_good(project, test):
    project.pytester.makeconftest("def pytest_llm_scorers():\n    from test_it import same_words\n    return [same_words]\n")
    project.pytester.syspathinsert()
    project.test(test)
    assert project.run("--snapshot-update").ret == 0
    before = project.text
    project.answers(late="late. Yes,")
    assert project.run("-v").ret == 0
    assert project.counted == "4 snapshots passed."
    project.answers(late="late. No,")
    assert project.run().ret == 1
    project.result.assert_outcomes(passed=1, failed=1)
    assert project.counted == "2 snapshots failed. 2 snapshots passed."
    assert project.text == before
    assert project.run("--snapshot-update").ret == 0
    assert "  | late. No,\n" in project.text


def test_a_scorer_without_a_verdict_is_no_pass(project):
    project.test(JUDGED.replace("same_words)", "lambda trial: Score.unscored('unsure', 'cannot say'))"))
    project.run("--snapshot-update")
    assert project.run().ret == 0
    project.answers(late="No.")
    assert project.run().ret == 11
    assert project.has("unscored unsure      cannot say")


def test_calls_in_one_body_have_snapshots_of_their_own(project):
    project.test(
        SYNC
        + """
    llm_snapshot("a\\r\\n\\n  b\\x1b\\r")
    llm_snapshot({"b": 1, "a": ["é"]}, lambda trial: trial.expected["b"] + 1 == trial.output["b"])
    llm_snapshot("", name="last")
"""
    )
    assert project.run("--snapshot-update", "-k", "gift").ret == 0
    assert project.names == ["test_it[gift]", "test_it[gift][2]", "test_it[gift][3]", "test_it[gift][last]"]
    assert "# name: test_it[gift][2]\n  | a\n  |\n  |   b\\x1b\\x0d\n# ---\n" in project.text
    assert '  | {\n  |   "a": [\n  |     "é"\n  |   ],\n  |   "b": 1\n  | }\n' in project.text
    assert "# name: test_it[gift][last]\n  |\n# ---\n" in project.text
    assert project.run("-k", "gift").ret == 0
    assert project.counted == "5 snapshots passed."
    (project.pytester.path / "test_it.py").write_text((project.pytester.path / "test_it.py").read_text().replace('"b": 1,', '"b": 2,'))
    assert project.run("-k", "gift").ret == 0


def test_the_trials_of_a_case_share_what_the_first_one_stored(any_project):
    any_project.test("class TestIt:\n" + JUDGED.replace("\n", "\n    ").replace("(case, llm", "(self, case, llm"))
    any_project.answers(**{"late@1": "a b", "late@2": "b a", "late@3": "c"})
    assert any_project.run("--snapshot-update", "--llm-repeat", "3").ret == 0
    assert any_project.names == ["TestIt.test_it[gift]", "TestIt.test_it[late]"]
    assert "  | a b\n" in any_project.text
    before = any_project.text
    assert any_project.run("--llm-repeat", "3").ret == 1
    any_project.result.assert_outcomes(passed=5, failed=1)
    assert any_project.run("--snapshot-update", "--llm-repeat", "3").ret == 0
    assert any_project.text == before


def test_new_ones_only(project):
    project.test(SYNC)
    project.run("--snapshot-update", "-k", "gift")
    project.answers(gift="No.")
    assert project.run("--snapshot-update-new-only").ret == 1
    project.result.assert_outcomes(passed=1, failed=1)
    assert project.names == ["test_it[gift]", "test_it[late]"]
    assert "No." not in project.text


def test_a_snapshot_of_a_case_that_is_gone_is_unused(project):
    project.test(SYNC)
    project.run("--snapshot-update")
    project.test(SYNC.replace("(CASES)", "(CASES[:1])"))
    assert project.run().ret == 1
    assert project.counted == "2 snapshots passed. 2 snapshots unused."
    assert project.run("--snapshot-update").ret == 0
    assert project.names == ["test_it[gift]"]


@pytest.mark.parametrize("arguments", [("--llm-limit", "1"), ("-x",), ("--lf",), ("-m", "not other")])
def test_a_run_of_some_cases_deletes_no_snapshots_of_the_others(project, arguments):
    project.pytester.makeini("[pytest]\nmarkers = other\n")
    project.test(SYNC)
    project.run("--snapshot-update", "-p", "no:cacheprovider")
    project.test(SYNC.replace("    case.output", "    if case.id == 'gift': raise RuntimeError\n    case.output"))
    project.run()
    project.run("--snapshot-update", *arguments)
    assert project.names == ["test_it[gift]", "test_it[late]"]


def test_a_body_that_ended_before_its_snapshots_keeps_them(any_project):
    any_project.test(SYNC + "    llm_snapshot('two')\n    llm_snapshot('three', name='x')\n")
    any_project.run("--snapshot-update")
    names = any_project.names
    assert len(names) == 6
    any_project.test(SYNC + "    assert case.id != 'late'\n    llm_snapshot('two')\n    llm_snapshot('three', name='x')\n")
    assert any_project.run("--snapshot-update").ret == 1
    assert any_project.names == names
    any_project.test(SYNC + "    llm_snapshot('two')\n")
    assert any_project.run("--snapshot-update").ret == 0
    assert any_project.names == ["test_it[gift]", "test_it[gift][2]", "test_it[late]", "test_it[late][2]"]


def test_without_llm_eval_stored_texts_stay(project):
    project.test(SYNC + "\n\ndef test_plain(snapshot):\n    assert 1 == snapshot\n")
    project.run("--snapshot-update")
    before = project.text
    AmberSnapshotExtension._AmberSnapshotExtension__cacheable_read_snapshot.cache_clear()
    assert project.runner.run("--snapshot-update").ret == 0
    assert project.text == before


def test_no_secret_is_stored(project, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "hunter22hunter22")
    project.test(SYNC)
    project.answers(late="it is hunter22hunter22")
    project.run("--snapshot-update")
    assert "  | it is [redacted]\n" in project.text
    assert project.run().ret == 0


def test_what_is_no_text_and_no_json_is_refused(project):
    project.test(SYNC.replace("(case.output)", "({1, 2})"))
    assert project.run("-k", "gift").ret == 10
    assert project.has(
        "llm_snapshot got set, which is neither text nor a JSON value (Object of type set is not JSON serializable); give it"
    )


def test_without_syrupy_the_error_says_so(project):
    project.test(SYNC)
    assert project.run("-p", "no:syrupy", "-k", "gift").ret == 10
    assert project.has("test_it.py::test_it[gift] asks for the fixture `llm_snapshot`, which stores through syrupy; take -p no:syrupy off")


def test_a_file_of_another_version_counts_as_none(project):
    project.test(SYNC)
    project.run("--snapshot-update")
    project.file.write_text(project.text.replace("version: 1", "version: 0"), encoding="utf-8")
    assert project.run().ret == 1
    assert project.has("there is no snapshot yet")


def test_many_at_once(project):
    project.test(
        """
@pytest.mark.golden([{"id": f"c{number}", "input": "x", "split": "train"} for number in range(24)])
def test_it(case, llm_snapshot):
    case.output = f"answer {case.id}"
    llm_snapshot(case.output)
    llm_snapshot("again")
"""
    )
    assert project.run("--snapshot-update", "--llm-concurrency", "8").ret == 0
    assert project.counted == "72 snapshots generated."
    assert project.run("--llm-concurrency", "8").ret == 0
    assert project.counted == "72 snapshots passed."
