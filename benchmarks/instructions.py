"""Bytecode instructions for each trial, which no other load of the machine changes: `instructions.py [CASES] [MORE_CASES] [DELAY_MS]`.

What a run of more cases executes above a run of fewer ones, for each case of the difference: the bare client, plain pytest with as many
tests that are empty, and async bodies that make the same call. What C code does, and how well a processor's caches hold it, is not seen.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from timing import run

if TYPE_CHECKING:
    from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from providers import FakeProvider, Reply

if TYPE_CHECKING:
    from providers import Seen

ASK = """
import os
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url=os.environ["ANSWERS_AT"], api_key="none")

async def ask(text):
    answer = await client.chat.completions.create(model="some-model", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content
"""
BARE = """
import asyncio, os
from ask import ask

async def main():
    free = asyncio.Semaphore(64)
    async def one(number):
        async with free:
            assert await ask(f"What is {number} + {number}?") == "4"
    await asyncio.gather(*map(one, range(int(os.environ["CASES"]))))

asyncio.run(main())
"""
PLAIN = """
import os
import pytest

@pytest.mark.parametrize("number", range(int(os.environ["CASES"])))
def test_it(number):
    pass
"""
GOLDEN = """
import os
import pytest
from ask import ask
from pytest_touchstone import exact_match

@pytest.mark.golden([{"id": str(n), "input": f"What is {n} + {n}?", "expected": "4"} for n in range(int(os.environ["CASES"]))])
async def test_it(case):
    case.output = await ask(case.input)
    await case.acheck(exact_match())
"""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
PROGRAMS = {
    "bare client, 64 in flight": ("bare.py",),
    "plain pytest, empty tests": (*PYTEST, "-p", "no:touchstone", "test_plain.py"),
    "pytest-touchstone, async bodies": (
        *(*PYTEST, "--llm-eval", "--llm-concurrency", "64", "--llm-record", "off"),
        *("--llm-store", "off", "test_golden.py"),
    ),
}


def main(fewer: int = 30, more: int = 90, delay_ms: int = 50) -> None:
    def answer(_: Seen) -> Reply:
        time.sleep(delay_ms / 1000)
        return Reply(text="4")

    with tempfile.TemporaryDirectory() as folder, FakeProvider(answer) as provider:
        root = Path(folder)
        for name, text in (("ask.py", ASK), ("bare.py", BARE), ("test_plain.py", PLAIN), ("test_golden.py", GOLDEN)):
            (root / name).write_text(text)
        env = {"ANSWERS_AT": provider.openai_url, "PYTHONPATH": str(root)}
        for name, program in PROGRAMS.items():
            # Once before, since the first run compiles what it imports.
            _, few, many = (_count(program, root, {**env, "CASES": str(cases)}) for cases in (1, fewer, more))
            print(f"{name:32} {(many - few) / (more - fewer):>9,.0f} for each case")


def _count(program: tuple[str, ...], root: Path, env: dict[str, str]) -> int:
    counted = root / "counted"
    run([sys.executable, __file__, "--count", str(counted), *program], cwd=root, env=env)
    return int(counted.read_text())


class Counter:
    """Counts the instructions of every thread while a program runs."""

    def __init__(self) -> None:
        self.count = 0

    def trace(self, frame: FrameType, _event: str, _arg: object) -> object:
        """What `sys.settrace` takes."""
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._inside

    def _inside(self, _frame: FrameType, event: str, _arg: object) -> object:
        self.count += event == "opcode"
        return self._inside


def count(into: str, program: list[str]) -> None:
    counter = Counter()
    is_module = program[0] == "-m"
    sys.argv = program[is_module:]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it
    threading.settrace(counter.trace)  # type: ignore[arg-type]
    sys.settrace(counter.trace)  # type: ignore[arg-type]
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.settrace(None)
        Path(into).write_text(str(counter.count))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        count(sys.argv[2], sys.argv[3:])
    else:
        main(*map(int, sys.argv[1:]))
