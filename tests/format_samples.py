"""Exports with further formats, as `write_export` leaves them: a folder, its manifest, and one file a format."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pytest_touchstone.export.write import MANIFEST_FORMAT
from pytest_touchstone.train.data import Line, TrainingData
from pytest_touchstone.train.job import Job
from pytest_touchstone.train.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

INFO = {
    "touchstone": {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
    "touchstone_preference": {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "tools": "tools", "chosen": "chosen", "rejected": "rejected"},
    },
}


def chat_row(number):
    return {"messages": [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": f"Answer {number}."}]}


def pair_row(number):
    answers = {"preferred_output": "Yes", "non_preferred_output": "No"}
    given = {"messages": [{"role": "user", "content": f"Question {number}?"}]}
    return {"input": given, **{name: [{"role": "assistant", "content": f"{text} {number}."}] for name, text in answers.items()}}


def sharegpt_row(number):
    turns = [{"from": "human", "value": f"Question {number}?"}, {"from": "gpt", "value": f"Answer {number}."}]
    return {"conversations": turns, "tools": ""}


def sharegpt_pair_row(number):
    answers = {name: {"from": "gpt", "value": f"{text} {number}."} for name, text in (("chosen", "Yes"), ("rejected", "No"))}
    return {"conversations": [{"from": "human", "value": f"Question {number}?"}], **answers, "tools": ""}


ROWS = {
    "openai": chat_row,
    "openai-preference": pair_row,
    "llamafactory": sharegpt_row,
    "llamafactory-preference": sharegpt_pair_row,
}


def write_formats(folder: Path, *names, examples=12, left=()):
    """An export of `examples` cases in the formats `names`, without the cases `left` (from 0), which no format could hold."""
    places = [{"suite": "shop", "case_id": f"case-{number}", "nodeid": f"shop.py::t[{number}]", "trial": 1} for number in range(examples)]
    rows = [
        {"prompt": [{"role": "user", "content": f"Question {n}?"}], "completion": [{"role": "assistant", "content": "Yes."}]}
        for n in range(examples)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row).encode() for row in rows]
    manifest = {
        "format": MANIFEST_FORMAT,
        "train_sha256": _write(folder / "train.jsonl", lines),
        "examples": [{**place, "sha256": hashlib.sha256(line).hexdigest()} for place, line in zip(places, lines, strict=True)],
        "formats": {},
    }
    for name in names:
        kept = [number for number in range(examples) if number not in left]
        digest = _write(folder / name / "train.jsonl", [json.dumps(ROWS[name](number)).encode() for number in kept])
        if name.startswith("llamafactory"):
            dataset = "touchstone_preference" if name.endswith("preference") else "touchstone"
            (folder / name / "dataset_info.json").write_text(json.dumps({dataset: INFO[dataset]}))
        manifest["formats"][name] = {
            "files": [{"path": f"{name}/train.jsonl", "sha256": digest}],
            "left_out_by_reason": {"not in this format": len(left)} if left else {},
            "not_written": [{**places[number], "reason": "not in this format: a picture"} for number in left],
        }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(line + b"\n" for line in lines)
    file.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def plan_of(folder: Path, output: Path, *, resume=False, python="python", **fields):
    """The plan of a job on an export that `write_formats` wrote."""
    file = folder / "train.jsonl"
    raw = file.read_bytes() if file.exists() else b""
    lines = tuple(Line(number=number, case=("shop", f"case-{number - 1}")) for number in range(1, raw.count(b"\n") + 1))
    data = TrainingData(folder=folder, file=file, sha256=hashlib.sha256(raw).hexdigest(), lines=lines)
    return Plan(job=Job(**fields).resolved(), data=data, output=output, python=python, resume=resume)
