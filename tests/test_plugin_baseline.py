"""Baselines through pytest: accepted, compared, kept and deleted, in one process and with xdist workers."""

from __future__ import annotations

import errno
import json
import re
import subprocess

import pytest
from running import Runner

from pytest_touchstone.baseline import parse_baseline

TEST = """
import json
from pathlib import Path

import pytest
from pytest_touchstone import Score, exact_match

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text())


def unsure(trial):
    return Score.unscored("unsure", "no verdict") if trial.output == "unsure" else True


@pytest.mark.golden("cases.yaml")
def test_shop(case):
    answer = ANSWERS.get(f"{case.id}@{case.number}", ANSWERS.get(case.id, case.expected))
    if answer == "broken":
        raise RuntimeError("the app broke")
    case.output = answer
    case.check(exact_match(), unsure) if answer != "unsure" else case.check(unsure)
"""

CASES = """
cases:
  - {id: gift, input: one, expected: "Yes.", split: train}
  - {id: late return, input: two, expected: "No.", split: holdout, tags: [refunds]}
  - {id: swap, input: three, expected: "Yes.", split: train}
"""
FILE = "__snapshots__/test_shop.touchstone"


class Shop:
    """A small project whose answers can be changed, and its baseline."""

    def __init__(self, pytester, runner):
        self.pytester = pytester
        self.runner = runner
        self.path = pytester.path
        self.file = pytester.path / FILE
        self.cases(CASES)
        self.answers()
        pytester.makepyfile(test_shop=TEST)

    def cases(self, text):
        (self.path / "cases.yaml").write_text(text, encoding="utf-8")

    def answers(self, **answers):
        (self.path / "answers.json").write_text(json.dumps({name.replace("_", " "): text for name, text in answers.items()}))

    def run(self, *args):
        self.result = self.runner.run("--llm-eval", "--llm-store", "off", *args)
        return self.result

    def accept(self, *args):
        return self.run("--snapshot-update", *args)

    @property
    def said(self):
        """What the run said of baselines."""
        return [line.removeprefix("baseline: ") for line in self.result.stdout.lines if line.startswith("baseline: ")]

    @property
    def unused(self):
        """What syrupy said of unused snapshots."""
        return [line for line in self.result.stdout.lines if re.search(r"snapshots? unused|unused snapshots?", line)]

    @property
    def entries(self):
        return parse_baseline(self.file.read_bytes(), shown=FILE)

    @property
    def passed(self):
        """Passes and trials of each entry."""
        return {name: (entry.passes, entry.trials) for name, entry in self.entries.items()}

    def has(self, line):
        assert line in [each.strip() for each in self.result.stdout.lines], self.result.stdout.str()
        return True


@pytest.fixture
def shop(pytester):
    """In one process, for what no worker has a part in."""
    return Shop(pytester, Runner(pytester=pytester, arguments=()))


@pytest.fixture
def any_shop(pytester, runner):
    """In one process, and once more with xdist workers."""
    return Shop(pytester, runner)


ALL = {"test_shop[gift]": (1, 1), "test_shop[late return]": (1, 1), "test_shop[swap]": (1, 1)}


def test_a_run_without_update_writes_nothing_and_says_nothing_of_baselines(shop):
    assert shop.run().ret == 0
    assert shop.said == []
    assert not (shop.path / "__snapshots__").exists()
    assert "snapshot report" not in shop.result.stdout.str()


