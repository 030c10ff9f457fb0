from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.recording import pace as pace_module
from pytest_touchstone.recording.pace import MAX_HOLD_S, Mark, Paces, Slot, hold_s, host_of, throttled

URL = "https://api.example.com/v1/responses"
NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
PATIENCE_S = 30  # nothing waits this long unless it is broken


class Time:
    """A clock that stands still until it is moved, and the timers that run on it."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def start(self, seconds, then):
        self.timers.append((self.now + seconds, then))

    def pass_(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, then in due:
            then()


class Queue(deque):
    """A queue that says when somebody has begun to wait."""

    def __init__(self):
        super().__init__()
        self.joined = threading.Semaphore(0)

    def append(self, item):
        super().append(item)
        self.joined.release()


@pytest.fixture
def time():
    return Time()


def paced(time, ceiling):
    paces = Paces(ceiling=ceiling, clock=lambda: time.now, wall=lambda: NOW, timers=time.start)
    pace = paces.of(URL)
    pace._waiting = Queue()
    return pace


def take_one(pace):
    assert pace._is_free(), "a test in one thread would wait for itself"
    return pace.take()


def take(pace, count):
    return [take_one(pace) for _ in range(count)]


class Waiters:
    """Threads that wait for a slot one after the other, and say in which order they got one."""

    def __init__(self, pace):
        self.pace = pace
        self.order = []
        self.slots = {}
        self.got = threading.Semaphore(0)
        self.threads = []

    def thread(self, name):
        def wait():
            slot = self.pace.take()
            self.order.append(name)
            self.slots[name] = slot
            self.got.release()

        self.threads.append(threading.Thread(target=wait, daemon=True))
        self.threads[-1].start()
        assert self.pace._waiting.joined.acquire(timeout=PATIENCE_S)

    def next(self):
        assert self.got.acquire(timeout=PATIENCE_S)
        return self.order[-1]

    def join(self):
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


class TestHowLongAnAnswerAsksToWait:
    @pytest.mark.parametrize("status", [200, 204, 400, 401, 408, 409, 500, 502, 504])
    def test_other_answers_are_no_rate_limits(self, status):
        assert hold_s(status, {"retry-after": "5", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, NOW) is None

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, 0.0),
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": "0.25"}, 0.25),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": "3600"}, MAX_HOLD_S),
            ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
            ({"retry-after": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0.0),
            ({"retry-after": "Tue, 14 Nov 2023 23:00:20 GMT", "date": "Tue, 14 Nov 2023 23:00:00 GMT"}, 20.0),
            ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
            ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
            ({"retry-after": "soon"}, 0.0),
            ({"retry-after": "-4"}, 0.0),
            ({"retry-after": "nan"}, 0.0),
            ({"retry-after": "inf"}, 0.0),
            ({"retry-after": "Tue, 14 Nov 99999 22:13:50 GMT"}, 0.0),
        ],
    )
    def test_what_retry_after_says(self, headers, seconds):
        assert hold_s(429, headers, NOW) == hold_s(529, headers, NOW) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        ("reset", "seconds"),
        [
            ("12ms", 0.012),
            ("1s", 1.0),
            ("1.5s", 1.5),
            ("6s120ms", 6.12),
            ("1m3s", 60.0),
            ("0m3s", 3.0),
            ("1h", 60.0),
            ("1d", 60.0),
            ("2023-11-14T22:13:40Z", 20.0),
            ("2023-11-14T22:13:40", 20.0),
            ("2023-11-14T22:13:00+00:00", 0.0),
            ("later", 0.0),
            ("", 0.0),
        ],
    )
    @pytest.mark.parametrize(
        ("remaining", "name"),
        [
            ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
        ],
    )
    def test_without_retry_after_the_reset_of_a_quota_that_is_used_up_counts(self, remaining, name, reset, seconds):
        assert hold_s(429, {remaining: "0", name: reset}, NOW) == pytest.approx(seconds)
        assert hold_s(429, {remaining: "3", name: reset}, NOW) == 0.0
        assert hold_s(429, {remaining: "0", name: reset, "retry-after": "2"}, NOW) == 2.0

    def test_of_several_quotas_the_last_one_counts(self):
        both = {f"x-ratelimit-{kind}-{name}": value for name in ("requests", "tokens") for kind, value in (("remaining", "0"),)}
        assert hold_s(429, {**both, "x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "8s"}, NOW) == 8.0

    def test_a_server_that_is_unavailable_is_a_rate_limit_only_when_it_says_when_to_come_back(self):
        assert hold_s(503, {}, NOW) is None
        assert hold_s(503, {"retry-after": "soon"}, NOW) is None
        assert hold_s(503, {"retry-after": "3"}, NOW) == 3.0

    @given(
        status=st.integers(100, 599),
        headers=st.dictionaries(
            st.sampled_from(["retry-after", "retry-after-ms", "date", *(name for pair in pace_module._QUOTAS for name in pair)]),
            st.text(alphabet=st.characters(max_codepoint=255))
            | st.sampled_from(["0", "1e400", "9" * 400, "0001-01-01T00:00:00", "1d1h1m1s1ms"]),
        ),
    )
    def test_no_header_can_break_it_or_hold_requests_for_longer_than_the_limit(self, status, headers):
        seconds = hold_s(status, headers, NOW)
        assert seconds is None or 0.0 <= seconds <= MAX_HOLD_S


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.openai.com:443/v1", "api.openai.com"),
        ("https://API.openai.com./v1", "api.openai.com"),
        ("http://key:secret@proxy.example:8080/v1", "proxy.example:8080"),
        ("http://localhost:80/", "localhost"),
        ("http://127.0.0.1:4000/", "127.0.0.1:4000"),
        ("http://[::1]:4000/", "[::1]:4000"),
    ],
)
def test_a_host_is_its_name_and_port(url, host):
    assert host_of(url) == host


class TestWidth:
    def test_a_rate_limit_halves_it_and_only_once_for_all_that_was_on_the_way(self, time):
        pace = paced(time, 8)
        slots = take(pace, 8)
        slots[0].answered(429, {})
        assert pace.width == 4
        for slot in slots[1:5]:
            slot.answered(529, {})
        assert pace.width == 4
        for slot in slots[5:]:
            slot.failed()
        later, *_ = take(pace, 4)
        later.answered(429, {})
        assert pace.mark() == Mark(host="api.example.com", limits=6, ceiling=8, lowest=2)

    def test_it_never_falls_below_one(self, time):
        pace = paced(time, 3)
        for _ in range(5):
            pace.take().answered(429, {})
        assert pace.width == 1

    def test_it_is_what_was_on_the_way_that_is_halved_where_that_was_less(self, time):
        pace = paced(time, 64)
        slots = take(pace, 6)
        for slot in slots[1:]:
            slot.failed()
        slots[0].answered(429, {})
        assert pace.width == 3

    def test_it_grows_by_one_for_every_width_of_answers_up_to_the_ceiling(self, time):
        pace = paced(time, 4)
        slots = take(pace, 4)
        slots[0].answered(429, {})
        for slot in slots[1:]:
            slot.answered(200, {})  # begun before the decrease, so they say nothing about the new width
        assert pace.width == 2
        widths = []
        for _ in range(8):
            take_one(pace).answered(200, {})
            widths.append(pace.width)
        assert widths == [2, 3, 3, 3, 4, 4, 4, 4]
        assert pace.mark() == Mark(host="api.example.com", limits=1, ceiling=4, lowest=2)

    @pytest.mark.parametrize("status", [500, 502, 503])
    def test_server_errors_and_broken_connections_neither_widen_nor_narrow_it(self, time, status):
        pace = paced(time, 4)
        first, *others = take(pace, 4)
        first.answered(429, {})
        for slot in others:
            slot.failed()
        for _ in range(8):
            pace.take().answered(status, {})
            pace.take().failed()
        assert (pace.width, pace.mark().limits) == (2, 1)

    def test_a_slot_is_given_back_once(self, time):
        pace = paced(time, 2)
        slot = pace.take()
        slot.answered(200, {})
        slot.answered(429, {})
        slot.failed()
        assert (pace._in_flight, pace.width) == (0, 2)


class TestWaiting:
    def test_threads_and_tasks_are_let_go_in_the_order_in_which_they_came(self, time):
        pace = paced(time, 1)
        first = pace.take()
        waiters = Waiters(pace)

        async def task(name):
            waiters.slots[name] = await pace.atake()
            waiters.order.append(name)
            waiters.got.release()

        async def main():
            tasks = []
            for number in range(6):
                if number % 2:
                    waiters.thread(f"thread {number}")
                else:
                    tasks.append(asyncio.create_task(task(f"task {number}")))
                    await asyncio.sleep(0)
                    assert pace._waiting.joined.acquire(timeout=PATIENCE_S)
            slot = first
            for _ in range(6):
                slot.answered(200, {})
                while not waiters.got.acquire(blocking=False):  # noqa: ASYNC110 - threads say so, too
                    await asyncio.sleep(0)
                slot = waiters.slots[waiters.order[-1]]
            await asyncio.gather(*tasks)

        asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
        waiters.join()
        assert waiters.order == ["task 0", "thread 1", "task 2", "thread 3", "task 4", "thread 5"]

    def test_nobody_passes_one_who_waits(self, time):
        pace = paced(time, 1)
        first = pace.take()
        waiters = Waiters(pace)
        waiters.thread("a")
        with pace._lock:
            assert not pace._is_free()
        waiters.thread("b")
        first.failed()
        assert waiters.next() == "a"
        waiters.slots["a"].failed()
        assert waiters.next() == "b"
        waiters.join()

    def test_never_more_than_the_width_are_on_their_way_and_everybody_gets_through(self, time):
        pace = paced(time, 3)
        lock = threading.Lock()
        flying, most, done = 0, 0, 0

        def leave():
            nonlocal flying, most
            with lock:
                flying += 1
                most = max(most, flying)

        def arrive(slot):
            nonlocal flying, done
            with lock:
                flying -= 1
                done += 1
            slot.answered(429 if done % 7 == 0 else 200, {})

        def threads():
            for _ in range(50):
                slot = pace.take()
                leave()
                arrive(slot)

        async def task():
            for _ in range(50):
                slot = await pace.atake()
                leave()
                await asyncio.sleep(0)
                arrive(slot)

        async def main():
            await asyncio.gather(*(task() for _ in range(8)))

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(threads) for _ in range(4)]
            asyncio.run(main())
            for future in running:
                future.result()
        assert (done, pace._in_flight, len(pace._waiting)) == (12 * 50, 0, 0)
        assert 1 <= most <= 3

    def test_a_loop_goes_on_while_its_tasks_wait(self, time):
        pace = paced(time, 1)
        slot = pace.take()

        async def main():
            waiting = asyncio.create_task(pace.atake())
            turns = 0
            for _ in range(10):
                await asyncio.sleep(0)
                turns += 1
            assert not waiting.done()
            slot.failed()
            (await waiting).failed()
            return turns

        assert asyncio.run(main()) == 10

    def test_a_cancelled_task_leaves_the_queue(self, time):
        pace = paced(time, 1)
        slot = pace.take()

        async def main():
            cancelled = asyncio.create_task(pace.atake())
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled

        asyncio.run(main())
        assert len(pace._waiting) == 0
        slot.failed()
        assert pace._in_flight == 0

    def test_a_task_that_is_cancelled_just_when_its_turn_came_gives_it_to_the_next(self, time):
        pace = paced(time, 1)
        slot = pace.take()

        async def main():
            cancelled = asyncio.create_task(pace.atake())
            following = asyncio.create_task(pace.atake())
            await asyncio.sleep(0)
            slot.failed()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            (await following).failed()

        asyncio.run(main())
        assert pace._in_flight == 0

    def test_a_task_whose_loop_is_closed_gets_no_turn(self, time):
        pace = paced(time, 1)
        slot = pace.take()
        loop = asyncio.new_event_loop()
        waiting = pace.atake()
        task = loop.create_task(waiting)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        slot.failed()
        assert pace._in_flight == 0
        task._log_destroy_pending = False
        del task
        waiting.close()
        gc.collect()
        assert isinstance(pace.take(), Slot)

    def test_an_interrupted_thread_leaves_the_queue(self, time, monkeypatch):
        class Interrupted(threading.Event):
            def wait(self, timeout=None):
                raise KeyboardInterrupt

        pace = paced(time, 1)
        slot = pace.take()
        with monkeypatch.context() as patched:
            patched.setattr(pace_module.threading, "Event", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                pace.take()
        slot.failed()
        assert (pace._in_flight, len(pace._waiting)) == (0, 0)

    def test_withdrawing_what_is_not_in_the_queue_does_nothing(self, time):
        pace = paced(time, 1)
        pace._withdraw(pace_module._Ticket(lambda: None))
        assert (pace._in_flight, len(pace._waiting)) == (0, 0)

    def test_a_sync_request_in_a_thread_that_runs_a_loop_does_not_wait(self, time):
        pace = paced(time, 1)
        pace.take()

        async def main():
            return pace.take()

        slot = asyncio.run(main())
        assert pace._in_flight == 2
        slot.failed()
        assert pace._in_flight == 1

    def test_neither_does_one_in_a_thread_that_drives_a_loop_whose_tasks_could_not_go_on(self, time):
        pace = paced(time, 1)
        loop = asyncio.new_event_loop()
        slot = loop.run_until_complete(pace.atake())
        pace.take().failed()  # as a fixture does that is set up while async bodies are under way
        waiting = loop.create_task(pace.atake())
        loop.run_until_complete(asyncio.sleep(0))
        slot.failed()
        pace.take().failed()
        loop.run_until_complete(waiting).failed()
        loop.close()
        assert (pace._in_flight, pace._loop_slots) == (0, {})

    def test_a_thread_that_once_drove_a_loop_waits_like_any_other(self, time):
        pace = paced(time, 1)
        asyncio.run(pace.atake()).failed()
        assert not pace._drives_a_loop(threading.get_ident())

    def test_one_whose_tasks_are_still_in_the_queue_does_not_wait(self, time):
        pace = paced(time, 1)
        slot = pace.take()
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(pace.atake())
        loop.run_until_complete(asyncio.sleep(0))
        pace.take().failed()
        slot.failed()
        loop.run_until_complete(waiting).failed()
        loop.close()
        assert pace._in_flight == 0

    @pytest.mark.parametrize("waits", [1, 2, 3])
    def test_a_thread_goes_ahead_when_nothing_has_moved_for_long(self, time, monkeypatch, waits):
        class Event(threading.Event):
            count = 0

            def wait(self, timeout=None):
                if self.is_set():
                    return True
                Event.count += 1
                time.pass_(timeout)
                if Event.count < waits:
                    pace._moved = time.now
                return False

        pace = paced(time, 1)
        slot = pace.take()
        with monkeypatch.context() as patched:
            patched.setattr(pace_module.threading, "Event", Event)
            ahead = pace.take()
        assert (Event.count, pace._in_flight, len(pace._waiting)) == (waits, 2, 0)
        slot.failed()
        ahead.failed()
        assert pace._in_flight == 0

    def test_a_thread_does_not_go_ahead_while_the_provider_asks_to_wait(self, time, monkeypatch):
        class Event(threading.Event):
            def wait(self, timeout=None):
                if not self.is_set():
                    time.pass_(timeout)
                    return False
                return True

        pace = paced(time, 1)
        pace.take().answered(429, {"retry-after": "59"})
        with monkeypatch.context() as patched:
            patched.setattr(pace_module.threading, "Event", Event)
            slot = pace.take()
        assert (time.now, pace._in_flight) == (160.0, 1)
        slot.failed()

    def test_under_a_loop_that_is_not_asyncios_it_does_not_wait(self, time):
        pace = paced(time, 1)
        pace.take()
        other_loop = pace.atake()
        with pytest.raises(StopIteration) as stopped:
            other_loop.send(None)
        assert isinstance(stopped.value.value, Slot)
        assert pace._in_flight == 2


class TestHold:
    def test_new_requests_wait_until_the_provider_wants_them_again(self, time):
        pace = paced(time, 4)
        first, second = take(pace, 2)
        first.answered(429, {"retry-after": "5"})
        second.answered(200, {})
        waiters = Waiters(pace)
        waiters.thread("a")
        time.pass_(4.9)
        assert waiters.order == []
        time.pass_(0.1)
        assert waiters.next() == "a"
        waiters.join()
        assert not time.timers

    def test_a_later_answer_may_make_it_longer_but_not_shorter(self, time):
        pace = paced(time, 4)
        first, second, third = take(pace, 3)
        first.answered(429, {"retry-after": "2"})
        second.answered(429, {"retry-after": "6"})
        third.answered(429, {"retry-after": "1"})
        waiters = Waiters(pace)
        waiters.thread("a")
        time.pass_(2)
        assert waiters.order == []
        assert len(time.timers) == 1
        time.pass_(4)
        assert waiters.next() == "a"
        waiters.join()

    def test_after_it_only_so_many_begin_as_the_width_allows(self, time):
        pace = paced(time, 4)
        slots = take(pace, 4)
        for slot in slots:
            slot.answered(429, {"retry-after": "1"})
        waiters = Waiters(pace)
        for name in "abc":
            waiters.thread(name)
        time.pass_(1)
        waiters.next()
        waiters.next()
        assert sorted(waiters.order) == ["a", "b"]
        waiters.slots["a"].answered(200, {})
        assert waiters.next() == "c"
        waiters.join()

    def test_no_hold_without_a_time(self, time):
        pace = paced(time, 4)
        pace.take().answered(429, {"retry-after": "0"})
        assert not time.timers
        assert pace._is_free()

    def test_where_no_timer_can_be_started_nobody_is_held(self, time):
        def refuse(_seconds, _then):
            message = "can't start new thread"
            raise RuntimeError(message)

        pace = Paces(ceiling=2, clock=lambda: time.now, wall=lambda: NOW, timers=refuse).of(URL)
        pace.take().answered(429, {"retry-after": "9"})
        assert pace._is_free()

    def test_a_timer_of_a_hold_that_is_gone_does_no_harm(self, time):
        pace = paced(time, 2)
        pace._hold_over()
        assert pace._is_free()

    def test_by_default_a_daemon_thread_ends_it(self):
        over = threading.Event()
        timer = pace_module._thread_timer(0, over.set)
        assert timer.daemon
        assert over.wait(PATIENCE_S)
        timer.join(PATIENCE_S)


class TestReport:
    def test_each_host_has_a_pace_of_its_own(self, time):
        paces = Paces(ceiling=2, clock=lambda: time.now, wall=lambda: NOW, timers=time.start)
        assert paces.of("https://a.example/v1") is paces.of("https://a.example:443/v2?q=1")
        paces.of("https://a.example/v1").take().answered(429, {})
        paces.of("http://127.0.0.1:1/").take().answered(200, {})
        assert paces.of("http://127.0.0.1:2/").width == 2
        assert [str(mark) for mark in throttled(paces.marks())] == ["a.example: 1 rate limit, width 2 -> 1"]

    def test_the_default_clocks_are_those_of_this_machine(self):
        pace = Paces(ceiling=1).of(URL)
        pace.take().answered(200, {})
        assert pace.mark() == Mark(host="api.example.com", limits=0, ceiling=1, lowest=1)

    def test_a_host_name_cannot_act_on_a_terminal(self):
        assert str(Mark(host="a\x1b[31m", limits=1200, ceiling=2, lowest=1)) == "a\\x1b[31m: 1,200 rate limits, width 2 -> 1"

    def test_processes_are_added_up(self):
        marks = [Mark(host="b", limits=0, ceiling=4, lowest=4), Mark(host="a", limits=2, ceiling=4, lowest=1)]
        assert throttled([*marks, *marks]) == [Mark(host="a", limits=4, ceiling=8, lowest=2)]
