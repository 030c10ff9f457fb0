"""The text of the live line: it fits, says what is known, and never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.report.progress import Pace, Progress, duration, progress_line

ALL = Progress(done=412, total=1000, in_flight=16, failed=3, calls_per_s=31.2, cost_usd=0.42, left_s=19)


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (200, "412/1,000 done, 16 in flight, 3 failed, 31.2 calls/s, $0.4200 so far, 19 s left"),
        (78, "412/1,000 done, 16 in flight, 3 failed, $0.4200 so far, 19 s left"),
        (60, "412/1,000 done, 16 in flight, 3 failed, 19 s left"),
        (40, "412/1,000 done, 3 failed, 19 s left"),
        (30, "412/1,000 done, 3 failed"),
        (20, "412/1,000 done"),
        (7, "412/1,0"),
        (0, ""),
        (-1, ""),
    ],
)
def test_what_matters_least_goes_first(width, text):
    assert progress_line(ALL, width) == text


def test_what_is_not_known_is_not_shown():
    assert progress_line(Progress(done=3, total=0), 80) == "3 done"
    assert progress_line(Progress(done=0, total=5), 80) == "0/5 done"
    assert progress_line(Progress(done=0, total=5, in_flight=0), 80) == "0/5 done, 0 in flight"


@pytest.mark.parametrize(
    ("cost", "unpriced", "text"), [(None, 3, "cost unknown"), (0.5, 3, "at least $0.5000 so far"), (0.0, 0, "$0.00 so far")]
)
def test_a_cost_that_is_not_known_is_said_so(cost, unpriced, text):
    assert (
        progress_line(Progress(done=1, total=5, calls_per_s=1.0, cost_usd=cost, unpriced=unpriced), 80) == f"1/5 done, 1.0 calls/s, {text}"
    )


@given(
    st.builds(Progress, done=st.integers(0), total=st.integers(0), in_flight=st.integers(0), left_s=st.floats(0, 1e9)), st.integers(0, 99)
)
def test_the_line_always_fits(progress, width):
    assert len(progress_line(progress, width)) <= width


@pytest.mark.parametrize(("seconds", "text"), [(0, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")])
def test_durations_are_as_precise_as_they_can_be(seconds, text):
    assert duration(seconds) == text


def test_nothing_is_said_before_there_is_anything_to_measure():
    pace = Pace()
    assert (pace.calls_per_s(), pace.left_s(10)) == (None, None)
    pace.note(5.0, done=0, calls=0)
    pace.note(5.5, done=3, calls=3)
    assert (pace.calls_per_s(), pace.left_s(10)) == (None, None)
    pace.note(8.0, done=3, calls=6)
    assert (pace.calls_per_s(), pace.left_s(10)) == (2.0, 10.0)


def test_nothing_done_tells_nothing_about_the_rest():
    pace = Pace()
    pace.note(0.0, done=0, calls=0)
    pace.note(10.0, done=0, calls=5)
    assert (pace.calls_per_s(), pace.left_s(10)) == (0.5, None)


def test_what_was_long_ago_no_longer_counts():
    pace = Pace(window_s=10.0)
    for second in range(100):
        pace.note(float(second), done=second if second < 50 else 50 + 2 * (second - 50), calls=0)
    assert pace.left_s(20) == 10.0
    assert len(pace._seen) == 11