def test_accepting_writes_one_file_for_the_module(any_shop):
    assert any_shop.accept("--llm-repeat", "2").ret == 0
    assert any_shop.said == ["accepted 3 new"]
    assert any_shop.has("3 snapshots generated.")
    late = any_shop.entries["test_shop[late return]"]
    assert any_shop.file.read_text(encoding="utf-8") == (
        "# What was accepted of every golden case. Written by `pytest --llm-eval --snapshot-update`, read in reviews.\n"
        "touchstone-baseline: 1\n"
        "\n"
        + "\n".join(
            f'"test_shop[{case_id}]":\n'
            f'  case: "{case_id}"\n'
            f'  content: "{any_shop.entries[f"test_shop[{case_id}]"].content_hash}"\n'
            "  passed: 2 of 2\n"
            f"{tags}"
            "  scores:\n"
            '    "exact_match": {"mean": 1.0, "spread": 0.0, "trials": 2}\n'
            '    "unsure": {"mean": 1.0, "spread": 0.0, "trials": 2}\n'
            "  output:\n"
            f'    - "{output}"\n'
            for case_id, tags, output in (
                ("gift", "", "Yes."),
                ("late return", '  tags: ["refunds"]\n', "No."),
                ("swap", "", "Yes."),
            )
        )
    )
    assert (late.test, late.case_id) == ("test_shop", "late return")
    before = any_shop.file.read_bytes()
    assert any_shop.accept("--llm-repeat", "2").ret == 0
    assert any_shop.said == ["accepted 3 same"]
    assert any_shop.has("3 snapshots passed.")
    assert any_shop.file.read_bytes() == before


def test_a_run_is_held_against_what_was_accepted_whatever_its_bodies_did(any_shop):
    any_shop.answers(gift="bad")
    any_shop.accept("--llm-repeat", "2")
    assert any_shop.passed == {"test_shop[gift]": (0, 2), "test_shop[late return]": (2, 2), "test_shop[swap]": (2, 2)}
    before = any_shop.file.read_bytes()
    any_shop.answers(late_return="bad")
    any_shop.cases(CASES + '  - {id: size, input: four, expected: "L", split: train}\n')
    assert any_shop.run().ret == 1
    assert any_shop.said == [
        "1 worse, 1 better, 1 same, 1 new",
        "worse: test_shop[late return]: 2 of 2 passed, now 0 of 1",
        "not in the baseline: test_shop[size]; --snapshot-update accepts them",
    ]
    assert any_shop.has("1 snapshot failed. 2 snapshots passed.")
    assert any_shop.file.read_bytes() == before


def test_an_update_says_what_it_accepts(any_shop):
    any_shop.answers(gift="bad")
    any_shop.accept("--llm-repeat", "2")
    any_shop.answers(**{"late_return": "bad", "swap@1": "bad"})
    assert any_shop.accept("--llm-repeat", "2").ret == 1
    assert any_shop.said == [
        "accepted 2 worse, 1 better",
        "accepted as worse: test_shop[late return]: 2 of 2 passed, now 0 of 2",
        "accepted as worse: test_shop[swap]: 2 of 2 passed, now 1 of 2",
    ]
    assert any_shop.has("3 snapshots updated.")
    assert any_shop.passed == {"test_shop[gift]": (2, 2), "test_shop[late return]": (0, 2), "test_shop[swap]": (1, 2)}


def test_an_update_says_when_it_rests_on_less(shop):
    shop.accept("--llm-repeat", "3")
    shop.accept("--llm-repeat", "2", "-k", "gift")
    assert shop.said == [
        "accepted 1 same",
        "1 of them on fewer trials than before; --llm-repeat makes them as strong as they were",
    ]
    assert shop.passed == {"test_shop[gift]": (2, 2), "test_shop[late return]": (3, 3), "test_shop[swap]": (3, 3)}


