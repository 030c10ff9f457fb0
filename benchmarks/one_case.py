"""How long a run of one case takes beside one plain test with the same SDK call: `one_case.py [ROUNDS]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from timing import print_medians, run_in_turn, wall

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from providers import FakeProvider, Reply

ASK = """
import os
from openai import OpenAI

def ask(text):
    client = OpenAI(base_url=os.environ["ANSWERS_AT"], api_key="none")
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="some-model", messages=messages).choices[0].message.content
"""
PLAIN = """
from ask import ask

def test_it():
    assert ask("What is 2 + 2?") == "4"
"""
GOLDEN = """
import pytest
from ask import ask
from pytest_touchstone import exact_match

@pytest.mark.golden([{"id": "sum", "input": "What is 2 + 2?", "expected": "4"}])
def test_it(case):
    case.output = ask(case.input)
    case.check(exact_match())
"""


def main(rounds: int = 10) -> None:
    with tempfile.TemporaryDirectory() as folder, FakeProvider(Reply(text="4")) as provider:
        root = Path(folder)
        for name, text in (("ask.py", ASK), ("test_plain.py", PLAIN), ("test_golden.py", GOLDEN)):
            (root / name).write_text(text)
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        golden = [*pytest, "--llm-eval", "test_golden.py"]
        commands = {
            "plain pytest": [*pytest, "-p", "no:touchstone", "test_plain.py"],
            "golden, nothing recorded": [*golden, "--llm-record", "off"],
            "golden, recorded anew": [*golden, "--llm-record", "all"],
            "golden, replayed": [*golden, "--llm-record", "none"],
        }
        medians = print_medians(wall(run_in_turn(commands, cwd=root, rounds=rounds, env={"ANSWERS_AT": provider.openai_url})))
    plain = medians.pop("plain pytest")
    for name, median in medians.items():
        print(f"{name}: {median - plain:+.3f} s against plain pytest")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
