"""No holdout case, nor a near copy of one, gets into any file of an export, by any path that was tried."""

from __future__ import annotations

import json

import pytest

HELD = "The parcel from Bergen never arrived although I paid for express delivery, so who pays me back?"
NEAR = "the parcel from Bergen never arrived although I had paid for express delivery -- so who pays me back"
OTHER = "How do I change the address of an order that has not been sent yet?"
TEST = """
import pytest

@pytest.mark.golden({sources})
def test_it(case):
    case.output = "Sorry."
    assert "address" in str(case.input)
"""
WORDS = ("bergen", "express delivery")


def case(id_, text, split="train", **fields):
    return {"id": id_, "input": text, "expected": "We do.", "split": split, **fields}


@pytest.fixture
def project(pytester):
    write(pytester, "cases.json", case("other", OTHER), case("held", HELD, "holdout"))
    pytester.makepyfile(test_suite=TEST.format(sources="'cases.json'"))
    return pytester


def write(pytester, name, *cases):
    (pytester.path / name).write_text(json.dumps(list(cases)), encoding="utf-8")


def written(pytester):
    """Everything in the export's folder and in every other file that the run left, but for what was given and the history of runs."""
    given = {"runs.db", "mine.jsonl", "cases.json", "more.json", "test_suite.py", "test_other.py", "conftest.py"}
    files = [path for path in pytester.path.rglob("*") if path.is_file() and path.name not in given and "__pycache__" not in path.parts]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files).casefold()


def refused(pytester, result):
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not (pytester.path / "training").exists()
    assert not any(word in written(pytester) for word in WORDS)


def left_out(pytester):
    manifest = json.loads((pytester.path / "training" / "manifest.json").read_text(encoding="utf-8"))
    assert not any(word in written(pytester) for word in WORDS)
    return {entry["case_id"]: entry["reason"] for entry in manifest["not_exported"]}


EXPORT = ("--llm-eval", "--llm-export", "training", "--tb=no", "-rN")


def test_a_holdout_case_itself(project, runner):
    runner.run(*EXPORT)
    assert left_out(project) == {"held": "holdout"}


def test_a_renamed_copy(project, runner):
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"), case("renamed", HELD.upper()))
    runner.run(*EXPORT)
    assert left_out(project) == {"held": "holdout", "renamed": "leak: the input of the case is a holdout input"}


def test_a_near_copy_refuses_the_export_and_names_the_pair(project, runner):
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"), case("near", NEAR))
    result = runner.run(*EXPORT)
    result.stdout.fnmatch_lines(
        [
            "export: 1 pair of a train and a holdout case is nearly equal, so nothing was written: *",
            "export: cases.json:1: case 'near' of test_suite.py::test_it is [89]? % like the holdout case 'held' of test_suite.py::test_it (cases.json:1)",
            "export: Give both cases of a pair one `group` (near-twins then share a split), move one to *raise --llm-leak-threshold above [89]? %",
        ]
    )  # fmt: skip
    refused(project, result)


def test_a_near_copy_keeps_what_an_earlier_export_wrote(project, runner):
    runner.run(*EXPORT)
    before = {path.name: path.read_bytes() for path in (project.path / "training").iterdir()}
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"), case("near", NEAR))
    runner.run(*EXPORT)
    assert {path.name: path.read_bytes() for path in (project.path / "training").iterdir()} == before


@pytest.mark.parametrize("how", ["option", "ini"])
def test_the_threshold_is_the_users(project, runner, how):
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"), case("near", NEAR))
    if how == "ini":
        project.makeini("[pytest]\nllm_leak_threshold = 0.99\n")
    result = runner.run(*EXPORT, *(["--llm-leak-threshold", "0.99"] if how == "option" else []))
    result.stdout.fnmatch_lines(["export: 2 examples written*"])


@pytest.mark.parametrize(
    "arguments", [["--llm-split", "train"], ["-k", "near"], ["--llm-limit", "2"], ["--deselect", "test_suite.py::test_it[held]"]]
)
def test_a_holdout_case_that_is_not_selected_still_guards(project, runner, arguments):
    write(project, "cases.json", case("near", NEAR), case("other", OTHER), case("held", HELD, "holdout"))
    refused(project, runner.run(*EXPORT, *arguments))


def test_a_holdout_case_in_quarantine_still_guards(project, runner):
    held = case("held", HELD, "holdout", quarantine={"reason": "flaky", "until": "9999-12-31"})
    write(project, "cases.json", case("near", NEAR), case("other", OTHER), held)
    refused(project, runner.run(*EXPORT))


@pytest.mark.parametrize("sources", ["'more.json', where=lambda case: case.split == 'train'", "'more.json', limit=1"])
def test_a_holdout_case_of_another_suites_file_guards_too_however_that_suite_selects(project, runner, sources):
    write(project, "cases.json", case("near", NEAR), case("other", OTHER))
    write(project, "more.json", case("else", "Do you sell gift cards?"), case("held", HELD, "holdout"))
    project.makepyfile(test_other=TEST.format(sources=sources))
    refused(project, runner.run(*EXPORT))


