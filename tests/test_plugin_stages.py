"""Two stages under the schedulers of pytest-xdist, with workers that hold their last test back as xdist's do."""

from __future__ import annotations

import collections
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdist.scheduler import (
    EachScheduling,
    LoadFileScheduling,
    LoadGroupScheduling,
    LoadScheduling,
    LoadScopeScheduling,
    WorkStealingScheduling,
)

from pytest_touchstone.plugin.shares import make_scheduler
from pytest_touchstone.plugin.stages import TwoStages, further_records
from pytest_touchstone.trial import TrialRecord


def window_scheduling(config):
    return make_scheduler(config, None, 8)


SCHEDULERS = [
    window_scheduling,
    LoadScheduling,
    LoadScopeScheduling,
    LoadFileScheduling,
    LoadGroupScheduling,
    WorkStealingScheduling,
    EachScheduling,
]
every_scheduler = pytest.mark.parametrize("scheduling", SCHEDULERS, ids=lambda each: getattr(each, "__name__", "window"))


def in_some_order(test):
    return settings(max_examples=15)(given(seed=st.integers(0, 10_000))(test))


class Node:
    """A worker: runs a test once it knows the next."""

    def __init__(self, number, tests):
        self.gateway = SimpleNamespace(id=f"gw{number}", spec="popen")
        self.tests = [*tests, "end"]
        self.queue = collections.deque()
        self.held = None
        self.ran = []
        self.made = 0
        self.shutting_down = self.dead = False

    def send_runtest_some(self, indices):
        if self.dead:
            msg = "cannot send (already closed?)"
            raise OSError(msg)
        self.queue.extend(indices)

    def send_steal(self, indices):
        self.queue.append(("steal", list(indices)))

    def shutdown(self):
        if not self.shutting_down and not self.dead:
            self.queue.append("shutdown")
        self.shutting_down = True


class Session:
    """What xdist's DSession does with a scheduler."""

    def __init__(self, scheduling, *, workers, tests, further):
        option = SimpleNamespace(loadscopereorder=True)
        self.config = SimpleNamespace(getvalue=lambda name: ["popen"] * workers, getoption=lambda name: None, option=option)
        self.tests, self.further = list(tests), further
        self.asked = []
        self.scheduler = TwoStages(scheduling(self.config), make=lambda: scheduling(self.config), further=self.wanted)
        self.shutting_down = False
        self.crashed = []
        self.nodes = [Node(number, tests) for number in range(workers)]
        for node in self.nodes:
            self.scheduler.add_node(node)
        for node in self.nodes:
            self.collected(node)

    def wanted(self, collection):
        self.asked.append(len([test for node in self.nodes for test in node.ran if test in self.tests]))
        return self.further

    def collected(self, node):
        self.scheduler.add_node_collection(node, list(self.tests))
        if self.scheduler.collection_is_completed:
            self.scheduler.schedule()
        self.after()

    def after(self):
        if self.scheduler.tests_finished:
            self.shut_down()

    def shut_down(self):
        if not self.shutting_down:
            self.shutting_down = True
            for node in self.scheduler.nodes:
                node.shutdown()

    def step(self, node):
        """Have the worker do one thing that it was told."""
        for place, command in enumerate(node.queue):
            if isinstance(command, tuple):  # a worker gives tests back while it runs another
                del node.queue[place]
                stolen = [index for index in command[1] if index in node.queue]
                stolen = stolen if len(stolen) == len(command[1]) else []
                for index in stolen:
                    node.queue.remove(index)
                self.scheduler.remove_pending_tests_from_node(node, stolen)
                self.after()
                return
        following = node.queue.popleft()
        index, node.held = node.held, None if following == "shutdown" else following
        if index is not None:
            end = len(self.tests)
            if index == end and following == end:
                node.made += 1
                node.tests += [self.further.get(place) for place in range(8)]
            if node.held is not None:
                assert node.tests[node.held]
            node.ran.append(node.tests[index])
            self.scheduler.mark_test_complete(node, index, 0.0)
            self.after()
        if following == "shutdown":
            self.nodes.remove(node)
            self.scheduler.remove_node(node)

    def crash(self, node):
        node.dead = node.shutting_down = True
        self.nodes.remove(node)
        crashed = self.scheduler.remove_node(node)
        if crashed is not None:
            self.crashed.append(crashed)
        self.shutting_down = False
        self.after()

    def replace(self, number):
        if self.shutting_down:
            return
        node = Node(number, self.tests)
        self.nodes.append(node)
        self.scheduler.add_node(node)
        self.after()
        self.collected(node)

    def run(self, choose=lambda nodes: nodes[0], each_step=lambda: None):
        """Run to the end, in whatever order; fails where workers wait and nobody will ever tell them more."""
        everybody = dict.fromkeys(self.nodes)
        while self.nodes:
            able = [node for node in self.nodes if node.queue]
            assert able, "workers wait for ever"
            self.step(choose(able))
            each_step()
            everybody |= dict.fromkeys(self.nodes)
        return [test for node in everybody for test in node.ran if test != "end"]


