"""Collecting golden cases of a JSONL file beside plain `parametrize` over the same list: `collection.py [CASES] [ROUNDS]`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from timing import print_medians, run_in_turn, wall

GOLDEN = """
import pytest

@pytest.mark.golden("cases.jsonl")
def test_it(case):
    assert case.input
"""

PLAIN = """
import json
import pathlib
import pytest

CASES = [json.loads(line) for line in pathlib.Path(__file__).with_name("cases.jsonl").read_text().splitlines()]

@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_it(case):
    assert case["input"]
"""


def main(cases: int = 10_000, rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = ({"id": f"case-{number}", "input": f"What is {number} + {number}?", "expected": str(2 * number)} for number in range(cases))
        (root / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / "test_golden.py").write_text(GOLDEN)
        (root / "test_plain.py").write_text(PLAIN)
        pytest = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
        commands = {"plain parametrize": [*pytest, "test_plain.py"], "golden, --llm-eval": [*pytest, "--llm-eval", "test_golden.py"]}
        medians = print_medians(wall(run_in_turn(commands, cwd=root, rounds=rounds)))
    print(f"{cases} cases: golden takes {medians['golden, --llm-eval'] / medians['plain parametrize']:.2f} times plain parametrize")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
