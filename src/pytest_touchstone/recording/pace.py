"""How many requests may be on their way to one provider at once: fewer after a rate limit, slowly more again.

Threads and the tasks of event loops wait in one queue for each host, and are let go in the order in which they came.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pytest_touchstone.text import counted, visible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

MAX_HOLD_S = 60.0
STUCK_S = 30.0
RATE_LIMITED = frozenset({429, 529})
UNAVAILABLE = 503
_SERVER_ERROR = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What providers call their quotas: `remaining` is a count, `reset` a duration (OpenAI) or a time (Anthropic).
_QUOTAS = (
    *(("x-ratelimit-remaining-" + name, "x-ratelimit-reset-" + name) for name in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{name}-remaining", f"anthropic-ratelimit-{name}-reset")
        for name in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?")
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


class Timers(Protocol):
    """Calls a function later, from any thread."""

    def __call__(self, seconds: float, then: Callable[[], None], /) -> object: ...  # noqa: D102 - told by the class


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What became of one host: how often it answered with a rate limit, and the highest and the lowest width that it had."""

    host: str
    limits: int
    ceiling: int
    lowest: int

    def __str__(self) -> str:
        """One line for a report.

        >>> print(Mark(host="api.openai.com", limits=3, ceiling=64, lowest=8))
        api.openai.com: 3 rate limits, width 64 -> 8
        """
        return f"{visible(self.host)}: {counted(self.limits, 'rate limit')}, width {self.ceiling} -> {self.lowest}"


def throttled(marks: Iterable[Mark]) -> list[Mark]:
    """The hosts that answered with a rate limit, by name; the widths of several processes are added up.

    >>> first, second = Mark(host="a", limits=1, ceiling=8, lowest=4), Mark(host="a", limits=0, ceiling=8, lowest=8)
    >>> print(*throttled([first, second, Mark(host="b", limits=0, ceiling=8, lowest=8)]))
    a: 1 rate limit, width 16 -> 12
    """
    merged: dict[str, Mark] = {}
    for mark in marks:
        old = merged.get(mark.host, Mark(host=mark.host, limits=0, ceiling=0, lowest=0))
        merged[mark.host] = Mark(
            host=mark.host, limits=old.limits + mark.limits, ceiling=old.ceiling + mark.ceiling, lowest=old.lowest + mark.lowest
        )
    return [mark for _, mark in sorted(merged.items()) if mark.limits]


def hold_s(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """How long an answer asks new requests to wait, in seconds from 0 to `MAX_HOLD_S`; None where it is no rate limit.

    429 and 529 are rate limits, and 503 where it says when to come back. Header names are lower case; `now` is the time in seconds since
    1970, used where the answer names a time and has no `date` of its own. What cannot be read counts as not said.

    >>> hold_s(429, {"retry-after": "2"}, now=0), hold_s(529, {}, now=0), hold_s(503, {}, now=0), hold_s(200, {"retry-after": "2"}, now=0)
    (2.0, 0.0, None, None)
    """
    asked = _asked_to_wait(headers, now)
    if status not in RATE_LIMITED and not (status == UNAVAILABLE and asked is not None):
        return None
    seconds = _until_quota(headers, now) if asked is None else asked
    return min(max(seconds, 0.0), MAX_HOLD_S)


def _asked_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    return _until(_http_date(text), headers, now) if seconds is None else seconds


def _until_quota(headers: Mapping[str, str], now: float) -> float:
    """Until the last of the used-up quotas is filled again, 0 where none is known to be used up."""
    waits = [_until_reset(headers.get(reset, ""), headers, now) for remaining, reset in _QUOTAS if headers.get(remaining) == "0"]
    return max(waits, default=0.0)


def _until_reset(text: str, headers: Mapping[str, str], now: float) -> float:
    found = _DURATION.fullmatch(text)
    if text and found is not None:
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True) if part is not None)
    return _until(_iso_date(text), headers, now) or 0.0