@pytest.mark.parametrize(("text", "kind"), [(HELD, "holdout"), (NEAR, "% like the holdout case 'held' of test_suite.py::test_it")])
def test_a_case_that_needs_a_correction_is_not_listed_where_it_says_what_a_holdout_case_does(project, runner, text, kind):
    fails = TEST.replace('assert "address"', 'assert "parcel" not in str(case.input) and "address"')
    project.makepyfile(test_suite=fails.format(sources="'cases.json'"))
    open_case = {name: value for name, value in case("open", text).items() if name != "expected"}
    asks = {**open_case, "id": "asks", "input": "Is the parcel that I sent back to you on Monday there?"}
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"), open_case, asks)
    result = runner.run(*EXPORT)
    result.stdout.fnmatch_lines(["export: 1 example written to *"])
    reasons = left_out(project)
    assert reasons["open"].startswith("leak: the input of the case is ")
    assert kind in reasons["open"]
    listed = (project.path / "training" / "needs_correction.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["asks"]


def test_an_accepted_correction_that_nearly_says_a_holdout_input_refuses_the_export(project, runner):
    project.makepyfile(test_suite=TEST.replace('"address"', '"nothing"').format(sources="'cases.json'"))
    open_case = {"id": "open", "input": OTHER, "split": "train"}
    write(project, "cases.json", open_case, case("held", HELD, "holdout"))
    runner.run(*EXPORT)
    needed = json.loads((project.path / "training" / "needs_correction.jsonl").read_text(encoding="utf-8"))
    correction = {name: needed[name] for name in ("suite", "id", "content_hash")} | {"correction": NEAR}
    (project.path / "mine.jsonl").write_text(json.dumps(correction), encoding="utf-8")
    result = runner.run(*EXPORT, "--llm-corrections", "mine.jsonl")
    result.stdout.fnmatch_lines(
        ["export: *case 'open' of test_suite.py::test_it is in completion[[]0] [89]? % like the holdout case 'held' of *"]
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_glob_over_several_files(project, runner):
    write(project, "more.json", case("near", NEAR))
    project.makepyfile(test_suite=TEST.format(sources="'*.json'"))
    refused(project, runner.run(*EXPORT))


def test_a_case_that_is_moved_to_holdout_is_out_of_the_next_export_and_guards_it(project, runner):
    write(project, "cases.json", case("other", OTHER), case("held", HELD))
    runner.run(*EXPORT)
    write(project, "cases.json", case("other", OTHER), case("held", HELD, "holdout"))
    result = runner.run(*EXPORT)
    result.stdout.fnmatch_lines(["export: 1 holdout case had been in earlier exports*"])
    assert left_out(project) == {"held": "holdout"}


def test_a_group_keeps_near_twins_together(project, runner):
    write(
        project,
        "cases.json",
        case("other", OTHER),
        case("held", HELD, "holdout", group="bergen"),
        case("near", NEAR, "holdout", group="bergen"),
    )
    runner.run(*EXPORT)
    assert left_out(project) == {"held": "holdout", "near": "holdout"}


@pytest.mark.parametrize(
    "change",
    [
        "example['prompt'].insert(0, {'role': 'system', 'content': 'Such a mail: ' + TEXT})",
        "example['prompt'][-1]['content'] = 'Dear all. ' + TEXT + ' Thank you.'",
        "example['completion'][0]['content'] = TEXT",
        "example['completion'][0]['reasoning_content'] = TEXT",
        "example['tools'].append({'type': 'function', 'function': {'name': 'f', 'description': TEXT, 'parameters': {}}})",
        "example['completion'][0]['tool_calls'] = [{'type': 'function', 'function': {'name': 'f', 'arguments': '{\"q\": \"' + TEXT + '\"}'}}]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", [HELD, NEAR], ids=["holdout", "near"])
def test_a_hook_that_brings_it_back(project, runner, change, text):
    project.makeconftest(f"TEXT = {text!r}\ndef pytest_llm_example(example, trial):\n    {change}\n")
    result = runner.run(*EXPORT)
    if text == NEAR:
        result.stdout.fnmatch_lines(["export: *case 'other' of test_suite.py::test_it is in * [89]? % like the holdout case 'held' of *"])
        refused(project, result)
    elif (project.path / "training").exists():
        assert left_out(project)["other"].startswith("leak: ")
    else:
        refused(project, result)


def test_an_input_that_the_app_rewrites_counts_too(project, runner):
    write(project, "cases.json", case("near", NEAR), case("other", OTHER), case("held", HELD, "holdout"))
    project.makeconftest(
        "def pytest_llm_example(example, trial):\n    example['prompt'] = [{'role': 'user', 'content': 'something else: ' + trial.id}]\n"
    )
    result = runner.run(*EXPORT)
    result.stdout.fnmatch_lines(["export: *case 'near' of test_suite.py::test_it is [89]? % like the holdout case 'held'*"])
    refused(project, result)


def test_no_report_that_other_plugins_write_holds_a_holdout_text(project, runner):
    project.makeconftest(
        """
        import os

        def pytest_runtest_logreport(report):
            if "PYTEST_XDIST_WORKER" not in os.environ:  # what a worker sends is on its way to the controller
                with open("reports.txt", "a") as file:
                    file.write(repr(vars(report)))
        """
    )
    runner.run(*EXPORT, "-k", "other")
    assert "bergen" not in (project.path / "reports.txt").read_text(encoding="utf-8").casefold()


@pytest.mark.parametrize("value", ["0", "1.1", "much", "nan"])
def test_a_threshold_that_is_none_is_refused(project, runner, value):
    result = runner.run("--llm-eval", "--llm-export", "training", f"--llm-leak-threshold={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*argument --llm-leak-threshold: '{value}' is not a number above 0 and up to 1"])


def test_a_threshold_without_an_export_is_refused(project, runner):
    result = runner.run("--llm-eval", "--llm-leak-threshold", "0.5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-leak-threshold guards what --llm-export writes; add --llm-export DIR, or leave it out"])
