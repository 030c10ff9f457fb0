from __future__ import annotations

import json

import pytest
from export_samples import assistant, example, offer, user

from pytest_touchstone.errors import JobError
from pytest_touchstone.export.leak import input_fingerprint
from pytest_touchstone.export.write import write_export
from pytest_touchstone.train.data import read_data


def made(case_id, **fields):
    return offer(example(case_id=case_id, prompt=(user(f"Where is {case_id}?"),), completion=(assistant("There."),), **fields))


@pytest.fixture
def export(tmp_path):
    write_export(
        tmp_path,
        offers=[made("a"), made("b"), made("b", trial=2, tags=()), offer(case_id="h", content_hash="h" * 64, split="holdout")],
        held_out=(),
        run={},
    )
    return tmp_path


def faults_of(folder, *arguments, **options):
    with pytest.raises(JobError) as caught:
        read_data(folder, *arguments, **options)
    return [line.replace(f"{folder}/", "").replace(str(folder), "DIR") for line in str(caught.value).splitlines()]


def change_manifest(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), encoding="utf-8")


class TestReading:
    def test_lines_with_their_cases(self, export):
        data = read_data(export)
        assert [(line.number, line.case) for line in data.lines] == [(1, ("support", "a")), (2, ("support", "b"))]
        assert (data.changed, data.notes) == (False, ())
        assert data.sha256 == json.loads((export / "manifest.json").read_bytes())["train_sha256"]

    def test_a_folder_that_is_no_export(self, tmp_path):
        fix = "give the folder that pytest --llm-eval --llm-export wrote"
        assert faults_of(tmp_path) == [f"DIR: is no export: it has no manifest.json; {fix}"]
        assert faults_of(tmp_path / "none") == [f"DIR: is no folder; {fix}"]
        (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
        assert faults_of(tmp_path) == ["manifest.json: is not JSON; export again"]
        (tmp_path / "manifest.json").write_text('{"format": "other"}', encoding="utf-8")
        assert faults_of(tmp_path) == [f"manifest.json: is no manifest of the format 'pytest-touchstone export 1'; {fix}"]

    def test_an_export_of_nothing(self, tmp_path):
        write_export(tmp_path, offers=[], held_out=(), run={})
        assert faults_of(tmp_path) == ["train.jsonl: is not there, so there is nothing to train on; export again, with cases that failed"]

    def test_a_file_that_was_emptied(self, export):
        (export / "train.jsonl").write_bytes(b"\n")
        assert faults_of(export) == [
            "train.jsonl: is empty, so there is nothing to train on; export again, with cases that failed",
            (
                "train.jsonl: is not as the export wrote it: its sha256 is not that of the manifest; "
                "export again, or say --allow-changed-data where the change is wanted"
            ),
        ]


class TestChanges:
    def test_are_refused_unless_they_are_wanted(self, export):
        file = export / "train.jsonl"
        file.write_bytes(file.read_bytes().replace(b"There.", b"Here.", 1))
        assert faults_of(export) == [
            (
                "train.jsonl: is not as the export wrote it: its sha256 is not that of the manifest; "
                "export again, or say --allow-changed-data where the change is wanted"
            )
        ]
        data = read_data(export, allow_changed=True)
        assert [line.case for line in data.lines] == [None, ("support", "b")]
        assert data.changed
        assert data.notes == ("train.jsonl was changed after the export; the guard against holdout cases saw the export only",)

    def test_lines_without_messages_are_named_all_at_once(self, export):
        rows = [
            b"{",
            b'"x"',
            b'{"prompt": [{"role": "user"}], "completion": []}',
            b'{"prompt": "text", "completion": [{"role": "assistant"}]}',
        ]
        (export / "train.jsonl").write_bytes(b"\n".join(rows))
        assert faults_of(export, allow_changed=True) == [
            "train.jsonl:1: has no messages in prompt and completion; export again",
            "train.jsonl:2: has no messages in prompt and completion; export again",
            "train.jsonl:3: has no messages in completion; export again",
            "train.jsonl:4: has no messages in prompt; export again",
        ]


class TestHoldout:
    FIX = "export again; what is measured on must not be learned"

    def test_a_case_that_the_manifest_left_out_as_holdout(self, export):
        change_manifest(export, not_exported=[{"suite": "support", "case_id": "b", "split": "holdout"}])
        assert faults_of(export) == [f"train.jsonl:2: holds 1 example of holdout cases: b; {self.FIX}"]

    def test_a_case_that_the_ledger_knows_and_that_became_holdout(self, export):
        taught = {"suite": "support", "case_id": "a", "input_fingerprint": input_fingerprint("a"), "content_hash": "c", "export": "e"}
        change_manifest(export, holdout_taught=[taught])
        assert faults_of(export) == [f"train.jsonl:1: holds 1 example of holdout cases: a; {self.FIX}"]

    def test_its_input_in_a_line_that_was_added_by_hand(self, export):
        taught = {
            "suite": "support",
            "case_id": "z",
            "input_fingerprint": input_fingerprint("Where is z?"),
            "content_hash": "c",
            "export": "e",
        }
        change_manifest(export, holdout_taught=[taught])
        added = {"prompt": [user("where is  Z?")], "completion": [assistant("There.")]}
        with (export / "train.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(added) + "\n")
        assert faults_of(export, allow_changed=True) == [f"train.jsonl:3: holds 1 example of holdout cases: line 3; {self.FIX}"]


class TestPairs:
    def pairs(self, export, sha=None):
        row = {"prompt": [user("Hi")], "chosen": [assistant("Hello.")], "rejected": [assistant("What?")]}
        (export / "preference").mkdir()
        (export / "preference" / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        return read_data(export, "dpo", allow_changed=sha is None)

    def test_have_a_file_of_their_own(self, export):
        assert faults_of(export, "dpo") == [
            "preference/train.jsonl: is not there, so there is nothing to train on; export again with --llm-export-format preference"
        ]

    def test_one_that_the_manifest_does_not_know_is_refused_unless_it_is_wanted(self, export):
        data = self.pairs(export)
        assert [(line.number, line.case) for line in data.lines] == [(1, None)]
        assert faults_of(export, "dpo") == [
            "preference/train.jsonl: is not in the manifest; export again, or say --allow-changed-data where the change is wanted"
        ]

    def test_is_held_against_the_hash_of_the_manifest(self, export):
        sha = self.pairs(export).sha256
        change_manifest(export, formats={"preference": {"files": [{"path": "preference/train.jsonl", "sha256": sha}]}})
        assert not read_data(export, "dpo").changed


class TestMeasuring:
    def test_whole_cases_are_kept_for_it_and_the_same_ones_every_time(self, tmp_path):
        offers = [
            offer(example(case_id=f"case-{n}", trial=t, prompt=(user(f"Where is {n}?"),), completion=(assistant(f"There, {t}."),)))
            for n in range(60)
            for t in (1, 2)
        ]
        write_export(tmp_path / "all", offers=offers, held_out=(), run={})
        write_export(tmp_path / "some", offers=offers[:60], held_out=(), run={})
        everything, some = read_data(tmp_path / "all"), read_data(tmp_path / "some")
        kept, fewer = ({line.case for line in data.lines if line.number in data.eval_lines(0.2)} for data in (everything, some))
        assert 2 <= len(kept) <= 20
        assert fewer == {case for case in kept if int(case[1].removeprefix("case-")) < 30}
        assert len(everything.eval_lines(0.2)) == 2 * len(kept)
        assert everything.eval_lines(0.0) == ()
