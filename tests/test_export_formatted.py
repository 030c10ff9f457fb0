"""The chosen formats of an export: all accounted for, guarded, whole after a crash, the same bytes, and nobody else's files touched."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import pytest
from export_samples import WEATHER, assistant, example, offer, tool_call, unseen, user

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export import formatted, write
from pytest_touchstone.export.formats.registry import FORMATS
from pytest_touchstone.export.leak import input_fingerprint
from pytest_touchstone.export.write import check_folder, write_export
from pytest_touchstone.settings import EXPORT_FORMATS

ALL = tuple(name for name in EXPORT_FORMATS if name != "datasets" or importlib.util.find_spec("pyarrow"))
TEXTS = tuple(name for name in ALL if name not in {"trl", "datasets"})
SECRET = "The parcel from Bergen never arrived, who pays?"

TOLD = ("README.md", "report.json")  # what an export says of itself


def fix(number, **fields):
    values = {
        "case_id": f"case-{number}",
        "content_hash": f"{number:064}",
        "prompt": (user(f"Question {number}"),),
        "completion": (assistant(f"Answer {number}"),),
        "rejected": (assistant(f"Wrong {number}"),),
    }
    return example(**(values | fields))


def export(folder, *examples, formats=ALL, **fields):
    return write_export(folder, offers=[offer(each) for each in examples], formats=formats, **({"held_out": (), "run": {}} | fields))


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


TEN = [fix(number) for number in range(1, 11)]


def test_the_registry_has_every_format_but_the_one_that_is_always_written():
    assert ("trl", *FORMATS) == EXPORT_FORMATS


def test_each_format_has_a_folder_and_a_report(tmp_path):
    made = export(tmp_path, *TEN)
    assert set(files_of(tmp_path)) == {
        "ledger.jsonl", "manifest.json", "train.jsonl", *TOLD,
        *(f"{name}/{file}" for name in ALL if name != "trl" for file in FORMATS[name].files),
    }  # fmt: skip
    report = made.formats["openai"]
    data = (tmp_path / "openai" / "train.jsonl").read_bytes()
    assert report == {
        "files": [{"path": "openai/train.jsonl", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}],
        "examples": 10, "written": 10, "left_out": 0, "left_out_by_reason": {}, "anchored": [], "not_written": [],
    }  # fmt: skip
    assert len(data.splitlines()) == 10


def test_every_example_is_in_a_format_or_has_a_reason(tmp_path):
    replay = fix(
        11, kind="replay", target_source="wire", rejected=(), completion=(assistant(None, tool_calls=[tool_call("[")]),), tools=(WEATHER,)
    )
    made = export(tmp_path, *TEN, replay)
    for name, report in made.formats.items():
        assert report["examples"] == made.written == 11 == report["written"] + report["left_out"], name
        assert sum(report["left_out_by_reason"].values()) == report["left_out"] == len(report["not_written"])
    assert made.formats["preference"]["not_written"] == [
        {
            "suite": "support", "case_id": "case-11", "nodeid": "support.py::test[case-11]#1", "trial": 1, "content_hash": f"{11:064}",
            "reason": "no pair of answers: nothing failed, so there is only a good one",
        }
    ]  # fmt: skip
    assert made.formats["bedrock"]["left_out_by_reason"] == {"not in this format": 1}
    assert made.formats["messages"]["left_out"] == 0


def test_a_rule_of_the_whole_file_leaves_all_of_it_out(tmp_path):
    export(tmp_path, *TEN, formats=["openai"])
    made = export(tmp_path, *TEN[:4], fix(5, prompt=(user("a", name="A B"),)), formats=["openai"])
    reasons = [entry["reason"] for entry in made.formats["openai"]["not_written"]]
    assert reasons[:4] == ["too few: OpenAI takes 10 examples or more, and there would be 4"] * 4
    assert reasons[4].startswith("not in this format: a message's name is 'A B'")
    assert made.formats["openai"]["files"] == []
    assert set(files_of(tmp_path)) == {"ledger.jsonl", "manifest.json", "train.jsonl", *TOLD}
    assert not (tmp_path / "openai").exists()


def test_no_example_gives_no_file_in_any_format(tmp_path):
    export(tmp_path, *TEN)
    made = export(tmp_path)
    assert {report["examples"] for report in made.formats.values()} == {0}
    assert set(files_of(tmp_path)) == {"ledger.jsonl", "manifest.json", *TOLD}


def test_the_same_examples_give_the_same_bytes(tmp_path):
    export(tmp_path / "a", *TEN)
    export(tmp_path / "b", *reversed(TEN), formats=[*reversed(ALL), *ALL])
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


class TestHoldout:
    @pytest.mark.parametrize(
        "leaking",
        [
            pytest.param({"rejected": (assistant(f"You asked:\n{SECRET}"),)}, id="rejected"),
            pytest.param({"rejected": (assistant(SECRET.upper()),)}, id="rejected, written otherwise"),
            pytest.param({"prompt": (user("Hi"), assistant("Yes?"), user(SECRET))}, id="prompt"),
            pytest.param({"completion": (assistant(SECRET),)}, id="completion"),
            pytest.param({"completion": (assistant(None, tool_calls=[tool_call(json.dumps({"q": SECRET}))]),), "rejected": ()}, id="call"),
            pytest.param({"input_fingerprint": input_fingerprint(SECRET), "prompt": (user(SECRET),)}, id="input"),
        ],
    )
    def test_content_is_in_no_file_of_any_format(self, tmp_path, leaking):
        made = export(tmp_path, *TEN, fix(11, **leaking), held_out=unseen(input_fingerprint(SECRET)))
        assert made.left_out_by_reason == {"leak": 1}
        assert {report["examples"] for report in made.formats.values()} == {10}
        for name, data in files_of(tmp_path).items():
            assert SECRET.casefold().encode() not in data.lower(), name

    def test_a_case_that_became_holdout_leaves_every_format(self, tmp_path):
        export(tmp_path, *TEN, fix(11, prompt=(user(SECRET),)))
        assert all(SECRET.encode() in files_of(tmp_path)[f"{name}/train.jsonl"] for name in TEXTS)
        offers = [offer(each) for each in TEN] + [offer(fix(11, prompt=(user(SECRET),)), split="holdout")]
        write_export(tmp_path, offers=offers, held_out=unseen(input_fingerprint(SECRET)), run={}, formats=ALL)
        assert not [name for name, data in files_of(tmp_path).items() if SECRET.encode() in data]

    def test_it_leaves_also_formats_that_are_not_chosen_any_more(self, tmp_path):
        export(tmp_path, *TEN, fix(11, prompt=(user(SECRET),)))
        export(tmp_path, *TEN, held_out=unseen(input_fingerprint(SECRET)), formats=())
        assert set(files_of(tmp_path)) == {"ledger.jsonl", "manifest.json", "train.jsonl", *TOLD}


def test_redaction_reaches_every_format_and_the_rejected_answer(tmp_path):
    key = "sk-live-12345"
    spoilt = fix(11, prompt=(user(f"My key is {key}"),), rejected=(assistant(f"So it is {key}"),), completion=(assistant(f"Hide {key}"),))
    export(tmp_path, *TEN, spoilt, redact=lambda text: text.replace(key, "[redacted]"))
    assert not [name for name, data in files_of(tmp_path).items() if key.encode() in data]
    assert b"So it is [redacted]" in files_of(tmp_path)["preference/train.jsonl"]


class TestPlaces:
    @pytest.mark.parametrize("name", [name for name in ALL if name != "trl"])
    def test_a_file_of_somebody_else_is_refused_and_stays(self, tmp_path, name):
        export(tmp_path, *TEN, formats=())
        path = tmp_path / name / FORMATS[name].files[0]
        path.parent.mkdir()
        path.write_bytes(b"mine")
        with pytest.raises(ExportError) as raised:
            export(tmp_path, *TEN, formats=[name])
        assert (
            str(raised.value)
            == f"{path}: was not written by an export (its manifest does not list it); move it away or choose another folder"
        )
        export(tmp_path, *TEN, formats=())
        assert path.read_bytes() == b"mine"

    def test_files_beside_ours_stay_and_so_does_their_folder(self, tmp_path):
        export(tmp_path, *TEN, formats=["openai", "bedrock"])
        (tmp_path / "openai" / "notes.txt").write_bytes(b"mine")
        export(tmp_path, *TEN, formats=())
        assert set(files_of(tmp_path)) == {"ledger.jsonl", "manifest.json", "train.jsonl", "openai/notes.txt", *TOLD}
        assert not (tmp_path / "bedrock").exists()

    def test_a_manifest_cannot_have_other_files_removed(self, tmp_path):
        folder = tmp_path / "training"
        export(folder, *TEN, formats=())
        outside = tmp_path / "outside.txt"
        outside.write_bytes(b"mine")
        (folder / "openai").mkdir()
        (folder / "openai" / "other.jsonl").write_bytes(b"mine")
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        paths = ["../outside.txt", "openai/other.jsonl", "openai/../train.jsonl", 7, None]
        manifest |= {
            "claimed": paths,
            "formats": {"openai": {"files": [{"path": path} for path in paths] + ["x"]}, "x": 1, "y": {"files": 1}},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        export(folder, *TEN, formats=())
        assert outside.read_bytes() == b"mine"
        assert (folder / "openai" / "other.jsonl").read_bytes() == b"mine"

    @pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
    def test_what_is_no_plain_file_in_the_place_of_one(self, tmp_path, kind):
        folder = tmp_path / "training"
        export(folder, *TEN, formats=["openai"])
        path, outside = folder / "openai" / "train.jsonl", tmp_path / "outside"
        path.rename(outside)
        {"link": lambda: path.symlink_to(outside), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[kind]()
        before = outside.read_bytes()
        with pytest.raises(ExportError) as raised:
            export(folder, *TEN, formats=["openai"])
        assert (
            str(raised.value)
            == f"{path}: is a link, a folder or a device, and an export replaces plain files only; remove it or choose another folder"
        )
        export(folder, *TEN, formats=())
        assert outside.read_bytes() == before
        assert os.path.lexists(path)

    @pytest.mark.parametrize("kind", ["link", "file"])
    def test_what_is_no_folder_in_the_place_of_one(self, tmp_path, kind):
        folder, outside = tmp_path / "training", tmp_path / "outside"
        export(folder, *TEN, formats=["openai"])
        (folder / "openai").rename(outside)
        {"link": lambda: (folder / "openai").symlink_to(outside), "file": (folder / "openai").touch}[kind]()
        before = files_of(outside)
        with pytest.raises(ExportError) as raised:
            check_folder(folder, ["openai"])
        assert (
            str(raised.value)
            == f"{folder / 'openai'}: is no folder, and the format 'openai' is written into it; remove it or choose another folder"
        )
        export(folder, *TEN, formats=())
        assert files_of(outside) == before

    def test_a_library_that_is_missing_is_told_before_anything_is_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(formatted.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ExportError) as raised:
            check_folder(tmp_path / "new", ["datasets"])
        assert str(raised.value) == (
            "the format 'datasets' needs pyarrow, which is not installed; pip install 'pytest-touchstone[parquet]', or leave it out"
        )


class Killed(BaseException):
    pass


@pytest.mark.parametrize("already", [(), ("openai", "messages")], ids=["new folder", "older export"])
def test_a_crash_at_any_write_leaves_whole_files_and_the_next_export_goes_on(tmp_path, monkeypatch, already):
    formats = ["bedrock", "openai", "llamafactory"]
    done = tmp_path / "done"
    export(done, *TEN, formats=formats)
    whole = files_of(done)
    replace = Path.replace
    for fatal in range(1, 20):
        folder = tmp_path / f"{fatal}"
        if already:
            export(folder, *TEN[:9], fix(11), formats=already)
        before, count = files_of(folder) if already else {}, iter(range(1, 20))

        def failing(self, target, fatal=fatal, count=count):
            if next(count) == fatal:
                raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing)
            try:
                export(folder, *TEN, formats=formats)
            except Killed:
                pass
            else:
                break
        for name, data in files_of(folder).items():
            known = {whole.get(name), before.get(name)}
            assert data in known or name in {"manifest.json", "ledger.jsonl", *TOLD}, (fatal, name)
        taught = (folder / "ledger.jsonl").read_text(encoding="utf-8") if fatal > 1 or already else ""
        assert "case-10" in taught or not any(b"Question 10" in data for name, data in files_of(folder).items() if name != "ledger.jsonl")
        export(folder, *TEN, formats=formats)
        again = files_of(folder)
        assert {name: data for name, data in again.items() if name != "ledger.jsonl"} == {
            name: data for name, data in whole.items() if name != "ledger.jsonl"
        }
    assert fatal == 11  # ledger, claim, train.jsonl, four files of formats, report, card, manifest, and none
    assert write.TRAIN_FILE in whole
