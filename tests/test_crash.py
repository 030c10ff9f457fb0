"""Runs that are killed at any moment: what was paid for is replayed, what was committed stays whole.

A small suite runs in a process group of its own against a provider in this process. The provider, or a hook on the file system inside
the killed process, sends SIGKILL at a moment that the seed decides; nothing waits, and nothing sleeps. Then the suite runs again.

`TOUCHSTONE_CRASH_SEEDS=200 pytest tests/test_crash.py` tries that many seeds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.recording.store import read_recording

CASES = 3
TRIALS = 2 * CASES
STREAM_EVENTS = 9
TEXT = "paid for " * 3
SUITE = f"""
import json
import os
import threading

import httpx
import pytest

URL = os.environ["CRASH_URL"]
CASES = [{{"id": f"c{{number}}", "input": f"question {{number}}", "split": "train"}} for number in range({CASES})]
client = httpx.Client(timeout=None)


def request(case, **kwargs):
    # Who asks: whoever asks for the second time has got, and stored, the first answer.
    headers = {{"x-who": f"{{os.getpid()}} {{threading.get_ident()}}"}}
    body = {{"model": "gpt-test", "messages": [{{"role": "user", "content": case.input}}], **kwargs}}
    return {{"method": "POST", "url": URL, "headers": headers, "json": body}}


@pytest.mark.golden(CASES)
def test_plain(case):
    case.output = client.request(**request(case)).json()["choices"][0]["message"]["content"]
    case.check(lambda trial: trial.output == {TEXT!r})


@pytest.mark.golden(CASES)
def test_stream(case):
    with client.stream(**request(case, stream=True)) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {{")]
    case.output = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    case.check(lambda trial: trial.output == {TEXT!r})
"""

# In the process that merges: the n-th of these calls is its last act, before or after it is done.
KILL_IN_MERGE = """
import os
import signal

import pytest

left = [{at}]


def deadly(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and {early}:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
"""

# In any process: the n-th line for the journal is torn.
KILL_IN_JOURNAL = """
import os
import signal

left = [{at}]
real = os.write


def torn(descriptor, data):
    if bytes(data).startswith(b'{{"check"'):
        left[0] -= 1
        if left[0] == 0:
            real(descriptor, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    return real(descriptor, data)


os.write = torn
"""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a run is killed, and who.

    `moment`: `asked` (the `at`-th request arrives), `streaming` (some of its answer is sent), `answering` (while its answer is under way),
    `merge` (the `at`-th file operation of the merge) or `journal` (the `at`-th journal line is half written).
    `victim`: `all`, `worker` (who asked) or `controller`. `early`: before the file operation, or after so many events of the stream.
    """

    moment: str
    at: int
    early: int = 0
    victim: str = "all"


class Suite:
    """The suite, its provider, and the processes that run it."""

    def __init__(self, root, arguments):
        self.root = root
        self.committed = root / "__recordings__" / "test_suite.jsonl"
        self.asked = []
        self.paid = set()
        self._arguments = arguments
        self._kill = None
        self._open = {}
        self._process = None
        self._lock = threading.Lock()
        (root / "test_suite.py").write_text(SUITE)
        self.provider = FakeProvider(self._reply)

    def run(self, kill=None):
        """Run the suite to its end, or to its death: the exit status and what it printed."""
        self._kill = kill
        self._open.clear()
        self.asked.clear()
        hook = {"merge": KILL_IN_MERGE, "journal": KILL_IN_JOURNAL}.get(kill.moment if kill else "", "")
        (self.root / "conftest.py").write_text(hook and hook.format(at=kill.at, early=bool(kill.early)))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST_"))}
        environment = {**kept, "CRASH_URL": f"{self.provider.openai_url}/chat/completions"}
        with self._lock:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "--llm-eval", "-p", "no:cacheprovider", "--rootdir", self.root, *self._arguments],
                cwd=self.root,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        output = self._process.communicate()[0].decode()
        return self._process.returncode, output

    def _reply(self, seen):
        question = (seen.json["messages"][0]["content"], bool(seen.json.get("stream")))
        who = seen.headers["x-who"]
        with self._lock:
            self.asked.append(question)
            if who in self._open:
                self.paid.add(self._open[who])
            self._open[who] = question
            due = self._kill is not None and self._kill.at == len(self.asked)
        moment = self._kill.moment if due else ""
        killer = Killer(lambda: self._strike(who))
        if moment == "asked" or (moment == "streaming" and not question[1]):
            killer.wait()
        if moment == "answering":
            threading.Thread(target=killer.wait).start()
        if moment == "streaming" and question[1]:
            return Reply(text=TEXT, wait=killer, pause_after=self._kill.early)
        return Reply(text=TEXT)

    def _strike(self, who):
        with self._lock, suppress(ProcessLookupError):
            if self._kill.victim == "all":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                os.kill(int(who.split()[0]) if self._kill.victim == "worker" else self._process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Killer:
    """What a reply waits for, although it never needs to wait."""

    wait: object


def check(root, kills, *arguments):
    """Kill runs of the suite in turn; after each the committed file is whole, and at last nothing was paid twice and nothing is missing."""
    suite = Suite(root, arguments)
    with suite.provider:
        for number, kill in enumerate(kills):
            status, output = suite.run(kill)
            # The run after a kill may be over before its own comes.
            assert status == -signal.SIGKILL or kill.victim == "worker" or number or kill.moment in {"merge", "journal"}, output
            read_recording(suite.committed)
            assert not suite.paid & again(suite), output
        before = set(suite.paid)
        suite.paid.clear()
        status, output = suite.run()
        assert status == 0, output
        assert f"{TRIALS} passed" in output
        assert not before & set(suite.asked), output
        assert len(suite.asked) == len(set(suite.asked))
    entries = read_recording(suite.committed)
    assert len(entries) == TRIALS
    assert not any(entry.incomplete for entry in entries)
    assert not list(suite.committed.parent.glob(".*.tmp"))
    assert not list((root / ".touchstone" / "journals").glob("*.jsonl"))
    return suite


def again(suite):
    """What was asked twice within one run."""
    return {question for question in suite.asked if suite.asked.count(question) > 1}


MOMENTS = ("asked", "streaming", "answering", "merge", "journal")


def drawn(seed):
    """The kills of a seed."""
    dice = random.Random(seed)
    return [
        Kill(moment=moment, at=dice.randint(1, 4 if moment in {"merge", "journal"} else TRIALS), early=dice.randint(0, STREAM_EVENTS))
        for moment in (MOMENTS[seed % len(MOMENTS)], *dice.choices(MOMENTS, k=seed % 2))
    ]


SEEDS = range(int(os.environ.get("TOUCHSTONE_CRASH_SEEDS", "5")))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_loses_nothing_that_was_paid_for(tmp_path, seed):
    check(tmp_path, drawn(seed), "--llm-concurrency", "1" if seed % 3 else "4")


@pytest.mark.parametrize("victim", ["worker", "controller", "all"])
def test_a_killed_run_of_many_processes_loses_nothing_either(tmp_path, victim):
    check(tmp_path, [Kill(moment="asked", at=4, victim=victim)], "-n", "2", "--llm-concurrency", "1")
