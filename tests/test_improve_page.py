"""The page of evidence: whole, static, and unmoved by what stands in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from run_samples import SUITE, call, record, run

from pytest_touchstone.improve import hopeless, promote, untried
from pytest_touchstone.improve_page import MAX_CASES, evidence_data, evidence_page
from pytest_touchstone.improve_steps import Improved, Tried

EVIL = '</td><script src="http://x.invalid/x.js">alert(1)</script>\x1b[31m{{7*7}}'
MANIFEST = {"written": 12, "by_kind": {"fix": 5, "replay": 7}, "train_sha256": "ab12", "holdout_inputs": 50}
RESULT = {"base_model": "tiny", "seed": 3407, "loss": 0.125, "versions": {"trl": "1.14"}, "data": {"examples": 12}, "format": "x"}


def tried(passes, *, output="No.", prefix="h", count=50):
    records = [
        record(
            f"{prefix}{number}",
            "passed" if number < passes else "failed",
            split="holdout",
            tags=("odd" if number % 2 else "even",),
            output=output,
            input="Can I return it?",
            calls=(call(model="tiny-1"),),
        )
        for number in range(count)
    ]
    return Tried(run=run(records), records=records)


def improved(before=None, after=None, **changes):
    before, after = before or tried(30), after or tried(48, output="Yes.")
    verdict = promote(before.side, after.side)
    values = {
        "verdict": verdict,
        "before": before,
        "after": after,
        "manifest": MANIFEST,
        "result": RESULT,
        "commands": {"before": "pytest evals"},
    }
    return Improved(**{**values, **changes})


class Tags(HTMLParser):
    """What of a page could load or run something."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "data", "action", "xlink:href"} or name.startswith("on")]


def text_of(page):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))


def test_it_says_what_was_decided_and_why(tmp_path):
    (tmp_path / "job.yaml").write_text("seed: 3407\n")
    page = text_of(evidence_page(improved(), tmp_path))
    for said in (
        "promoted: the tuned model is better on cases that it never saw, and lost nothing that counts",
        f"{SUITE} holdout 50 60.0% 96.0% +36.0 +24.1 to +49.9 18 0",
        "even 25 60.0% 96.0%",
        "p 3.8e-06 (exact McNemar, one-sided)",
        "0 of 30 cases that passed before fail now (95% interval 0.0% to 11.6%); p 1 (exact binomial, one-sided)",
        "before: 50 trials: 30 passed, 20 failed",
        "Fixed: 18 cases",
        "h30 holdout Can I return it? failed: No. passed: Yes.",
        "Broken: 0 cases",
        "base_model tiny",
        "training data (sha256) ab12",
        "trl 1.14",
        "$ pytest evals",
        "seed: 3407",
    ):
        assert said in page, said


def test_it_runs_nothing_and_loads_nothing_whatever_is_in_it(tmp_path):
    (tmp_path / "curves.svg").write_text(f"<svg>{EVIL}</svg>")
    (tmp_path / "job.yaml").write_text(EVIL)
    dangerous = improved(
        tried(30, output=EVIL), tried(48, output=EVIL), result={"base_model": EVIL, "versions": {EVIL: EVIL}}, commands={"before": EVIL}
    )
    page = evidence_page(dangerous, tmp_path)
    tags = Tags(page)
    assert set(tags.names).isdisjoint({"script", "iframe", "object", "embed", "link", "a", "form", "base"})
    (curves,) = tags.links
    assert curves.startswith("data:image/svg+xml;base64,")
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert "{{7*7}}" in page


def test_what_cannot_be_shown_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "curves.svg").write_text("<svg/>")
    monkeypatch.setattr("pytest_touchstone.improve_page.MAX_FILE", 3)
    page = evidence_page(improved(result={"versions": "?"}), tmp_path)
    assert "<img" not in page
    assert "The job:" not in page


def test_of_many_cases_the_first_are_shown(tmp_path):
    before, after = tried(0, count=MAX_CASES + 7), tried(MAX_CASES + 7, count=MAX_CASES + 7)
    page = text_of(evidence_page(improved(before, after), tmp_path))
    assert "Fixed: 107 cases" in page
    assert "And 7 more; evidence.json has them all." in page


def test_where_nothing_was_trained(tmp_path):
    before = tried(49)
    nothing = improved(before, verdict=untried(before.side, hopeless(before.side)), result=None)
    nothing = Improved(**{**vars(nothing), "after": None})
    page = text_of(evidence_page(nothing, None))
    assert "refused: the holdout cases cannot tell whether a model is better" in page
    assert "too few holdout cases fail to tell a gain from chance: 50 can be compared and 1 of them fails" in page
    assert "Note: nothing was trained" in page
    assert evidence_data(nothing)["runs"]["after"] is None


def test_the_same_as_data():
    data = json.loads(json.dumps(evidence_data(improved())))
    assert (data["format"], data["result"], data["trials"]["after"]) == (
        "pytest-touchstone evidence 1",
        "promoted",
        {"passed": 48, "failed": 2},
    )
    assert data["holdout"][0]["p"] == pytest.approx(0.5**18)
    assert [tag["suite"] for tag in data["by_tag"][f"{SUITE} holdout"]] == ["even", "odd"]
    assert data["fixed"][0] == {"part": f"{SUITE} holdout", "case_id": "h30"}
    assert data["data"] == MANIFEST