def test_many_worse_and_new_cases_are_counted(shop):
    ids = [f"c{number:02}" for number in range(23)]
    cases = [f"  - {{id: {id_}, input: x, expected: y, split: train}}" for id_ in ids]
    shop.cases("cases:\n" + "\n".join(cases))
    shop.accept()
    shop.answers(**dict.fromkeys(ids, "bad"))
    shop.run("--tb=no")
    assert shop.said == [
        "23 worse",
        *(f"worse: test_shop[{id_}]: 1 of 1 passed, now 0 of 1" for id_ in ids[:20]),
        "worse: 3 more",
    ]
    shop.accept("--tb=no", "-x", "--llm-concurrency", "1")
    assert shop.said[:3] == [
        "accepted 1 worse",
        "accepted as worse: test_shop[c00]: 1 of 1 passed, now 0 of 1",
        "not accepted: test_shop[c01]: no verdict on 1 of 1 trials (1 not run); its entry stays as it was",
    ]
    assert shop.said[-1] == "not accepted: 2 more"
    shop.file.unlink()
    shop.accept("-k", "c00 or c01")
    shop.answers()
    shop.run()
    new = ", ".join(f"test_shop[{id_}]" for id_ in ids[2:22])
    assert shop.said == ["2 better, 21 new", f"not in the baseline: {new} and 1 more; --snapshot-update accepts them"]


@pytest.mark.parametrize("xfail", [False, True])
def test_a_case_that_must_pass_is_never_accepted_as_failing(shop, xfail):
    must = CASES.replace("split: holdout", "split: holdout, must_pass: true")
    if xfail:
        shop.pytester.makepyfile(test_shop=TEST.replace("def test_shop", "@pytest.mark.xfail\ndef test_shop"))
    shop.cases(must)
    shop.answers(late_return="bad")
    assert shop.accept().ret == 1
    assert shop.said == [
        "accepted 2 new",
        "not accepted: test_shop[late return]: it must pass, and passed 0 of 1 trials; it has no entry",
    ]
    shop.answers()
    assert shop.accept().ret == 0
    assert shop.passed == ALL
    shop.answers(late_return="bad")
    assert shop.accept().ret == 1
    assert shop.said == [
        "accepted 2 same",
        "not accepted: test_shop[late return]: it must pass, and passed 0 of 1 trials; its entry stays as it was",
    ]
    assert shop.passed == ALL


def test_trials_without_a_verdict_never_enter_a_baseline(any_shop):
    any_shop.accept()
    before = any_shop.file.read_bytes()
    any_shop.answers(**{"gift": "broken", "late_return@2": "unsure"})
    assert any_shop.accept("--llm-repeat", "2").ret == 10
    assert any_shop.said == [
        "accepted 1 same",
        "not accepted: test_shop[gift]: no verdict on 2 of 2 trials (2 error); its entry stays as it was",
        "not accepted: test_shop[late return]: no verdict on 1 of 2 trials (1 unscored); its entry stays as it was",
    ]
    assert any_shop.passed == {**ALL, "test_shop[swap]": (2, 2)}
    any_shop.file.write_bytes(before)
    any_shop.run("--llm-repeat", "2")
    assert any_shop.said == ["2 same, 1 unscored"]
    assert any_shop.has("2 snapshots passed.")
    assert any_shop.file.read_bytes() == before


def test_new_cases_only(shop):
    shop.accept("-k", "gift")
    shop.answers(gift="bad", swap="broken")
    shop.run("--snapshot-update-new-only")
    assert shop.said == [
        "1 worse",
        "worse: test_shop[gift]: 1 of 1 passed, now 0 of 1",
        "accepted 1 new",
        "not accepted: test_shop[swap]: no verdict on 1 of 1 trials (1 error); it has no entry",
    ]
    assert shop.passed == {"test_shop[gift]": (1, 1), "test_shop[late return]": (1, 1)}


def test_a_case_that_changed_is_compared_with_nothing(shop):
    shop.accept()
    shop.cases(CASES.replace("input: one", "input: uno"))
    shop.answers(gift="bad")
    shop.run()
    assert shop.said == ["2 same, 1 changed case"]
    assert shop.has("3 snapshots passed.")
    shop.accept()
    assert shop.said == ["accepted 2 same, 1 changed case"]
    assert shop.passed["test_shop[gift]"] == (0, 1)


# Cases that are gone

FEWER = CASES.replace('  - {id: gift, input: one, expected: "Yes.", split: train}\n', "")


