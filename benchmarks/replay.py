"""CPU of model calls replayed from recordings beside the same calls answered in memory: `replay.py [CALLS] [ROUNDS]`.

The other side is plain pytest: one parametrized test for each call, and an SDK client whose transport is a function.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from pathlib import Path

from timing import cpu, print_medians, run, run_in_turn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from providers import FakeProvider, Reply

ASK = """
def completion(text):
    return {"model": "some-model", "messages": [{"role": "user", "content": text}]}

def ask(text, client):
    return client.chat.completions.create(**completion(text)).choices[0].message.content

async def aask(text, client):
    return (await client.chat.completions.create(**completion(text))).choices[0].message.content
"""
PLAIN = """
import json, os
import httpx2
import pytest
from ask import ask
from openai import OpenAI

ANSWER = json.loads(os.environ["ANSWER"])

def reply(request):
    return httpx2.Response(200, json=ANSWER)

client = OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(reply)))

@pytest.mark.parametrize("number", range(int(os.environ["CALLS"])))
def test_it(number):
    assert ask(f"What is {number} + {number}?", client) == "4"
"""
GOLDEN = """
import os
import pytest
from ask import aask, ask
from openai import AsyncOpenAI, OpenAI
from pytest_touchstone import exact_match

CASES = [{"id": str(n), "input": f"What is {n} + {n}?", "expected": "4"} for n in range(int(os.environ["CALLS"]))]
client = OpenAI(base_url=os.environ["ANSWERS_AT"], api_key="none")
aclient = AsyncOpenAI(base_url=os.environ["ANSWERS_AT"], api_key="none")

@pytest.mark.golden(CASES)
def test_sync(case):
    case.output = ask(case.input, client)
    case.check(exact_match())

@pytest.mark.golden(CASES)
async def test_async(case):
    case.output = await aask(case.input, aclient)
    await case.acheck(exact_match())
"""


def main(calls: int = 1_000, rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder, FakeProvider(Reply(text="4")) as provider:
        root = Path(folder)
        for name, text in (("ask.py", ASK), ("test_plain.py", PLAIN), ("test_golden.py", GOLDEN)):
            (root / name).write_text(text)
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        env = {"ANSWERS_AT": provider.openai_url, "CALLS": str(calls), "ANSWER": _answer(provider.openai_url)}
        run([*pytest, "--llm-eval", "--llm-record", "all", "test_golden.py"], cwd=root, env=env)
        provider.stop()
        replayed = [*pytest, "--llm-eval", "--llm-record", "none"]
        commands = {
            "plain pytest, answered in memory": [*pytest, "-p", "no:touchstone", "test_plain.py"],
            "replayed, sync bodies": [*replayed, "test_golden.py::test_sync"],
            "replayed, async bodies": [*replayed, "test_golden.py::test_async"],
        }
        medians = print_medians(cpu(run_in_turn(commands, cwd=root, rounds=rounds, env=env)))
    plain = medians.pop("plain pytest, answered in memory")
    for name, median in medians.items():
        print(f"{name}: {median / plain:.2f} times the CPU of plain pytest")


def _answer(url: str) -> str:
    asked = {"model": "some-model", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        text: str = answer.read().decode()
    return text


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