def _until(moment: float | None, headers: Mapping[str, str], now: float) -> float | None:
    # Both times from the provider's clock, where it tells its own: this machine's may be wrong.
    there = _http_date(headers.get("date", ""))
    return None if moment is None else moment - (now if there is None else there)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _iso_date(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def host_of(url: str) -> str:
    """The host and port by which a provider is told from others; the port is left out where it is the scheme's own.

    >>> host_of("https://api.openai.com/v1/responses"), host_of("http://127.0.0.1:8000/v1")
    ('api.openai.com', '127.0.0.1:8000')
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    place = f"[{host}]" if ":" in host else host
    return place if parts.port in {None, _DEFAULT_PORTS.get(parts.scheme)} else f"{place}:{parts.port}"


class Paces:
    """The paces of every host that this process asks.

    `ceiling` (>= 1) is the width that each host starts with and never exceeds. `clock` gives seconds that only grow, `wall` those since
    1970; `timers` calls back when a hold is over.
    """

    def __init__(
        self,
        *,
        ceiling: int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        timers: Timers | None = None,
    ) -> None:
        """Know no host yet."""
        self._ceiling = ceiling
        self._clock = clock
        self._wall = wall
        self._timers = timers or _thread_timer
        self._lock = threading.Lock()
        self._paces: dict[str, Pace] = {}

    def of(self, url: str) -> Pace:
        """The pace of the host that a URL names."""
        host = host_of(url)
        pace = self._paces.get(host)
        if pace is None:
            with self._lock:
                pace = self._paces.setdefault(
                    host, Pace(host, ceiling=self._ceiling, clock=self._clock, wall=self._wall, timers=self._timers)
                )
        return pace

    def marks(self) -> list[Mark]:
        """What became of every host so far."""
        with self._lock:
            return [pace.mark() for pace in self._paces.values()]


class Slot:
    """The right of one request to be on its way; to be given back once, by `answered` or `failed`. A second time does nothing."""

    __slots__ = ("_open", "_pace", "epoch", "loop_thread")

    def __init__(self, pace: Pace, epoch: int, loop_thread: int | None) -> None:
        """`epoch` counts the decreases before the request began; `loop_thread` drives the loop of the task that has the slot."""
        self._pace = pace
        self._open = True
        self.epoch = epoch
        self.loop_thread = loop_thread

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer is there; header names are lower case."""
        if self._open:
            self._open = False
            self._pace.answered(self, status, headers)

    def void(self) -> None:
        """Whoever was to have it is gone; giving it back does nothing any more."""
        self._open = False

    def failed(self) -> None:
        """There will be no answer, which says nothing about the provider's limits."""
        if self._open:
            self._open = False
            self._pace.released(self)


class _Ticket:
    """One who waits; `wake` may be called from any thread, and raises RuntimeError where the loop of the one who waits is closed."""

    __slots__ = ("loop_thread", "slot", "wake")

    def __init__(self, wake: Callable[[], object], loop_thread: int | None = None) -> None:
        self.wake = wake
        self.loop_thread = loop_thread
        self.slot: Slot | None = None


class Pace:
    """The requests on their way to one host.

    A rate limit halves the width (that is: the most that were on their way at once since the last decrease, where that is less than the
    width), never below 1. Of the answers to requests that were on their way at that moment, no other one does so again. After a decrease,
    every `width` answers that are no rate limit widen it by 1, up to the ceiling. While the provider asks to wait, no new request begins.
    """

    def __init__(self, host: str, *, ceiling: int, clock: Callable[[], float], wall: Callable[[], float], timers: Timers) -> None:
        """Start at the ceiling."""
        self.host = host
        self._ceiling = self._width = self._lowest = ceiling
        self._clock, self._wall, self._timers = clock, wall, timers
        # Re-entrant, because a garbage collection inside may close a coroutine that waits here.
        self._lock = threading.RLock()
        self._waiting: deque[_Ticket] = deque()
        self._in_flight = self._peak = self._limits = self._epoch = self._good = 0
        self._held_until: float | None = None
        self._moved = clock()
        self._loop_slots: Counter[int | None] = Counter()

    @property
    def width(self) -> int:
        """How many requests may be on their way at once now."""
        return self._width

    def mark(self) -> Mark:
        """What became of this host so far."""
        with self._lock:
            return Mark(host=self.host, limits=self._limits, ceiling=self._ceiling, lowest=self._lowest)

    def take(self) -> Slot:
        """Wait for a slot in this thread.

        In a thread that runs an event loop, or drives one whose tasks ask this host, it does not wait: the tasks that would give a slot
        back could not go on. Where others are to go on first in a way that cannot be seen here, it goes ahead once nobody has given a slot
        back for `STUCK_S`.
        """
        with self._lock:
            if self._is_free() or self._drives_a_loop(threading.get_ident()) or _running_loop() is not None:
                return self._begin()
        awake = threading.Event()
        ticket = _Ticket(awake.set)
        try:
            self._queue(ticket)
            while not awake.wait(STUCK_S):
                self._go_ahead_if_stuck(ticket)
        except BaseException:
            self._withdraw(ticket)
            raise
        return _granted(ticket)

    async def atake(self) -> Slot:
        """Wait for a slot as a task of an asyncio event loop; under any other kind of loop it does not wait."""
        loop, thread = None, threading.get_ident()
        with self._lock:
            if self._is_free() or (loop := _running_loop()) is None:
                return self._begin(thread)
        awake = loop.create_future()
        ticket = _Ticket(lambda: loop.call_soon_threadsafe(_resolve, awake), thread)
        try:
            self._queue(ticket)
            await awake
        except BaseException:
            self._withdraw(ticket)
            raise
        return _granted(ticket)

    def answered(self, slot: Slot, status: int, headers: Mapping[str, str]) -> None:
        """Take a slot back, and learn from the answer."""
        hold = hold_s(status, headers, self._wall()) if status >= 400 else None
        with self._lock:
            if hold is not None:
                self._decrease(slot)
                self._hold(hold)
            elif status < _SERVER_ERROR and slot.epoch == self._epoch:
                self._increase()
            self.released(slot)

    def released(self, slot: Slot) -> None:
        """Take a slot back, and let go whoever waits for it."""
        with self._lock:
            self._end(slot)
            self._moved = self._clock()
            self._grant()

    def _is_free(self) -> bool:
        return self._in_flight < self._width and not self._waiting and self._held_until is None

    def _drives_a_loop(self, thread: int) -> bool:
        return thread in self._loop_slots or any(ticket.loop_thread == thread for ticket in self._waiting)

    def _begin(self, loop_thread: int | None = None) -> Slot:
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        if loop_thread is not None:
            self._loop_slots[loop_thread] += 1
        return Slot(self, self._epoch, loop_thread)

    def _end(self, slot: Slot) -> None:
        self._in_flight -= 1
        if slot.loop_thread is not None:
            self._loop_slots[slot.loop_thread] -= 1
            if not self._loop_slots[slot.loop_thread]:
                del self._loop_slots[slot.loop_thread]

    def _queue(self, ticket: _Ticket) -> None:
        with self._lock:
            self._waiting.append(ticket)
            self._grant()

    def _withdraw(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.slot is not None:
                ticket.slot.failed()
            elif ticket in self._waiting:
                self._waiting.remove(ticket)

    def _go_ahead_if_stuck(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.slot is None and self._held_until is None and self._clock() - self._moved >= STUCK_S:
                self._moved = self._clock()  # the others wait for as long again
                self._waiting.remove(ticket)
                ticket.slot = self._begin()
                ticket.wake()

    def _grant(self) -> None:
        while self._waiting and self._held_until is None and self._in_flight < self._width:
            ticket = self._waiting.popleft()
            ticket.slot = self._begin(ticket.loop_thread)
            try:
                ticket.wake()
            except RuntimeError:  # its event loop is closed, so it will never ask
                ticket.slot.void()
                self._end(ticket.slot)

    def _decrease(self, slot: Slot) -> None:
        self._limits += 1
        if slot.epoch == self._epoch:
            self._width = max(1, min(self._width, self._peak) // 2)
            self._lowest = min(self._lowest, self._width)
            self._epoch += 1
            self._peak, self._good = 0, 0

    def _increase(self) -> None:
        if self._width < self._ceiling:
            self._good += 1
            if self._good >= self._width:
                self._width += 1
                self._good = 0

    def _hold(self, seconds: float) -> None:
        if seconds <= 0:
            return
        until = self._clock() + seconds
        already = self._held_until is not None
        self._held_until = max(until, self._held_until or until)
        if not already:
            self._start_timer(seconds)

    def _start_timer(self, seconds: float) -> None:
        try:
            self._timers(seconds, self._hold_over)
        except RuntimeError:  # no thread can be started: better not to wait than to wait for ever
            self._held_until = None

    def _hold_over(self) -> None:
        with self._lock:
            left = 0.0 if self._held_until is None else self._held_until - self._clock()
            if left > 0:  # it was made longer meanwhile
                self._start_timer(left)
            else:
                self._held_until = None
                self._moved = self._clock()
            self._grant()


def _granted(ticket: _Ticket) -> Slot:
    assert ticket.slot is not None
    return ticket.slot


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _thread_timer(seconds: float, then: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, then)
    timer.daemon = True
    timer.start()
    return timer
