from __future__ import annotations

import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_touchstone.recording.threads import ThreadCarrier

who = contextvars.ContextVar("who", default="nobody")
other = contextvars.ContextVar("other", default="untouched")


@contextlib.contextmanager
def being(name):
    token = who.set(name)
    try:
        yield
    finally:
        who.reset(token)


def capture():
    name = who.get()
    return None if name == "nobody" else lambda: being(name)


@pytest.fixture
def carrier():
    carrier = ThreadCarrier(capture)
    carrier.start()
    yield carrier
    carrier.stop()


def in_thread(make=threading.Thread):
    seen = []
    thread = make(target=lambda: seen.append((who.get(), other.get())))
    thread.start()
    thread.join()
    return seen[0]


def test_threads_carry_what_was_captured_and_nothing_else(carrier):
    other.set("changed")
    with being("a"):
        assert in_thread() == ("a", "untouched")
    assert in_thread() == ("nobody", "untouched")


def test_a_timer_is_a_thread(carrier):
    seen = []
    with being("a"):
        timer = threading.Timer(0, lambda: seen.append(who.get()))
        timer.start()
    timer.join()
    assert seen == ["a"]


def test_a_thread_keeps_its_own_run(carrier):
    seen = []
    thread = threading.Thread()
    thread.run = lambda: seen.append(who.get())
    with being("a"):
        thread.start()
    thread.join()
    assert seen == ["nobody"]


def test_errors_in_the_thread_come_out_of_the_future(carrier):
    def fail(*, text):
        raise ValueError(text)

    with being("a"), ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="boom"):
        pool.submit(fail, text="boom").result()


def test_a_pool_serves_each_caller_as_itself(carrier):
    with ThreadPoolExecutor(1) as pool:
        with being("a"):
            assert pool.submit(who.get).result() == "a"
        assert pool.submit(who.get).result() == "nobody"
        with being("b"):
            assert list(pool.map(lambda _: who.get(), range(2))) == ["b", "b"]


def test_threads_of_a_task_carry_its_owner(carrier):
    with being("a"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_thread).result() == ("a", "untouched")


def test_stop_restores_and_a_patch_over_ours_stays_harmless():
    originals = threading.Thread.start, ThreadPoolExecutor.submit
    carrier = ThreadCarrier(capture)
    carrier.stop()
    carrier.start()
    ours = threading.Thread.start, ThreadPoolExecutor.submit

    def start(thread):
        ours[0](thread)

    def submit(pool, function, *args):
        return ours[1](pool, function, *args)

    threading.Thread.start, ThreadPoolExecutor.submit = start, submit
    try:
        carrier.stop()
        assert (threading.Thread.start, ThreadPoolExecutor.submit) == (start, submit)
        with being("a"):
            assert in_thread()[0] == "nobody"
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(who.get).result() == "nobody"
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = originals