def test_an_entry_without_a_case_is_unused_and_an_update_deletes_it(any_shop):
    any_shop.accept()
    any_shop.cases(FEWER)
    assert any_shop.run().ret == 1
    assert any_shop.said == ["2 same, 1 removed"]
    assert any_shop.has("2 snapshots passed. 1 snapshot unused.")
    assert any_shop.has("Re-run pytest with --snapshot-update to delete unused snapshots.")
    assert any_shop.run("--snapshot-warn-unused").ret == 0
    assert any_shop.run("--snapshot-details", "--snapshot-warn-unused").ret == 0
    assert any_shop.has(f"Unused test_shop[gift] ({FILE})")
    assert any_shop.passed == ALL
    assert any_shop.accept("--snapshot-no-cleanup").ret == 0
    assert any_shop.passed == ALL
    assert any_shop.accept().ret == 0
    assert any_shop.has("2 snapshots passed. 1 unused snapshot deleted.")
    assert any_shop.has(f"Deleted test_shop[gift] ({FILE})")
    assert list(any_shop.passed) == ["test_shop[late return]", "test_shop[swap]"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "swap"),
        ("-x",),
        ("--llm-limit", "1"),
        ("--llm-split", "holdout"),
        ("test_shop.py::test_shop[swap]",),
        ("--lf",),
        ("-m", "other"),
    ],
)
def test_a_run_of_a_part_calls_nothing_unused(shop, arguments):
    shop.pytester.makeini("[pytest]\nmarkers = other\n")
    shop.accept("-p", "no:cacheprovider")
    shop.cases(FEWER)
    shop.answers(late_return="broken")
    shop.run()  # for --lf
    shop.accept(*arguments)
    assert not shop.unused
    assert "test_shop[gift]" in shop.entries


def test_a_run_that_stops_early_keeps_what_it_did_not_reach(shop):
    shop.accept()
    shop.answers(gift="bad")
    shop.accept("-x", "--llm-concurrency", "1", "-n", "0")
    assert shop.said == [
        "accepted 1 worse",
        "accepted as worse: test_shop[gift]: 1 of 1 passed, now 0 of 1",
        "not accepted: test_shop[late return]: no verdict on 1 of 1 trials (1 not run); its entry stays as it was",
        "not accepted: test_shop[swap]: no verdict on 1 of 1 trials (1 not run); its entry stays as it was",
    ]
    assert shop.passed == {**ALL, "test_shop[gift]": (0, 1)}


def test_the_baseline_of_a_module_without_golden_tests_is_unused_as_a_whole(any_shop):
    any_shop.pytester.makepyfile(test_other=TEST.replace("test_shop", "test_more"))
    any_shop.accept()
    other = any_shop.path / "__snapshots__" / "test_other.touchstone"
    assert other.exists()
    any_shop.pytester.makepyfile(test_other="def test_plain():\n    pass\n")
    any_shop.run("-k", "shop")
    assert not any_shop.unused
    assert any_shop.run().ret == 1
    assert any_shop.has("3 snapshots passed. 3 snapshots unused.")
    any_shop.accept()
    assert not other.exists()
    assert any_shop.passed == ALL


@pytest.mark.parametrize("test", ["", "\n\ndef test_plain():\n    pass\n", "\n\ndef test_text(snapshot):\n    assert 'text' == snapshot\n"])
def test_a_run_without_llm_eval_leaves_baselines_alone(shop, test):
    shop.pytester.makepyfile(test_shop=TEST + test, test_plain="def test_plain(): pass\n")
    shop.accept()
    before = shop.file.read_bytes()
    for arguments in ((), ("--snapshot-update",), (".", "--snapshot-update"), ("-k", "plain")):
        shop.result = shop.runner.run(*arguments)
        assert shop.result.ret == 0
        assert not shop.unused
        assert shop.file.read_bytes() == before


# Beside others


