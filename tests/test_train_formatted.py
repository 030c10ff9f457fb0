"""The files of further formats, as a real export leaves them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from export_samples import assistant, example, offer, user

from pytest_touchstone.errors import JobError
from pytest_touchstone.export.leak import input_fingerprint
from pytest_touchstone.export.write import write_export
from pytest_touchstone.train.data import read_data
from pytest_touchstone.train.formatted import read_format


def made(number, *, trial=1, answer="Yes."):
    """An example of the case `case-N`."""
    fields = {"case_id": f"case-{number:02}", "input_fingerprint": input_fingerprint(f"Question {number}?"), "trial": trial}
    return example(prompt=(user(f"Question {number}?"),), completion=(assistant(answer),), kind="replay", target_source="output", **fields)


def held(line):
    return json.loads(line)["conversations"][0]["value"]


def test_every_line_is_known_by_its_case_and_split_as_the_others_are(tmp_path):
    examples = [made(number, trial=trial, answer=f"Yes {trial}.") for number in range(20) for trial in (1, 2)]
    # What the format cannot hold, in the middle: a place for a picture.
    examples[14] = made(7, answer="<image>")
    write_export(tmp_path, offers=[offer(each) for each in examples], held_out=(), run={}, formats=["llamafactory"])
    data = read_format(tmp_path, "llamafactory")
    assert len(data.lines) == 39
    assert [f"Question {int(case.removeprefix('case-'))}?" for _, case in data.cases] == [held(line) for line in data.lines]
    training, measured = data.parts(0.3)
    assert sorted(training.splitlines() + measured.splitlines()) == sorted(data.lines)
    rows = (tmp_path / "train.jsonl").read_bytes().splitlines()
    taken = {json.loads(rows[number - 1])["prompt"][0]["content"] for number in read_data(tmp_path).eval_lines(0.3)}
    assert {held(line) for line in measured.splitlines()} == taken
    assert 2 < len(taken) < 12


def test_without_a_part_to_measure_on_all_is_trained(tmp_path):
    write_export(tmp_path, offers=[offer(made(number)) for number in range(10)], held_out=(), run={}, formats=["openai"])
    data = read_format(tmp_path, "openai")
    assert data.parts(0.0) == (data.file.read_bytes(), b"")


def test_pairs_are_known_by_their_hash(tmp_path):
    offers = [
        offer(dataclasses.replace(made(number), kind="fix", target_source="expected", rejected=(assistant("No."),))) for number in range(3)
    ]
    write_export(tmp_path, offers=offers, held_out=(), run={}, formats=["preference"])
    assert [line.number for line in read_data(tmp_path, "dpo").lines] == [1, 2, 3]
    with (tmp_path / "preference" / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(JobError, match="is not as the export wrote it: its sha256 is not that of the manifest"):
        read_data(tmp_path, "dpo")
