"""1,319 real questions with the published answers of two models: the counts must be those of the published labels.

Skipped where the data is absent; TOUCHSTONE_DATA names the folder that holds `gsm8k/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("TOUCHSTONE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gsm8k"

TEST = """
    import json
    import pathlib

    import pytest

    from pytest_touchstone import exact_match

    DATA = pathlib.Path({data!r})
    OUTPUTS = {{}}
    for line in (DATA / "outputs.{model}.jsonl").read_text().splitlines():
        row = json.loads(line)
        OUTPUTS[row["id"]] = row["output"]


    @pytest.mark.golden(DATA / "cases.jsonl", input="input", expected="expected")
    def test_answers(case):
        case.output = OUTPUTS[case.id]
        case.check({check})
"""


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data is not at {DATA}")
@pytest.mark.parametrize(("model", "passing"), [("6b_finetuning", 286), ("175b_finetuning", 458)])
def test_published_counts(pytester, runner, model, passing):
    check = r"""exact_match(extract=r"(?m)^A:(.*)", remove=r"[,$]|\\.$")"""
    pytester.makepyfile(test_models=TEST.format(data=str(DATA), model=model, check=check))
    result = runner.run("--llm-eval", "--tb=no", "-q", "-rN")
    result.stdout.fnmatch_lines([f"test_models.py::test_answers *1,319 *{passing} *{1319 - passing:,} *0 *0 *0 *{passing / 1319:.1%}*"])
    assert result.ret == 1
