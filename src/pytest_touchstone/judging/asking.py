"""One usable answer from a model, such as a judge's vote, within a number of attempts and a deadline.

The course of it is a generator that asks and waits through whoever drives it, so that the sync and the async judge share it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pytest_touchstone.judging.verdict import Unusable
from pytest_touchstone.models.client import Answer, Ask, AskFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from pytest_touchstone.models.client import ModelClient

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time as a judge sees it; tests bring one that does not wait."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The driver is to wait this long."""

    seconds: float


Step: TypeAlias = Ask | Wait
Read = TypeVar("Read")
Course: TypeAlias = "Generator[Step, Answer | AskFailed | None, Read | Unusable]"


def course(ask: Ask, read: Callable[[Answer], Read | Unusable], *, attempts: int, monotonic: Callable[[], float]) -> Course[Read]:
    """Ask until `read` finds an answer usable, `attempts` are used up, or `ask.timeout_s` is over.

    After a failure of the server the wait doubles from half a second to eight, or is what the server asks for; a wait that would reach
    the deadline is not begun. An unusable answer is asked for again at once.
    """
    deadline = monotonic() + ask.timeout_s
    vote = Unusable(reason="was not asked")
    for number in range(1, attempts + 1):
        left = deadline - monotonic()
        if left <= 0:
            return _late(vote, ask, number - 1)
        got = yield replace(ask, timeout_s=left)
        wait = 0.0
        if isinstance(got, AskFailed):
            vote = Unusable(reason=got.reason)
            if not got.retry:
                return vote
            wait = min(FIRST_WAIT_S * 2 ** (number - 1), LONGEST_WAIT_S) if got.retry_after_s is None else got.retry_after_s
        else:
            assert got is not None
            outcome = read(got)
            if not isinstance(outcome, Unusable):
                return outcome
            vote = outcome
        if wait and number < attempts:
            if wait >= deadline - monotonic():
                return _late(vote, ask, number)
            yield Wait(seconds=wait)
    return vote if attempts == 1 else Unusable(reason=f"{vote.reason} (asked {attempts} times)")


def pursue(client: ModelClient, steps: Course[Read], clock: Clock) -> Read | Unusable:
    """Drive a course to its end."""
    got: Answer | AskFailed | None = None
    while isinstance(step := _advance(steps, got), (Ask, Wait)):
        got = None
        if isinstance(step, Wait):
            clock.sleep(step.seconds)
            continue
        try:
            got = client.ask(step)
        except AskFailed as error:
            got = error
    return step


async def apursue(client: ModelClient, steps: Course[Read], clock: Clock) -> Read | Unusable:
    """As `pursue`, without blocking the event loop."""
    got: Answer | AskFailed | None = None
    while isinstance(step := _advance(steps, got), (Ask, Wait)):
        got = None
        if isinstance(step, Wait):
            await clock.asleep(step.seconds)
            continue
        try:
            got = await client.aask(step)
        except AskFailed as error:
            got = error
    return step


def _advance(steps: Course[Read], got: Answer | AskFailed | None) -> Step | Read | Unusable:
    try:
        return steps.send(got)
    except StopIteration as stop:
        end: Read | Unusable = stop.value
        return end


def _late(vote: Unusable, ask: Ask, asked: int) -> Unusable:
    times = "once" if asked == 1 else f"{asked} times"
    return Unusable(reason=f"{vote.reason} (asked {times}; no time for another attempt within {ask.timeout_s:g} s)")