def test_repeats_share_an_entry_and_suites_of_one_module_a_file(any_shop):
    any_shop.pytester.makepyfile(
        test_shop="""
        import pytest

        CASES = [{"id": "a", "input": "x", "split": "train"}, {"id": "b.c", "input": "y", "split": "train"}]

        class TestShop:
            @pytest.mark.parametrize("language", ["en", "de::at"])
            @pytest.mark.golden(CASES)
            def test_it(self, case, language):
                case.output = f"{case.input} {language}"
        """
    )
    assert any_shop.accept("--llm-repeat", "3").ret == 0
    assert {name: entry.output for name, entry in any_shop.entries.items()} == {
        "TestShop.test_it[de::at][a]": "x de::at",
        "TestShop.test_it[de::at][b.c]": "y de::at",
        "TestShop.test_it[en][a]": "x en",
        "TestShop.test_it[en][b.c]": "y en",
    }
    assert {entry.trials for entry in any_shop.entries.values()} == {3}
    any_shop.run("--llm-repeat", "3")
    assert any_shop.said == ["4 same"]


def test_plain_snapshots_work_beside_it_and_side_by_side(any_shop):
    any_shop.pytester.makepyfile(
        test_shop="""
        import pytest

        CASES = [{"id": f"c{number}", "input": "x", "split": "train"} for number in range(24)]

        @pytest.mark.golden(CASES)
        def test_it(case, snapshot):
            case.output = f"answer {case.id}"
            assert case.output == snapshot
            assert {"also": case.id} == snapshot
            assert case.id == snapshot(name="named")
        """
    )
    assert any_shop.accept("--llm-concurrency", "8").ret == 0
    assert any_shop.has("96 snapshots generated.")
    assert any_shop.run("--llm-concurrency", "8").ret == 0
    assert any_shop.has("96 snapshots passed.")


def test_a_baseline_says_on_which_commit_it_was_accepted(shop):
    def git(*args):
        return subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *args], cwd=shop.path, check=True, capture_output=True)

    git("init", "-q")
    shop.accept()
    assert {entry.commit for entry in shop.entries.values()} == {None}
    git("add", "cases.yaml", "answers.json")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD").stdout.decode()[:10]
    shop.file.unlink()
    shop.accept("-k", "gift")
    shop.answers(swap="bad")
    shop.accept()
    assert {entry.case_id: entry.commit for entry in shop.entries.values()} == {
        "gift": commit,
        "late return": f"{commit}+",
        "swap": f"{commit}+",
    }


def test_no_secret_reaches_a_baseline(shop, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "hunter22hunter22")
    shop.answers(gift="the token is hunter22hunter22")
    shop.accept()
    assert shop.entries["test_shop[gift]"].output == "the token is [redacted]"


def test_another_folder_for_snapshots(shop):
    shop.accept("--snapshot-dirname", "accepted")
    assert (shop.path / "accepted" / "test_shop.touchstone").exists()
    shop.run("--snapshot-dirname", "accepted")
    assert shop.said == ["3 same"]


def test_syrupys_own_list_of_ignored_files_stays(shop):
    shop.accept()
    (shop.path / "__snapshots__" / "notes.txt").write_text("by hand")
    assert shop.run("--snapshot-ignore-file-extensions", "txt").ret == 0
    assert shop.runner.run("--snapshot-ignore-file-extensions", "txt").ret == 5
    assert shop.said == ["3 same"]


def test_without_syrupy_there_is_no_baseline(shop):
    assert shop.run("-p", "no:syrupy").ret == 0
    assert shop.said == []


def test_a_collection_touches_nothing(shop):
    shop.accept("--collect-only")
    assert not shop.file.exists()


def test_a_module_outside_of_the_root_folder_has_no_baseline(shop, tmp_path):
    inside = shop.path / "inside"
    inside.mkdir()
    shop.accept("--llm-record", "off", "--rootdir", str(inside), str(shop.path / "test_shop.py"))
    assert shop.said == ["::test_shop is outside of the root folder, and so without a baseline; give a --rootdir that holds it"]
    assert not list(shop.path.rglob("*.touchstone"))


