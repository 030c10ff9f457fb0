"""The course of one vote: attempts, waits and the deadline over them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from pytest_touchstone.errors import ModelError, RecordingMiss
from pytest_touchstone.judging.asking import Clock, apursue, course, pursue
from pytest_touchstone.judging.verdict import Grading, Unusable, Verdict
from pytest_touchstone.models.client import Answer, Ask, AskFailed

ASK = Ask(system="", messages=(), max_tokens=40, timeout_s=60)
GOOD = Answer(text='{"reason": "good", "verdict": "pass"}')
PASS = Verdict(passed=True, value=1.0, reason="good")
BUSY = AskFailed("is not available (HTTP 503)")


@dataclass
class World:
    """A model that answers by script, each answer after some seconds, on a clock that nobody waits for."""

    asynchronous: bool
    spec: str = "openai:m"
    now: float = 1000.0
    script: list = field(default_factory=list)
    timeouts: list = field(default_factory=list)
    waits: list = field(default_factory=list)

    def ask(self, ask):
        self.timeouts.append(ask.timeout_s)
        seconds, said = self.script.pop(0)
        self.now += seconds
        if isinstance(said, BaseException):
            raise said
        return said

    async def aask(self, ask):
        return self.ask(ask)

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    async def asleep(self, seconds):
        self.sleep(seconds)

    def vote(self, *script, attempts=3):
        self.script = [(1, entry) if not isinstance(entry, tuple) else entry for entry in script]
        clock = Clock(monotonic=lambda: self.now, sleep=self.sleep, asleep=self.asleep)
        steps = course(ASK, lambda answer: Grading().read(answer, max_tokens=40), attempts=attempts, monotonic=clock.monotonic)
        said = asyncio.run(apursue(self, steps, clock)) if self.asynchronous else pursue(self, steps, clock)
        assert not self.script
        return said


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request):
    return World(request.param)


def test_a_verdict_ends_the_course(world):
    assert world.vote(GOOD) == PASS
    assert (world.timeouts, world.waits) == ([60], [])


def test_an_unusable_answer_is_asked_for_again_at_once_with_what_time_is_left(world):
    assert world.vote(Answer(text="{"), Answer(stop="refusal", detail="No."), GOOD) == PASS
    assert (world.timeouts, world.waits) == ([60, 59, 58], [])


def test_after_the_last_attempt_the_last_reason_stands(world):
    assert world.vote(Answer(text="{"), BUSY, Answer(stop="length")) == Unusable(reason="was cut off at 40 tokens (asked 3 times)")
    assert world.vote(Answer(stop="length"), attempts=1) == Unusable(reason="was cut off at 40 tokens")


def test_after_a_failure_of_the_server_the_wait_doubles_up_to_eight_seconds(world):
    assert world.vote(*[BUSY] * 7, attempts=7) == Unusable(reason="is not available (HTTP 503) (asked 7 times)")
    assert world.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert world.timeouts == [60, 58.5, 56.5, 53.5, 48.5, 39.5, 30.5]


def test_the_server_may_say_how_long_to_wait(world):
    limited = AskFailed("is rate limited (HTTP 429)", retry_after_s=20)
    assert world.vote(limited, AskFailed("is rate limited (HTTP 429)", retry_after_s=0), GOOD) == PASS
    assert world.waits == [20]


@pytest.mark.parametrize("seconds", [59, 3600])
def test_a_wait_that_would_reach_the_deadline_is_not_begun(world, seconds):
    limited = AskFailed("is rate limited (HTTP 429)", retry_after_s=seconds)
    assert world.vote(limited) == Unusable(reason="is rate limited (HTTP 429) (asked once; no time for another attempt within 60 s)")
    assert world.waits == []


def test_no_attempt_begins_after_the_deadline(world):
    said = world.vote((40, Answer(text="")), (20, AskFailed("gave no answer within 20 s")))
    assert said == Unusable(reason="gave no answer within 20 s (asked 2 times; no time for another attempt within 60 s)")
    world.timeouts.clear()
    said = world.vote((60, Answer(text="")))
    assert said == Unusable(reason="answered with nothing (asked once; no time for another attempt within 60 s)")
    assert world.timeouts == [60]


def test_a_verdict_that_comes_late_still_counts(world):
    assert world.vote((61, GOOD)) == PASS


def test_what_will_fail_again_is_not_asked_again(world):
    assert world.vote(AskFailed("was asked more than it can read", retry=False)) == Unusable(reason="was asked more than it can read")


@pytest.mark.parametrize("error", [ModelError("no key"), RecordingMiss("no recording"), KeyboardInterrupt()])
def test_what_is_no_failure_of_the_moment_is_raised(world, error):
    with pytest.raises(type(error)):
        world.vote(error)


def test_the_real_clock_moves_and_sleeps():
    clock = Clock()
    before = clock.monotonic()
    clock.sleep(0)
    asyncio.run(clock.asleep(0))
    assert clock.monotonic() >= before
