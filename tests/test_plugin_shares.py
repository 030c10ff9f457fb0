"""Which tests come next in a process, and how many of them may run at once."""

from __future__ import annotations

import collections
import contextlib
import threading
from types import SimpleNamespace

import pytest

from pytest_touchstone.plugin.shares import Upcoming, UpcomingInWorker, find_worker, share_of


def worker_config(number, count):
    return SimpleNamespace(workerinput={"workerid": f"gw{number}", "workercount": count})


class TestShare:
    def test_one_process_has_it_all(self):
        assert share_of(16, SimpleNamespace()) == 16

    @pytest.mark.parametrize(("concurrency", "shares"), [(16, [4, 4, 4, 4]), (10, [3, 3, 2, 2]), (4, [1, 1, 1, 1]), (2, [1, 1, 1, 1])])
    def test_workers_share_it(self, concurrency, shares):
        assert [share_of(concurrency, worker_config(number, 4)) for number in range(4)] == shares

    def test_a_worker_with_another_name(self):
        assert share_of(4, SimpleNamespace(workerinput={"workerid": "main", "workercount": 2})) == 2


class TestUpcoming:
    def test_in_one_process(self):
        upcoming = Upcoming(SimpleNamespace(items=["a", "b", "c", "d"]))
        assert list(upcoming.after("a", 0)) == ["b", "c", "d"]
        assert list(upcoming.after("b", 1)) == ["d"]
        assert list(upcoming.after("unknown", 0)) == []


class Queue:
    def __init__(self, items):
        self.items = collections.deque(items)
        self.mutex = threading.RLock()

    @contextlib.contextmanager
    def lock(self):
        with self.mutex:
            yield self.items


class Worker:
    """What the window needs of pytest-xdist's WorkerInteractor."""

    def __init__(self, *, current, following, queued):
        self.item_index = current
        self.nextitem_index = following
        self.torun = Queue(queued)
        self.sent = []
        self.stolen = []

    def steal(self, indices):
        self.stolen.append(indices)

    def sendevent(self, name, **kwargs):
        self.sent.append((name, kwargs))


class TestUpcomingInWorker:
    ITEMS = ("a", "b", "c", "d", "e")

    def upcoming(self, worker, started=()):
        return UpcomingInWorker(SimpleNamespace(items=self.ITEMS), worker, started)

    def test_what_was_sent(self):
        upcoming = self.upcoming(Worker(current=0, following=2, queued=[3]))
        assert list(upcoming.after("a", 0)) == ["c", "d"]
        assert list(upcoming.after("a", 1)) == ["d"]

    def test_up_to_the_shutdown(self):
        assert list(self.upcoming(Worker(current=0, following=2, queued=["shutdown", 3])).after("a", 0)) == ["c"]

    def test_nothing_after_another_test_than_the_current(self):
        assert list(self.upcoming(Worker(current=0, following=2, queued=[3])).after("b", 0)) == []

    def test_what_has_been_started_is_not_given_away(self):
        worker = Worker(current=0, following=1, queued=[2, 3, 4])
        self.upcoming(worker, started={"a", "b", "c"})
        worker.steal([2, 4])
        assert worker.stolen == []
        assert worker.sent == [("unscheduled", {"indices": []})]

    def test_what_has_not_is(self):
        worker = Worker(current=0, following=1, queued=[2, 3, 4])
        self.upcoming(worker, started={"a", "b"})
        worker.steal([3, 4])
        assert worker.stolen == [[3, 4]]
        assert worker.sent == []


class WorkerInteractor(Worker):
    pass


class TestFindWorker:
    def find(self, *plugins):
        return find_worker(SimpleNamespace(pluginmanager=SimpleNamespace(get_plugins=lambda: plugins)))

    def test_found_by_its_name(self):
        worker = WorkerInteractor(current=0, following=1, queued=[])
        assert self.find(object(), worker) is worker

    def test_none_elsewhere(self):
        assert self.find(object()) is None

    def test_none_where_it_is_not_as_expected(self):
        worker = WorkerInteractor(current=0, following=1, queued=[])
        del worker.torun
        assert self.find(worker) is None
