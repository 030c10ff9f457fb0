"""How far a run is, as one line of text: numbers in, text out; who draws it, and when, is not known here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_touchstone.report.terminal import dollars

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_S = 30.0
MIN_SPAN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of a run.

    `done` of `total` tests (0: not known yet) have ended, `failed` of them without passing; `in_flight` run now, None where that is
    not known. `calls_per_s` and `left_s` (seconds) are None as long as nothing can be said. `cost_usd` is what has been paid so far,
    in US dollars, None where no price is known; `unpriced` calls are not in it.
    """

    done: int
    total: int
    in_flight: int | None = None
    failed: int = 0
    calls_per_s: float | None = None
    cost_usd: float | None = 0.0
    unpriced: int = 0
    left_s: float | None = None


def progress_line(progress: Progress, width: int) -> str:
    """The line, at most `width` characters long; what matters least goes first where there is no room.

    >>> progress_line(Progress(done=412, total=1000, in_flight=16, failed=3, calls_per_s=31.2, cost_usd=0.42, left_s=19), 80)
    '412/1,000 done, 16 in flight, 3 failed, 31.2 calls/s, $0.4200 so far, 19 s left'
    >>> progress_line(Progress(done=412, total=1000, in_flight=16, failed=3, calls_per_s=31.2, cost_usd=0.42, left_s=19), 50)
    '412/1,000 done, 16 in flight, 3 failed, 19 s left'
    """
    parts = dict.fromkeys(("done", "in flight", "failed", "calls", "cost", "left"), "")
    parts["done"] = f"{progress.done:,}/{progress.total:,} done" if progress.total else f"{progress.done:,} done"
    if progress.in_flight is not None:
        parts["in flight"] = f"{progress.in_flight:,} in flight"
    if progress.failed:
        parts["failed"] = f"{progress.failed:,} failed"
    if progress.calls_per_s is not None:
        parts["calls"] = f"{progress.calls_per_s:,.1f} calls/s"
        parts["cost"] = _cost_so_far(progress)
    if progress.left_s is not None:
        parts["left"] = f"{duration(progress.left_s)} left"
    for spare in ("calls", "cost", "in flight", "left", "failed"):
        if len(_joined(parts.values())) <= width:
            break
        parts[spare] = ""
    return _joined(parts.values())[: max(width, 0)]


def duration(seconds: float) -> str:
    """A time to wait, to the second below a minute, and coarser above.

    >>> duration(0.4), duration(59.6), duration(200), duration(7_500)
    ('1 s', '1 min 0 s', '3 min 20 s', '2 h 5 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)


def _cost_so_far(progress: Progress) -> str:
    if progress.cost_usd is None:
        return "cost unknown"
    return f"{'at least ' if progress.unpriced else ''}{dollars(progress.cost_usd)} so far"


class Pace:
    """How fast things happen, over the last half minute.

    The caller tells the time, in seconds of any clock that does not go back.

    >>> pace = Pace()
    >>> pace.note(100.0, done=0, calls=0)
    >>> pace.note(110.0, done=20, calls=50)
    >>> pace.calls_per_s(), pace.left_s(100)
    (5.0, 50.0)
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """`window_s` is how many seconds back the pace is measured."""
        self._window_s = window_s
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, now: float, *, done: int, calls: int) -> None:
        """Take down how many tests are done and how many calls were made at a time."""
        self._seen.append((now, done, calls))
        # The last one from before the window stays, so that the pace is always measured over all of it.
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._window_s:
            self._seen.popleft()

    def calls_per_s(self) -> float | None:
        """Calls a second; None before there is anything to measure."""
        span_s, _, calls = self._spanned()
        return calls / span_s if span_s >= MIN_SPAN_S else None

    def left_s(self, remaining: int) -> float | None:
        """The seconds that `remaining` tests take at this pace; None where nothing has been done yet."""
        span_s, done, _ = self._spanned()
        return remaining * span_s / done if done and span_s >= MIN_SPAN_S else None

    def _spanned(self) -> tuple[float, int, int]:
        if not self._seen:
            return 0.0, 0, 0
        first, last = self._seen[0], self._seen[-1]
        return last[0] - first[0], last[1] - first[1], last[2] - first[2]
