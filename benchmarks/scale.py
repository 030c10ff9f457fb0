"""CPU time for each case and peak memory of runs of two sizes, one case in ten failing: `scale.py [SMALL] [LARGE] [ROUNDS]`."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from timing import MEGABYTE, Used, run

GOLDEN = """
import pytest
from pytest_touchstone import exact_match

@pytest.mark.golden("cases.jsonl")
def test_sum(case):
    case.output = case.metadata["answer"]
    case.check(exact_match())
"""
FAILING = 10
START = 10


def main(small: int = 1_000, large: int = 10_000, rounds: int = 3) -> None:
    # A run of a few cases is little more than a start, which would make the smaller run's cases look dear.
    runs: dict[int, list[Used]] = {START: [], small: [], large: []}
    with tempfile.TemporaryDirectory() as folder:
        for cases in runs:
            _write_project(Path(folder, str(cases)), cases)
        for _ in range(rounds):
            for cases, measured in runs.items():
                measured.append(_run(Path(folder, str(cases)), cases))
    cpu_s = {cases: statistics.median(run.cpu_s for run in measured) for cases, measured in runs.items()}
    further_s = {cases: (cpu_s[cases] - cpu_s[START]) / (cases - START) for cases in (small, large)}
    print(f"{START:7,} cases: {cpu_s[START]:.2f} s of CPU")
    for cases, each_s in further_s.items():
        peak = max(run.peak_bytes for run in runs[cases]) / MEGABYTE
        print(
            f"{cases:7,} cases, {cases // FAILING:,} failing: {cpu_s[cases]:.2f} s of CPU, {cpu_s[cases] / cases * 1000:.2f} ms a case, "
            f"{each_s * 1000:.2f} ms without the start; peak {peak:.0f} MB"
        )
    with_start, without = cpu_s[large] / large / (cpu_s[small] / small), further_s[large] / further_s[small]
    print(f"a case of the larger run costs {with_start:.2f} times one of the smaller, {without:.2f} times without the start")


def _write_project(root: Path, cases: int) -> None:
    root.mkdir()
    rows = (
        {
            "id": f"case-{number}",
            "input": f"What is {number} + {number}?",
            "expected": str(2 * number),
            "metadata": {"answer": "no idea" if number % FAILING == 0 else str(2 * number)},
        }
        for number in range(cases)
    )
    (root / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "test_sum.py").write_text(GOLDEN)


def _run(root: Path, cases: int) -> Used:
    used = run([sys.executable, "-m", "pytest", "--llm-eval", "-p", "no:cacheprovider"], cwd=root, expected=(1,))
    failed = len(range(0, cases, FAILING))
    assert f"{failed} failed, {cases - failed} passed" in used.last_line, used.last_line
    return used


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
