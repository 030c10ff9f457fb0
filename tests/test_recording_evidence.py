from __future__ import annotations

import os
from dataclasses import replace

import pytest
from test_recording_store import entry

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.evidence import (
    Evidence,
    ModuleRun,
    Pruned,
    digest,
    prune,
    read_evidence,
    refusal,
    sort_out,
    with_asked,
    write_evidence,
)
from pytest_touchstone.recording.store import read_recording, recording_path, write_recording

RECORDING = "evals/__recordings__/test_shop.jsonl"
RUN = ModuleRun(module="evals/test_shop.py", tests=frozenset({"test_a", "test_b"}))
EVIDENCE = Evidence(began=100.0, ended=200.0, modules=(RUN,))


def asked(*entries, evidence=EVIDENCE, recording=RECORDING):
    return with_asked(evidence, {recording: [digest(one.id) for one in entries]})


def sorted_out(one, *, evidence=EVIDENCE, run=RUN):
    """`dropped`, `needed`, or why an entry that was not asked for stays."""
    found = sort_out([one], RECORDING, evidence, run)
    return "dropped" if found.dropped else next(iter(found.kept), "needed")


class TestSortOut:
    def test_what_was_asked_for_is_needed_whatever_else_is(self):
        one = entry(test="test_gone", trial=9)
        assert sorted_out(one, evidence=asked(one)) == "needed"
        assert sorted_out(one, evidence=asked(one), run=replace(RUN, partial="stopped")) == "needed"

    def test_a_test_that_passed_and_did_not_ask_does_not_need_it(self):
        assert sorted_out(entry()) == "dropped"

    @pytest.mark.parametrize("other", [{"key": "k2"}, {"test": "test_b"}, {"occurrence": 2}])
    def test_what_was_asked_for_is_told_apart_by_the_whole_identity(self, other):
        one = entry()
        assert sorted_out(replace(one, **other), evidence=asked(one)) == "dropped"

    def test_the_same_entry_in_another_file_counts_as_another(self):
        assert sorted_out(entry(), evidence=asked(entry(), recording="__recordings__/test_other.jsonl")) == "dropped"

    @pytest.mark.parametrize(
        ("one", "run", "selected", "why"),
        [
            (entry(), replace(RUN, partial="-x stopped it"), "", "evals/test_shop.py did not run in full: -x stopped it"),
            (entry(trial=2), RUN, "", "only 1 trial of each case was run"),
            (entry(trial=4), replace(RUN, trials=3), "", "only 3 trials of each case were run"),
            (
                entry(),
                replace(RUN, unfinished=frozenset({"test_a"})),
                "",
                "their tests did not pass, and may have stopped before they asked",
            ),
            (
                entry(test="fixture:app"),
                replace(RUN, unfinished=frozenset({"test_a"})),
                "",
                "not every test passed, and those that did not may ask for them",
            ),
            (
                entry(test="test_gone"),
                RUN,
                "it was given paths",
                "they may belong to a test that moved, and the run was not a whole one: it was given paths",
            ),
            (entry(), None, "it was given paths", "the run was not a whole one: it was given paths"),
        ],
    )
    def test_why_an_entry_stays(self, one, run, selected, why):
        assert sorted_out(one, evidence=replace(EVIDENCE, selected=selected), run=run) == why

    @pytest.mark.parametrize(
        ("one", "run"),
        [
            (entry(test="test_b"), replace(RUN, unfinished=frozenset({"test_a"}))),
            (entry(trial=2), replace(RUN, trials=2)),
            (entry(test="test_gone"), RUN),
            (entry(test="fixture:app"), RUN),
            (entry(), None),
        ],
    )
    def test_what_a_whole_run_drops(self, one, run):
        assert sorted_out(one, run=run) == "dropped"

    def test_a_run_is_not_whole_where_a_module_was_not(self):
        stopped = replace(EVIDENCE, modules=(RUN, ModuleRun(module="test_x.py", partial="stopped")))
        assert stopped.not_whole == "test_x.py did not run in full (stopped)"
        assert Evidence().not_whole == "it ran no golden test"
        assert EVIDENCE.not_whole == ""


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "evals" / "test_shop.py"
    path.parent.mkdir()
    path.write_text("")
    os.utime(path, (50, 50))
    return path


def record(module, *entries, at=150):
    path = recording_path(module)
    write_recording(path, entries)
    os.utime(path, (at, at))
    return path


