"""Values for the tests of exports, each with defaults that make it valid."""

from __future__ import annotations

import contextlib
import warnings

import pytest

from pytest_touchstone.cases import Case
from pytest_touchstone.export.example import Example
from pytest_touchstone.export.leak import HeldOut, input_fingerprint
from pytest_touchstone.export.write import Offer
from pytest_touchstone.trial import Call, Trial

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool_call(arguments='{"city": "Oslo"}', name="weather", call_id="call_1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def example(**fields):
    values = {
        "prompt": (user("Where is my order?"),),
        "completion": (assistant("On its way."),),
        "case_id": "order",
        "content_hash": "c" * 64,
        "suite": "support",
        "source": "support.yaml:3",
        "kind": "fix",
        "tags": ("shipping",),
        "target_source": "expected",
    }
    values |= fields
    values.setdefault("input_fingerprint", input_fingerprint(values["case_id"]))
    return Example(**values)


def offer(made=None, **fields):
    """The offer of an example's trial; without an example, that of a trial which offers none."""
    source = made or example(**{name: value for name, value in fields.items() if name in {"case_id", "content_hash", "suite"}})
    values = {
        "nodeid": f"{source.suite}.py::test[{source.case_id}]#{source.trial}",
        "suite": source.suite,
        "case_id": source.case_id,
        "content_hash": source.content_hash,
        "split": "train",
        "outcome": "failed" if source.kind == "fix" else "passed",
        "trial": source.trial,
        "input_fingerprint": source.input_fingerprint,
        "example": made,
        "reason": "" if made else "not run",
    }
    return Offer(**(values | fields))


def call(*messages, answer=None, **fields):
    return Call(provider="openai", model="tiny", messages=messages, answer=answer, **({"status": 200} | fields))


def unseen(*fingerprints):
    """Holdout cases of which nothing but their inputs' fingerprints is compared."""
    return [
        HeldOut(suite="other.py::test", case_id=each, source="other.yaml:1", fingerprint=each, text="") for each in sorted(fingerprints)
    ]


def trial(output=None, *, calls=(), scorers=(), number=1, **case):
    """A finished trial of a train case; `scorers` are those it was checked with."""
    made = Trial(Case(**({"id": "order", "input": "Where is my order?", "split": "train"} | case)), number=number)
    if output is not None:
        made.output = output
    made.calls.extend(calls)
    made.scorers.extend(scorers)
    return made


@contextlib.contextmanager
def offline_datasets():
    """The library `datasets`, which asks no hub inside; a test that needs it is skipped where it is absent."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, on import
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        yield datasets
