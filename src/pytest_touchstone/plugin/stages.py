"""The second stage of the gate under pytest-xdist: further trials that workers make and schedule once the first stage is decided.

A worker tells the controller its tests once, and holds back its last one until it knows which comes next. So the last test of every worker
is one of ours, which runs nothing: it lets go of the tests before it, stays held while the controller decides, and, where it is sent a
second time, has the worker make the further trials behind it. To xdist's schedulers each stage is a run of its own.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_touchstone.plugin.collect import again, case_of, number_of, suite_of
from pytest_touchstone.trial import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_touchstone.trial import TrialRecord

FURTHER = "touchstone-further"
END_ID = "touchstone::end-of-the-first-stage"


def further_trials(items: Iterable[pytest.Item], times: int) -> Iterator[pytest.Item]:
    """Every case of the golden tests among these once more, then each again, `times` rounds, as in the first stage."""
    golden = [item for item in items if case_of(item) is not None]
    for place, number in _rounds([(suite_of(item), number_of(item)) for item in golden], times):
        yield again(golden[place], number)


def further_records(planned: Sequence[TrialRecord], times: int, *, nodeid: Callable[[TrialRecord, int], str]) -> Iterator[TrialRecord]:
    """The same of the planned records of golden tests: the records of the further trials before they run; `nodeid` names each."""
    for place, number in _rounds([(record.suite, record.number) for record in planned], times):
        yield changed(planned[place], nodeid=nodeid(planned[place], number), number=number)


def _rounds(trials: Sequence[tuple[str, int]], times: int) -> Iterator[tuple[int, int]]:
    """Which of these trials (suite and number) is to be made again, and as which number."""
    done: defaultdict[str, int] = defaultdict(int)
    for suite, number in trials:
        done[suite] = max(done[suite], number)
    firsts = [place for place, (_, number) in enumerate(trials) if number == 1]
    for round_ in range(1, times + 1):
        yield from ((place, done[trials[place][0]] + round_) for place in firsts)


class End(pytest.Item):
    """The last test of the first stage: none."""

    def runtest(self) -> None:
        """Nobody runs it."""


class FurtherTrials:
    """In a worker: puts the end behind its tests, and the further trials behind the end where they are wanted."""

    def __init__(self, times: int) -> None:
        """`times` is how often the second stage tries each case (>= 1)."""
        self._times = times
        self._end: pytest.Item | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Put the end behind the tests, before xdist, which was registered earlier and so comes later, tells the controller."""
        self._end = cast("Any", End).from_parent(session, name=END_ID, nodeid=END_ID)
        assert self._end is not None
        session.items.append(self._end)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """At the end: make the further trials, or clean up before what comes next."""
        if item is not self._end:
            return None
        session = item.session
        if nextitem is item:
            session.items.extend(list(further_trials(session.items[:-1], self._times)))
            return True
        tear_down = session._setupstate.teardown_exact  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as the protocol would have
        call: pytest.CallInfo[Any] = cast("Any", pytest.CallInfo).from_call(lambda: tear_down(nextitem), when="teardown")
        if call.excinfo is not None:  # of a fixture that lives as long as the session
            item.ihook.pytest_runtest_logreport(report=item.ihook.pytest_runtest_makereport(item=item, call=call))
        return True


class _StageNode:
    """A worker as the scheduler of one stage sees it: it has the tests of this stage only, numbered from 0.

    A worker that has died is not told anything, and not missed here: xdist is about to learn of it.
    """

    def __init__(self, node: Any, places: Sequence[int], *, end: int | None) -> None:  # noqa: ANN401 - xdist's WorkerController
        """`places` are where the worker has these tests, `end` where it has the end of the stage; None: a shutdown ends it."""
        self._node = node
        self._places = places
        self._numbers = {place: number for number, place in enumerate(places)}
        self._end = end
        self.ended = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the attribute
        return getattr(self._node, name)

    @property
    def shutting_down(self) -> bool:
        return self.ended or bool(self._node.shutting_down)

    def numbers(self, places: Iterable[int]) -> list[int]:
        return [self._numbers[place] for place in places]

    def send_runtest_some(self, numbers: Iterable[int]) -> None:
        self.send([self._places[number] for number in numbers])

    def send_runtest_all(self) -> None:
        self.send(list(self._places))

    def send_steal(self, numbers: Iterable[int]) -> None:
        with contextlib.suppress(OSError):
            self._node.send_steal([self._places[number] for number in numbers])

    def shutdown(self) -> None:
        if self._end is None:
            self._node.shutdown()
        elif not self.shutting_down:
            self.ended = True
            self.send([self._end])

    def send(self, places: list[int]) -> None:
        with contextlib.suppress(OSError):
            self._node.send_runtest_some(places)