# What goes wrong


def test_a_faulty_file_is_told_and_left_alone_and_others_are_compared(any_shop):
    any_shop.pytester.makepyfile(test_other=TEST)
    any_shop.accept()
    text = any_shop.file.read_text(encoding="utf-8")
    any_shop.file.write_text("<<<<<<< HEAD\n" + text, encoding="utf-8")
    for arguments in ((), ("--snapshot-update",)):
        assert any_shop.run(*arguments).ret == 4
        assert any_shop.said == [
            "accepted 3 same" if arguments else "3 same",
            (
                f"{FILE}:1: is a merge conflict marker; keep the entries of one side, or of both where they differ in name, and delete the "
                "markers; then run pytest --llm-eval"
            ),
        ]
        assert any_shop.file.read_text(encoding="utf-8") == "<<<<<<< HEAD\n" + text


def test_a_file_that_cannot_be_written_is_told(shop):
    (shop.path / "__snapshots__").write_text("a file", encoding="utf-8")
    assert shop.accept().ret == 4
    assert shop.said == ["accepted 3 new", f"{shop.path / '__snapshots__'} could not be written (File exists)"]


def test_a_full_disk_is_told(shop, monkeypatch):
    shop.accept()
    before = shop.file.read_bytes()

    def full(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("pytest_touchstone.baseline_syrupy.write_baseline", full)
    shop.cases(FEWER.replace("three", "drei"))
    assert shop.accept().ret == 4
    told = f"{shop.file} could not be written (No space left on device)"
    assert shop.said == ["accepted 1 same, 1 changed case", told, told]
    assert shop.file.read_bytes() == before


SIDES = """
import json
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    baselines = session.config.pluginmanager.get_plugin("touchstone-baselines")
    if baselines is not None:
        told = {
            suite: [sides.partial, bool(sides.fault)]
            + [{case_id: [side.passes, side.trials] for case_id, side in known.items()} for known in (sides.baseline, sides.run)]
            for suite, sides in baselines.sides().items()
        }
        with open("sides.json", "w") as file:
            json.dump(told, file)
"""


def test_the_gate_gets_both_sides_of_each_suite_as_they_were_before_an_update(any_shop):
    any_shop.pytester.makeconftest(SIDES)
    any_shop.accept("--llm-repeat", "2")
    sides = json.loads((any_shop.path / "sides.json").read_text())
    run = {"gift": [2, 2], "late return": [2, 2], "swap": [2, 2]}
    assert sides == {"test_shop.py::test_shop": ["", False, {}, run]}
    any_shop.cases(FEWER)
    any_shop.answers(swap="bad")
    any_shop.accept()
    assert json.loads((any_shop.path / "sides.json").read_text()) == {
        "test_shop.py::test_shop": ["", False, run, {"late return": [1, 1], "swap": [0, 1]}]
    }
    any_shop.cases(CASES)
    any_shop.accept("-k", "gift or late")
    assert json.loads((any_shop.path / "sides.json").read_text()) == {
        "test_shop.py::test_shop": [
            "some of its golden tests were deselected",
            False,
            {"late return": [1, 1]},
            {"gift": [1, 1], "late return": [1, 1]},
        ]
    }
    any_shop.pytester.makepyfile(test_shop=TEST.replace("test_shop", "test_renamed"))
    any_shop.run("--snapshot-warn-unused")
    once = {"gift": [1, 1], "late return": [1, 1], "swap": [0, 1]}
    assert json.loads((any_shop.path / "sides.json").read_text()) == {
        "test_shop.py::test_renamed": ["", False, {}, {"gift": [1, 1], "late return": [1, 1], "swap": [0, 1]}],
        "test_shop.py::test_shop": ["", False, once, {}],
    }
    any_shop.file.write_text("no baseline")
    any_shop.run()
    assert json.loads((any_shop.path / "sides.json").read_text())["test_shop.py::test_renamed"][1:3] == [True, {}]