class TestPrune:
    def test_what_was_not_asked_for_is_dropped(self, tmp_path, module):
        path = record(module, entry(), entry(test="test_b"))
        pruned = prune(path, tmp_path, asked(entry()))
        assert [one.test for one in read_recording(path)] == ["test_a"]
        assert pruned.lines() == [f"1 recording that no test asked for dropped from {RECORDING}"]
        assert prune(path, tmp_path, asked(entry())) == Pruned(recording=RECORDING)

    def test_a_dry_run_only_says_so(self, tmp_path, module):
        path = record(module, entry(), entry(test="test_b"))
        before = path.read_bytes()
        assert prune(path, tmp_path, EVIDENCE, dry_run=True).lines(done=False) == [
            f"2 recordings that no test asked for would be dropped from {RECORDING}"
        ]
        assert path.read_bytes() == before

    def test_a_file_of_which_nothing_is_left_is_deleted(self, tmp_path, module):
        path = record(module, entry())
        prune(path, tmp_path, EVIDENCE)
        assert not path.exists()
        assert prune(path, tmp_path, EVIDENCE).lines() == []

    def test_what_stays_is_told_with_its_reason_and_cannot_act_on_a_terminal(self, tmp_path, module):
        path = record(module, entry(), entry(test="test_b"), entry(trial=2))
        evidence = replace(EVIDENCE, modules=(replace(RUN, partial="stopped by \x1b[31m"),))
        assert prune(path, tmp_path, evidence).lines() == [
            f"3 recordings that no test asked for stay in {RECORDING}: evals/test_shop.py did not run in full: stopped by \\x1b[31m"
        ]
        assert prune(path, tmp_path, asked(entry(), entry(test="test_b"))).lines() == [
            f"1 recording that no test asked for stays in {RECORDING}: only 1 trial of each case was run"
        ]

    def test_a_file_with_faults_is_not_touched(self, tmp_path, module):
        path = record(module, entry())
        path.write_bytes(path.read_bytes() + b"<<<<<<< HEAD\n")
        with pytest.raises(RecordingError, match=r"^evals/__recordings__/test_shop.jsonl:3: is a merge conflict marker"):
            prune(path, tmp_path, EVIDENCE)


class TestRefusal:
    def refused(self, module, evidence=EVIDENCE):
        return refusal(recording_path(module), module.parents[1], evidence)

    def test_a_run_in_full_that_is_newer_than_both_files_is_evidence(self, module):
        record(module, entry())
        assert self.refused(module) == ""

    def test_a_module_that_was_not_run(self, module):
        record(module, entry())
        other = replace(EVIDENCE, modules=(ModuleRun(module="evals/test_other.py"),))
        assert (
            self.refused(module, other)
            == f"{RECORDING}: the last run did not run evals/test_shop.py; run pytest --llm-eval evals/test_shop.py"
        )

    def test_a_module_that_did_not_run_in_full(self, module):
        record(module, entry())
        assert self.refused(module, replace(EVIDENCE, modules=(replace(RUN, partial="-x"),))) == (
            f"{RECORDING}: evals/test_shop.py did not run in full in the last run (-x); run pytest --llm-eval evals/test_shop.py"
        )

    def test_a_recording_that_changed_since(self, module):
        record(module, entry(), at=201)
        assert self.refused(module) == f"{RECORDING}: it changed after the last run; run pytest --llm-eval evals/test_shop.py"

    def test_a_module_that_changed_since_the_run_began(self, module):
        record(module, entry())
        os.utime(module, (101, 101))
        changed = f"{RECORDING}: evals/test_shop.py changed after the last run began; run pytest --llm-eval evals/test_shop.py"
        assert self.refused(module) == changed
        module.unlink()
        assert self.refused(module) == changed

    def test_a_module_that_is_gone(self, tmp_path, module):
        path = record(module, entry())
        module.unlink()
        other = replace(EVIDENCE, modules=(ModuleRun(module="evals/test_other.py"),))
        assert self.refused(module, other) == ""
        assert self.refused(module, replace(other, selected="it was given paths")) == (
            f"{RECORDING}: its test module is gone, and the last run was not a whole one, so another may need it (it was given paths); "
            f"run pytest --llm-eval in {tmp_path}"
        )
        os.utime(path, (201, 201))
        assert self.refused(module, other) == f"{RECORDING}: it changed after the last run; run pytest --llm-eval"


class TestFile:
    def test_written_and_read_back(self, tmp_path):
        path = tmp_path / ".touchstone" / "used.jsonl"
        evidence = asked(
            entry(), evidence=replace(EVIDENCE, selected="why", modules=(replace(RUN, unfinished=frozenset({"test_\udc80"})),))
        )
        write_evidence(path, evidence)
        assert read_evidence(path) == evidence

    def test_none(self, tmp_path):
        path = tmp_path / "used.jsonl"
        with pytest.raises(RecordingError) as caught:
            read_evidence(path)
        assert str(caught.value) == f"{path}: no run of the tests has left word here of what it asked for; run pytest --llm-eval first"

    def test_one_that_cannot_be_read(self, tmp_path):
        with pytest.raises(RecordingError, match=r"cannot be read \(Is a directory\); make it readable, or run pytest --llm-eval again"):
            read_evidence(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff",
            b"{",
            b"[]",
            b"{}",
            b'{"format":"touchstone-used","version":2}',
            b'{"format":"touchstone-used","version":1,"began":1,"ended":2,"selected":""}\n{"module":"x"}',
        ],
    )
    def test_others_are_damaged_or_from_another_version(self, tmp_path, content):
        path = tmp_path / "used.jsonl"
        path.write_bytes(content)
        with pytest.raises(RecordingError) as caught:
            read_evidence(path)
        assert str(caught.value) == f"{path}: is damaged, or from another version of pytest-touchstone; run pytest --llm-eval again"

    def test_more_that_was_asked_for_is_added(self):
        both = asked(entry(test="test_b"), evidence=asked(entry()))
        assert both.asked[RECORDING] == {digest(entry().id), digest(entry(test="test_b").id)}