class TwoStages:
    """One of xdist's schedulers for the first stage, and a fresh one for the second, where there is one.

    `make` makes the second. `further` is asked once the first stage is done: of the tests that a worker has told, which of those behind
    their end are to be run then (0 is the first), and their node ids; where there are none, the run ends.
    """

    def __init__(self, first: Any, *, make: Callable[[], Any], further: Callable[[Sequence[str]], Mapping[int, str]]) -> None:  # noqa: ANN401 - xdist's Scheduling
        self._make = make
        self._further = further
        self._scheduler = first
        self._nodes: dict[Any, _StageNode | None] = {}
        self._collections: dict[Any, Sequence[str]] = {}
        self._scheduled = False
        self._second = False
        self._over = False

    @property
    def nodes(self) -> list[Any]:
        """The workers."""
        return list(self._nodes)

    @property
    def collection_is_completed(self) -> bool:
        """Whether every worker has told its tests."""
        return bool(self._scheduler.collection_is_completed)

    @property
    def has_pending(self) -> bool:
        """Whether tests of this stage are left."""
        return bool(self._scheduler.has_pending)

    @property
    def tests_finished(self) -> bool:
        """Whether the workers may go. xdist asks after each message of a worker, so this is where the first stage ends."""
        if not self._scheduler.tests_finished:
            return False
        if not self._second and not self._over:
            for node in self._nodes.values():
                if node is not None:
                    node.shutdown()  # as xdist would now: what each holds back is its last test
            if self._scheduled and not self._scheduler.has_pending:
                self._begin_second()
        return self._over or (self._second and bool(self._scheduler.tests_finished))

    def add_node(self, node: Any) -> None:  # noqa: ANN401 - xdist's WorkerController
        """Take a worker in, which has not told its tests."""
        self._nodes[node] = None

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:  # noqa: ANN401 - as above
        """Take over which tests a worker has, without the end and what may come behind it."""
        self._collections[node] = collection
        if self._second:
            self._enter_second(node)
        else:
            self._enter(node, _StageNode(node, range(len(collection)), end=len(collection)), collection)

    def schedule(self) -> None:
        """Have the workers run tests."""
        self._scheduler.schedule()
        if self._scheduled:
            # For a worker that takes the place of one that died: with a single test it would hold that back, and maybe all others wait.
            self._scheduler.schedule()
        self._scheduled = True

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:  # noqa: ANN401 - as above
        """A worker has run a test, or passed the end of its first stage."""
        entered = self._nodes[node]
        if entered is not None and item_index != len(self._collections[node]):
            self._scheduler.mark_test_complete(entered, *entered.numbers([item_index]), duration)

    def mark_test_pending(self, item: str) -> None:
        """Have a test run again."""
        self._scheduler.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:  # noqa: ANN401 - as above
        """A worker has given tests back."""
        entered = self._nodes[node]
        assert entered is not None
        self._scheduler.remove_pending_tests_from_node(entered, entered.numbers(indices))

    def remove_node(self, node: Any) -> str | None:  # noqa: ANN401 - as above
        """Let a worker go; tells which test it died of, if it did."""
        entered = self._nodes.pop(node)
        crashed: str | None = self._scheduler.remove_node(entered) if entered in self._scheduler.nodes else None
        return crashed

    def _begin_second(self) -> None:
        there = [node for node in self._nodes if not node.shutting_down]
        ready = [node for node in there if node in self._collections]
        if there and not ready:
            return  # all have died, and those in their place have yet to tell their tests
        if not any(self._further(self._collections[node]) for node in ready):
            self._over = True
            return
        self._second = True
        self._scheduler = self._make()
        self._scheduler.numnodes = len(ready)
        for node in ready:
            self._enter_second(node)
        self._scheduler.schedule()

    def _enter_second(self, node: Any) -> None:  # noqa: ANN401 - as above
        collection = self._collections[node]
        further = self._further(collection)
        end = len(collection)
        first, second = self._nodes[node], _StageNode(node, [end + 1 + place for place in further], end=None)
        # Once to be held while it is decided, which was sent to most, and once to have the further trials made.
        second.send([end] if first is not None and first.ended else [end, end])
        self._enter(node, second, list(further.values()))

    def _enter(self, node: Any, entered: _StageNode, collection: Sequence[str]) -> None:  # noqa: ANN401 - as above
        self._nodes[node] = entered
        self._scheduler.add_node(entered)
        self._scheduler.add_node_collection(entered, collection)
