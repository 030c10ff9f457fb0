"""Wall time of the same cases in one module and in many, each body waiting: `modules.py [CASES] [MODULES] [WAIT_MS] [ROUNDS]`."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from timing import run

GOLDEN = """
import asyncio
import pytest
from pytest_touchstone import exact_match

@pytest.mark.golden({cases!r})
async def test_sum(case):
    await asyncio.sleep({wait_s!r})
    case.output = case.expected
    case.check(exact_match())
"""
IN_FLIGHT = 64


def main(cases: int = 1_000, modules: int = 200, wait_ms: int = 500, rounds: int = 3) -> None:
    wait_s = wait_ms / 1000
    walls: dict[int, list[float]] = {1: [], modules: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in walls:
            _write_project(Path(folder, str(number)), cases, number, wait_s)
        for _ in range(rounds):
            for number, measured in walls.items():
                measured.append(_run(Path(folder, str(number)), cases))
    least_s = cases * wait_s / IN_FLIGHT
    print(f"{cases:,} cases, {IN_FLIGHT} in flight, {wait_ms} ms each: at least {least_s:.2f} s")
    for number, measured in walls.items():
        wall_s = statistics.median(measured)
        print(f"{number:4} modules of {cases // number:5,} cases: {wall_s:.2f} s, {wall_s / least_s:.2f} times the least")


def _write_project(root: Path, cases: int, modules: int, wait_s: float) -> None:
    root.mkdir()
    of_each = cases // modules
    for module in range(modules):
        rows = ({"id": f"case-{number}", "input": f"What is {number}?", "expected": str(number)} for number in range(of_each))
        (root / f"cases_{module}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / f"test_sum_{module}.py").write_text(GOLDEN.format(cases=f"cases_{module}.jsonl", wait_s=wait_s))


def _run(root: Path, cases: int) -> float:
    command = [sys.executable, "-m", "pytest", "--llm-eval", "--llm-concurrency", str(IN_FLIGHT), "-p", "no:cacheprovider"]
    used = run(command, cwd=root)
    assert f"{cases} passed" in used.last_line, used.last_line
    return used.wall_s


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