def some(count, module="a"):
    return [f"test_{module}.py::test[c{number}]" for number in range(count)]


FURTHER = {place: f"test_b.py::test[c{place}@2]" for place in range(3, 7)}


@every_scheduler
@pytest.mark.parametrize("count", [1, 2, 20])
@in_some_order
def test_the_second_stage_begins_when_the_first_is_done_and_nothing_is_lost(scheduling, count, seed):
    session = Session(scheduling, workers=3, tests=[*some(count), *some(count, "b")], further=FURTHER)
    times = 3 if scheduling is EachScheduling else 1
    workers = len(session.nodes)
    ran = session.run(random.Random(seed).choice)
    assert sorted(ran) == sorted([*session.tests, *FURTHER.values()] * times)
    assert session.asked == [2 * count * times] * (1 + workers)


@every_scheduler
def test_without_a_second_stage_the_workers_go(scheduling):
    session = Session(scheduling, workers=2, tests=some(5), further={})
    assert set(session.run()) == set(session.tests)
    assert session.shutting_down


@every_scheduler
def test_a_run_without_tests_ends(scheduling):
    session = Session(scheduling, workers=2, tests=[], further={})
    assert session.run() == []


@pytest.mark.parametrize("scheduling", [each for each in SCHEDULERS if each not in {LoadGroupScheduling, EachScheduling}])
@in_some_order
def test_when_a_worker_dies_what_it_had_left_is_run_by_others(scheduling, seed):
    """With `loadgroup` and `each`, xdist's own schedulers may hang or fail then, in a run of one stage too."""
    chance = random.Random(seed)
    session = Session(scheduling, workers=2, tests=some(8), further=FURTHER)
    deaths = chance.sample(range(20), 3)
    steps = iter(range(1000))

    def die():
        if next(steps) in deaths and session.nodes and not session.scheduler.tests_finished:
            session.crash(chance.choice(session.nodes))
            session.replace(10 + len(session.crashed))

    ran = session.run(chance.choice, die)
    assert {*ran, *session.crashed} == {*session.tests, *FURTHER.values()}


@every_scheduler
@in_some_order
def test_a_run_that_is_stopped_ends_and_begins_no_second_stage(scheduling, seed):
    chance = random.Random(seed)
    session = Session(scheduling, workers=2, tests=some(8), further=FURTHER)
    stop = chance.randint(0, 6)
    steps = iter(range(1000))

    def maybe_stop():
        if next(steps) == stop:
            session.shut_down()

    ran = session.run(chance.choice, maybe_stop)
    assert set(ran) <= set(session.tests)


def test_a_worker_that_died_between_the_stages_is_told_nothing_more():
    session = Session(LoadScheduling, workers=2, tests=some(4), further=FURTHER)
    lost = session.nodes[0]
    while lost.tests[lost.held or 0] != "end":
        session.step(lost)
    lost.dead = True
    while not session.asked:
        session.step(session.nodes[1])
    session.crash(lost)
    session.replace(2)
    ran = session.run()
    assert {*ran, *lost.ran, *session.crashed} - {"end"} == {*session.tests, *FURTHER.values()}


def test_a_test_that_killed_its_worker_may_be_run_again():
    session = Session(LoadScheduling, workers=1, tests=some(1), further={})
    node = session.nodes[0]
    session.step(node)
    session.nodes.remove(node)
    session.scheduler.mark_test_pending(session.scheduler.remove_node(node))
    session.after()
    session.replace(1)
    assert session.run() == session.tests


def test_each_case_is_made_again_as_often_behind_its_last_trial():
    def record(suite, case_id, number):
        nodeid = f"{suite}[{case_id}]" if number == 1 else f"{suite}[{case_id}@{number}]"
        empty = {"source": "", "content_hash": "", "split": "train", "tags": (), "must_pass": False}
        return TrialRecord(nodeid=nodeid, suite=suite, case_id=case_id, number=number, outcome="not_run", **empty)

    planned = [record("a", "x", 1), record("a", "y", 1), record("a", "x", 2), record("a", "y", 2), record("b", "z", 1)]
    more = further_records(planned, 2, nodeid=lambda trial, number: f"{trial.suite}[{trial.case_id}@{number}]")
    assert [trial.nodeid for trial in more] == ["a[x@3]", "a[y@3]", "b[z@2]", "a[x@4]", "a[y@4]", "b[z@3]"]
