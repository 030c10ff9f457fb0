"""The window: runs the bodies of many golden tests side by side in one process, with ordinary pytest semantics.

While pytest is about to run one test, the next ones are set up ahead, parked (see `parking`), and their bodies started (see `bodies`).
When a test's turn comes, its body has ended: pytest then runs its three phases as ever, in its own order, and finds what happened.
So every hook, report and option of pytest and of other plugins sees tests that run one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
from _pytest.runner import call_and_report  # pyright: ignore[reportUnknownVariableType] # the phases of a test have no public name

from pytest_touchstone.errors import SettingsError
from pytest_touchstone.plugin.alone import conditions, is_process_global, owner_of, why_alone, why_one_by_one
from pytest_touchstone.plugin.bodies import Bodies, Body, call_of, current_body, is_async, time_limit
from pytest_touchstone.plugin.collect import case_of, suite_of
from pytest_touchstone.plugin.parking import Parking, what_is_unknown
from pytest_touchstone.plugin.progress import PROGRESS
from pytest_touchstone.plugin.shares import Upcoming, UpcomingInWorker, as_current, find_worker
from pytest_touchstone.plugin.streams import Router
from pytest_touchstone.plugin.surroundings import (
    explained_asserts,
    leave_quickly,
    seconds_of_pytest_timeout,
    switch_interval,
    timed_by_pytest_timeout,
    warning_filters,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
    from contextlib import AbstractContextManager

    from pytest_touchstone.plugin.streams import Streams

WINDOW = "touchstone-window"
# How many tests may be set up and not yet reported, for each that may run: a slow one at the head must not idle the others.
AHEAD = 32
# How long the main thread waits before it looks again whether something is overdue, in seconds.
TICK_S = 0.5
LONG_SWITCH_INTERVAL_S = 0.02


@dataclass(kw_only=True)
class Started:
    """A test that has been set up ahead of its turn: how that went, and its body, if it came to one."""

    item: pytest.Function
    setup_error: BaseException | None = None
    setup_began: float = 0.0
    setup_s: float = 0.0
    began: float = 0.0
    body: Body | None = None
    taken: bool = False
    given: bool = False
    hooks: dict[Any, _Turn] = field(default_factory=dict[Any, "_Turn"])

    @property
    def done(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.body is None or self.body.done

    @functools.cached_property
    def told(self) -> dict[str, tuple[float, float]]:
        """When each phase began, in seconds since the epoch, and how many seconds it took; asked for once it is done."""
        setup = {"setup": (self.setup_began, self.setup_s)}
        return setup if self.body is None else {**setup, "call": (self.began, self.body.duration_s)}


class Window:
    """Runs golden bodies beside each other where it may, on an event loop where they are async, and alone where it must."""

    def __init__(
        self,
        config: pytest.Config,
        *,
        width: int,
        timeout_s: float | None,
        alone_fixtures: Sequence[str] = (),
        owned: Callable[[pytest.Item], AbstractContextManager[None]],
        without_trial: Callable[[pytest.Item], AbstractContextManager[None]],
        left_out: Callable[[pytest.Item], str | None],
        after: Callable[[pytest.Item, BaseException | None], None] | None = None,
        after_async: Callable[[pytest.Item, BaseException | None], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Start nothing yet.

        `width` is how many bodies run at once in this process, `timeout_s` what one of them may take; `owned` makes the context that
        attributes model calls to a test, `without_trial` one in which the test has no trial to report; `left_out` says why a golden test
        is not to start any more, None while it may. `after` and `after_async` are told of each body that ended beside others, as `Body`
        says.
        """
        self.config = config
        self.width = width
        self.timeout_s = timeout_s
        self.alone_fixtures = alone_fixtures
        self.one_by_one = why_one_by_one(config, width)
        self.note = ""
        self._owned = owned
        self._without_trial = without_trial
        self._left_out = left_out
        self._after = after
        self._after_async = after_async
        self._bodies = Bodies()
        self._started: dict[pytest.Item, Started] = {}
        self._conditions: dict[object, object] = {}
        self._turn: Started | None = None
        self._filters = contextlib.ExitStack()
        self._undo = contextlib.ExitStack()
        self._router: Router | None = None
        self._parking: Parking | None = None
        self._upcoming: Upcoming | UpcomingInWorker | None = None
        self._progress: Any = None

    # What pytest calls

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Route what bodies write while tests run."""
        if not self._parallel(session):
            return (yield)
        self._open(session)
        try:
            return (yield)
        finally:
            self.abort(None)
            self._undo.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Before a test's turn: have its body, and those of the tests after it, run."""
        __tracebackhide__ = True
        if self._parking is None:
            return (yield)
        if item not in self._started and self.why_alone(item) is None and not self._left_out(item):
            self._start(cast("pytest.Function", item))
        started = self._started.get(item)
        if started is None:
            self._parking.switch(item)
            try:
                return (yield)
            finally:
                self._parking.forget_torn_down(item.listchain())
        self._wait_for(started)
        self._parking.switch(item)
        self._turn = started
        try:
            return (yield)
        finally:
            self._turn = None
            self._started.pop(item, None)
            self._drop_conditions()
            self._parking.forget_torn_down(item.listchain())

    @pytest.hookimpl(specname="pytest_runtest_protocol", tryfirst=True)
    def pytest_leave_out(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Leave out the golden tests that a spent budget does not reach, or that the gate needs no more; the session accounts for them."""
        if item in self._started or case_of(item) is None or not self._left_out(item):
            return None
        item.session._setupstate.teardown_exact(nextitem)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as the protocol would have
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Generator[None, object, object]:
        """Note how long each fixture lives."""
        if self._parking is not None:
            self._parking.note(request.node, fixturedef)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
        """Before everything is torn down, because the run ends here: tear down the tests that were set up ahead."""
        if nextitem is None and any(other is not item for other in self._started):
            self.abort(item)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Give what the body did, or run it now where it has not run beside others."""
        __tracebackhide__ = True
        turn = self._turn
        if turn is not None and turn.item is pyfuncitem and turn.body is not None and not turn.given:
            turn.given = True
            return self._give(turn.body)
        if case_of(pyfuncitem) is None or owner_of(pyfuncitem) is not None:
            return None
        if self._started and self.why_alone(pyfuncitem) is None:  # run again by a plugin, while others run
            body = self._new_body(pyfuncitem)
            self._bodies.start(body)
            self._wait_for(Started(item=pyfuncitem, body=body), fill=False)
            return self._give(body)
        with time_limit(self.timeout_s):
            result = call_of(pyfuncitem)()
            if is_async(pyfuncitem):
                self._bodies.run_alone(result)
                return True
        _complain_of_result(pyfuncitem, result)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Tear down what is still set up ahead, if anything went wrong on the way."""
        self.abort(None)

    def pytest_unconfigure(self) -> None:
        """Close the loop and let the threads go."""
        self._undo.close()
        self._bodies.close()
        leave_quickly()

    # What others ask

    def why_alone(self, item: pytest.Item) -> str | None:
        """Why this test runs alone, None where it may run beside others."""
        if case_of(item) is None:
            return "no golden test"
        return self.one_by_one or why_alone(item, self.alone_fixtures)

    def ran_alone(self, items: Iterable[pytest.Item]) -> list[tuple[str, int, str]]:
        """The golden tests that run alone where others do not: suite, number of trials, why."""
        if self.one_by_one is not None:
            return []
        reasons = [(suite_of(item), why_alone(item, self.alone_fixtures)) for item in items if case_of(item) is not None]
        counted = Counter((suite, reason) for suite, reason in reasons if reason is not None)
        return [(suite, count, reason) for (suite, reason), count in counted.items()]

    def abort(self, keep: pytest.Item | None) -> None:
        """Stop every body, and tear down each test that was set up ahead, `keep` excepted, exactly once."""
        others = [started for started in self._started.values() if started.item is not keep]
        if not others or self._parking is None:
            return
        self._bodies.stop_all()
        stays = keep or self._parking.innermost({started.item for started in others})
        for position, started in reversed(list(enumerate(others))):
            del self._started[started.item]
            self._parking.switch(started.item)
            before = others[position - 1].item if position else stays
            self._report_setup(started)
            with as_current(self.config, started.item):
                report = call_and_report(started.item, "teardown", log=False, nextitem=before)
                if report.failed:
                    started.item.ihook.pytest_runtest_logreport(report=report)
            started.item._request = False  # type: ignore[assignment] # noqa: SLF001 # pyright: ignore - as pytest lets go of a test
            started.item.funcargs = None  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue] - as above
            self._parking.forget_torn_down(started.item.listchain())
        if stays is not None:
            self._parking.switch(stays)
        self._drop_conditions()

    def _report_setup(self, started: Started) -> None:
        """Make the report of a setup that nobody will log: fixtures that are torn down may ask how their test went so far."""
        began, took = started.setup_began, started.setup_s
        error = started.setup_error
        excinfo: pytest.ExceptionInfo[BaseException] | None = None
        if error is not None:
            excinfo = cast("pytest.ExceptionInfo[BaseException]", pytest.ExceptionInfo.from_exception(error))  # pyright: ignore[reportUnknownMemberType]
        call: pytest.CallInfo[None] = pytest.CallInfo(None, excinfo, began, began + took, took, "setup", _ispytest=True)
        with self._without_trial(started.item):
            started.item.ihook.pytest_runtest_makereport(item=started.item, call=call)

    # How it works

    def _parallel(self, session: pytest.Session) -> bool:
        if self.one_by_one is not None or self.config.getoption("collectonly"):
            return False
        return any(case_of(item) is not None for item in session.items)

    def _open(self, session: pytest.Session) -> None:
        worker = find_worker(self.config)
        unknown = what_is_unknown(session)
        if worker is None and hasattr(self.config, "workerinput"):
            unknown = "pytest-xdist's queue of tests"
        if unknown is not None:
            self.one_by_one = f"{unknown} is not as expected"
            self.note = f"golden tests ran one by one: {self.one_by_one} in pytest {pytest.__version__}; please report it"
            return
        self._upcoming = Upcoming(session) if worker is None else UpcomingInWorker(session, worker, self._started)
        self._parking = Parking(session)
        self._progress = self.config.pluginmanager.get_plugin(PROGRESS)
        self._router = Router(self.config, _streams_of_body)
        self._undo.callback(self._shut)
        self._router.start()
        self._undo.callback(self._router.stop)
        self._undo.enter_context(explained_asserts(session.items[0]))
        self._undo.enter_context(switch_interval(LONG_SWITCH_INTERVAL_S))
        self._route_requests()
        self._take_turns(session)

    def _shut(self) -> None:
        self._parking = self._upcoming = None

    def _drop_conditions(self) -> None:
        """Let the next test bring its own, once none is left that needs these.

        Not while one has its turn: pytest has put its own warning filters on top of these by then.
        """
        if not self._started:
            self._conditions.clear()
            self._filters.close()

    def _may_start(self, item: pytest.Item, before: pytest.Item) -> bool:
        """Whether a test may be set up beside those that have been started, of which `before` is the last."""
        if item in self._started or self.why_alone(item) is not None:
            return False
        session = item.session
        if session.shouldfail or session.shouldstop or self._left_out(item):
            return False
        assert self._parking is not None
        chain = before.listchain()
        # Out of its group: pytest will have torn down by then what it would share with those that are set up now.
        if any(node not in chain and self._parking.is_up(node) for node in item.listchain()):
            return False
        wanted = conditions(cast("pytest.Function", item))
        return all(self._conditions.get(key, value) == value for key, value in wanted.items())

    def _fill(self) -> None:
        assert self._upcoming is not None
        if not self._started or not self._has_room():
            return
        head, last = next(iter(self._started)), next(reversed(self._started))
        for item in self._upcoming.after(head, len(self._started) - 1):
            if not self._may_start(item, last):
                return
            self._start(cast("pytest.Function", item))
            last = item
            if not self._has_room():
                return

    def _has_room(self) -> bool:
        return self._bodies.has_room(self.width) and len(self._started) < self.width * AHEAD

    def _start(self, item: pytest.Function) -> None:
        assert self._parking is not None
        wanted = conditions(item)
        if not self._started:
            self._filters.enter_context(warning_filters(cast("tuple[str, ...]", wanted["filterwarnings"])))
        started = Started(item=item, setup_began=time.time())
        self._started[item] = started
        self._conditions.update(wanted)
        self._parking.switch(item)
        clock = time.perf_counter()
        try:
            with timed_by_pytest_timeout(item):
                item.ihook.pytest_runtest_setup(item=item)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again where pytest sets the test up
            started.setup_error = error
        started.setup_s = time.perf_counter() - clock
        if started.setup_error is None:
            started.began = time.time()
            started.body = self._new_body(item)
            self._tell("started", item)
            self._bodies.start(started.body)

    def _new_body(self, item: pytest.Function) -> Body:
        timeout_s = _shorter(self.timeout_s, seconds_of_pytest_timeout(item))
        return Body(
            item,
            owned=lambda: self._owned(item),
            timeout_s=timeout_s,
            on_end=lambda: self._tell("ended", item),
            after=None if self._after is None else functools.partial(self._after, item),
            after_async=None if self._after_async is None else functools.partial(self._after_async, item),
        )

    def _wait_for(self, started: Started, *, fill: bool = True) -> None:
        while True:
            if fill:
                self._fill()
            if started.done:
                self._bodies.poll()
                return
            self._bodies.wait(self._patience())
            if self._bodies.has_timeouts:
                self._time_out(started)
            self._tell("tick")

    def _time_out(self, started: Started) -> None:
        now = time.perf_counter()
        for other in (started, *self._started.values()):
            overdue = None if other.body is None else other.body.overdue_at()
            if other.body is not None and overdue is not None and overdue <= now:
                self._bodies.time_out(other.body)

    def _patience(self) -> float:
        if not self._bodies.has_timeouts:
            return TICK_S
        now = time.perf_counter()
        times = [started.body.overdue_at() for started in self._started.values() if started.body is not None]
        return max(0.0, min([TICK_S, *(overdue - now for overdue in times if overdue is not None)]))

    def _take_turns(self, session: pytest.Session) -> None:
        """Have pytest find, where it asks for the hooks of the test whose turn it is, that this test has been set up."""
        find_hooks = session.gethookproxy

        def gethookproxy(fspath: Any) -> Any:  # noqa: ANN401 - as the original
            started = self._turn
            if started is None:
                return find_hooks(fspath)
            if fspath not in started.hooks:
                started.hooks[fspath] = _Turn(find_hooks(fspath), started)
            return started.hooks[fspath]

        session.gethookproxy = gethookproxy  # type: ignore[method-assign]
        self._undo.callback(delattr, session, "gethookproxy")

    def _give(self, body: Body) -> bool:
        __tracebackhide__ = True
        assert self._router is not None
        self._router.replay(body.streams, body.item)
        if body.error is not None:
            raise body.error
        _complain_of_result(body.item, body.result)
        return True

    def _tell(self, what: str, item: pytest.Item | None = None) -> None:
        if self._progress is not None:
            getattr(self._progress, what)(*(() if item is None else (item.nodeid,)))

    def _route_requests(self) -> None:
        """Have the main thread answer what bodies ask of pytest, each with its own fixtures in place."""
        from _pytest.fixtures import FixtureRequest, SubRequest
        from _pytest.runner import SetupState

        window, parking = self, cast("Parking", self._parking)
        get_value, add_to_fixture, add_to_node = FixtureRequest.getfixturevalue, SubRequest.addfinalizer, SetupState.addfinalizer

        def getfixturevalue(request: Any, argname: str) -> Any:  # noqa: ANN401 - as the original
            if argname == "request":  # pytest would make a fixture of it first, for each test anew
                return request
            item = request._pyfuncitem  # noqa: SLF001 - as the original
            if current_body.get() is None or item not in window._started:
                return get_value(request, argname)
            return window._bodies.in_main(lambda: window._fixture_in_body(item, lambda: get_value(request, argname), argname))

        def addfinalizer_of_fixture(request: Any, finalizer: Callable[[], object]) -> None:  # noqa: ANN401 - as the original
            if not parking.add_finalizer(request.node, finalizer, request._fixturedef):  # noqa: SLF001 - as the original
                add_to_fixture(request, finalizer)

        def addfinalizer(state: Any, finalizer: Callable[[], object], node: Any) -> None:  # noqa: ANN401 - as the original
            if not parking.add_finalizer(node, finalizer):
                add_to_node(state, finalizer, node)

        for owner, name, original, ours in (
            (FixtureRequest, "getfixturevalue", get_value, getfixturevalue),
            (SubRequest, "addfinalizer", add_to_fixture, addfinalizer_of_fixture),
            (SetupState, "addfinalizer", add_to_node, addfinalizer),
        ):
            setattr(owner, name, ours)
            self._undo.callback(setattr, owner, name, original)

    def _fixture_in_body(self, item: pytest.Function, get: Callable[[], Any], name: str) -> Any:  # noqa: ANN401 - a fixture's value
        if is_process_global(name, item, self.alone_fixtures):
            msg = (
                f"{item.nodeid} asks for the fixture {name!r}, which changes the whole process, while other tests run; name it in the "
                f"test's arguments, or mark the test with @pytest.mark.llm_alone"
            )
            raise SettingsError(msg)
        assert self._parking is not None
        self._parking.switch(item)
        with self._owned(item):
            return get()


class _Turn:
    """The hooks of a test whose turn has come: it has been set up, and its phases took the time that they took."""

    def __init__(self, hooks: Any, started: Started) -> None:  # noqa: ANN401 - pluggy's relay
        self._hooks = hooks
        self._started = started

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a hook
        return getattr(self._hooks, name)

    def pytest_runtest_setup(self, *, item: pytest.Item) -> None:
        __tracebackhide__ = True
        started = self._started
        if item is not started.item or started.taken:  # run again by a plugin
            self._hooks.pytest_runtest_setup(item=item)
            return
        started.taken = True
        if started.setup_error is not None:
            raise started.setup_error

    def pytest_runtest_makereport(self, *, item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:  # noqa: ANN401 - a report
        if item is self._started.item and call.when in self._started.told:
            call.start, call.duration = self._started.told.pop(call.when)
            call.stop = call.start + call.duration
        return self._hooks.pytest_runtest_makereport(item=item, call=call)


def _streams_of_body() -> Streams | None:
    body = current_body.get()
    return None if body is None else body.streams


def _complain_of_result(item: pytest.Function, result: object) -> None:

    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        pytest.fail(f"{item.nodeid} returned an awaitable that nothing awaited; make the test function async", pytrace=False)
    if result is not None:
        said = f"test functions are to return None, but {item.nodeid} returned {type(result).__name__}; did you mean `assert`?"
        warnings.warn(pytest.PytestReturnNotNoneWarning(said), stacklevel=2)


def _shorter(*seconds: float | None) -> float | None:
    given = [each for each in seconds if each]
    return min(given) if given else None
