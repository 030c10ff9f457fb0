"""Runs test bodies: sync ones in threads, async ones as tasks of one loop that the main thread drives while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import inspect
import math
import queue
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import TrialTimeout
from pytest_touchstone.plugin.streams import Streams
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextlib import AbstractContextManager
    from types import FrameType

    import pytest

# How long bodies that are told to stop may take, in seconds, before the run goes on without them.
GRACE_S = 1.0
# How much longer than its timeout a body may block the event loop before a signal stops it, in seconds.
BLOCKED_S = 0.2

# The first body runs alone until it waits for something other than the processor: it imports SDKs and builds clients, which all others
# would do as well. Then so many run at once, and one more may whenever nothing that runs waits for the processor. A call costs the
# processor some milliseconds, so more bodies than it can serve only make each other, and their connections, dearer.
EAGER = 8
# How long a thread that does nothing sleeps to see whether Python is busy, in seconds, how late it may wake while it is not, and how often
# in a row it has to find that at first, since imports wait for the disk now and then.
NAP_S = 0.001
LATE_S = max(0.0005, 2 * time.get_clock_info("monotonic").resolution)
CALM_NAPS = 5
# After how many busy seconds one more body starts all the same: the clock may be to blame, or code that needs no turn in Python.
BUSY_S = 0.5
# For how long the event loop may be left alone, in seconds, while tests that have ended are reported: to enter it has its price.
SETTLED_S = 0.004

current_body: contextvars.ContextVar[Body | None] = contextvars.ContextVar("touchstone_body", default=None)


class Stopped(BaseException):
    """Raised in a body that is to end now; BaseException, since code under test catches ordinary ones."""


def call_of(item: pytest.Function) -> Callable[[], Any]:
    """The test function with what its signature asks for, taken from the item that has just been set up."""
    # As pytest's own call does, which has no public name for what the signature asks for.
    names = item._fixtureinfo.argnames  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return functools.partial(item.obj, **{name: item.funcargs[name] for name in names})


def is_async(item: pytest.Function) -> bool:
    """Whether the test function is a coroutine function."""
    return inspect.iscoroutinefunction(item.obj)


class Body:
    """One run of a test function beside others: what it is called with, and how it ended."""

    def __init__(
        self,
        item: pytest.Function,
        *,
        owned: Callable[[], AbstractContextManager[None]],
        timeout_s: float | None,
        on_end: Callable[[], None],
        after: Callable[[BaseException | None], None] | None = None,
        after_async: Callable[[BaseException | None], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Take what the test function asks for from the item that has just been set up.

        `on_end` is called once, in whichever thread notes the end. `after` is called once the body has ended, with what ended it, in its
        thread and context, and `after_async` where it is async; what they take is not the body's time.
        """
        self.item = item
        self.streams = Streams()
        self.timeout_s = timeout_s
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None
        self.began: float | None = None
        self.ended: float | None = None
        self.call = call_of(item)
        self.is_async = is_async(item)
        self.context = contextvars.copy_context()
        self._owned = owned
        self._on_end = on_end
        self._after = after
        self._after_async = after_async

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last line of the body; 0 where it never began."""
        if self.began is None:
            return 0.0
        return (time.perf_counter() if self.ended is None else self.ended) - self.began

    def overdue_at(self) -> float | None:
        """When the body's time is up, on the clock of `time.perf_counter`; None where it ended, has not begun or may take any time."""
        if self.ended is not None or self.timeout_s is None or self.began is None:
            return None
        return self.began + self.timeout_s

    def finish(self, error: BaseException | None) -> None:
        """Note how the body ended; what it does later is not heard any more."""
        if not self.done:
            self._note_end()
            self.error = error
            self.done = True
            self._on_end()

    def run(self) -> None:
        """Run a sync body to its end, in its context."""
        self._begin()
        error: BaseException | None = None
        try:
            with self._owned():
                self.result = self.call()
        except BaseException as raised:  # noqa: BLE001 - whatever ended the body is raised again where its test's turn comes
            error = raised
        self._note_end()
        try:
            if self._after is not None and not self.done:
                self._after(error)
        finally:
            self.finish(error)

    async def arun(self) -> None:
        """Run an async body to its end; its task has the body's context."""
        self._begin()
        error: BaseException | None = None
        try:
            with self._owned():
                self.result = await self.call()
        except KeyboardInterrupt:
            # Ctrl-C, which happens to arrive while this body has the main thread, is not this body's.
            self.finish(Stopped("interrupted"))
            raise
        except BaseException as raised:  # noqa: BLE001 - as above
            error = raised
        self._note_end()
        try:
            if self._after_async is not None and not self.done:
                await self._after_async(error)
        finally:
            self.finish(error)

    def _note_end(self) -> None:
        if self.ended is None:
            self.ended = time.perf_counter()

    def _begin(self) -> None:
        current_body.set(self)
        self.began = time.perf_counter()


class Bodies:
    """The bodies that run right now, and the wait for the next thing that happens to one of them.

    All methods but `in_main` are for the main thread.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Body | None] = queue.SimpleQueue()
        self._threads: dict[Body, threading.Thread] = {}
        self._idle = 0
        self._spawned = 0
        self.has_timeouts = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[Body, asyncio.Task[None]] = {}
        self._running: set[Body] = set()
        self._main = threading.get_ident()
        self._room: float = 1
        self._grew = 0.0
        self._calm = 0
        self._driven = 0.0
        self._seeks_idle = False

    def __len__(self) -> int:
        """How many bodies run."""
        return len(self._running)

    def has_room(self, width: int) -> bool:
        """Whether one more body may start, where `width` may run at once."""
        return len(self._running) < min(width, self._room)

    def start(self, body: Body) -> None:
        """Start a body."""
        self._grew = self._grew or time.perf_counter()
        self._running.add(body)
        self.has_timeouts = self.has_timeouts or body.timeout_s is not None
        if body.is_async:
            coroutine = body.arun()
            loop = self.loop()
            task = loop.create_task(coroutine, context=body.context)
            self._tasks[body] = task
            task.add_done_callback(functools.partial(self._task_done, body))
            return
        if self._idle:
            self._idle -= 1
        else:
            self._spawned += 1
            threading.Thread(target=self._serve, name="touchstone-body", daemon=True).start()
        self._work.put(body)

    def loop(self) -> asyncio.AbstractEventLoop:
        """The one loop of the session, so that clients made at import time keep their connections."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._watch_idle(self._loop)
        return self._loop

    def wait(self, timeout_s: float | None) -> None:
        """Drive the async bodies until something happens to a body, at most `timeout_s` seconds; then do what it asks for.

        Where all room is taken it also ends as soon as none of those that run waits for the processor: then there is room for one more.
        """
        seeks_idle = len(self._running) >= self._room
        if not self._tasks:
            with contextlib.suppress(queue.Empty):
                self._next_event(timeout_s, seeks_idle=seeks_idle)()
        elif self._events.empty():
            self._seeks_idle = seeks_idle
            try:
                self._drive(timeout_s)
            finally:
                self._seeks_idle = False
        self._handle_all()

    def poll(self) -> None:
        """Let the async bodies make the steps that are due, without waiting; where they had just the chance, leave it."""
        if self._tasks and time.perf_counter() - self._driven > SETTLED_S:
            loop = self.loop()
            loop.call_soon(loop.stop)
            self._drive(None)
            self._handle_all()

    def run_alone(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine on the loop to its end, in a copy of the current context, with nothing beside it."""
        loop = self.loop()
        task = loop.create_task(coroutine, context=contextvars.copy_context())
        try:
            loop.run_until_complete(task)
        except BaseException:  # a signal's, such as Ctrl-C's or a timeout's: the coroutine is to unwind before its fixtures do
            if not task.done():
                task.cancel()
                loop.run_until_complete(asyncio.wait([task], timeout=GRACE_S))
            raise

    def in_main(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the function returns
        """Have the main thread call the function the next time it waits; called from a body's thread or from the main one."""
        if threading.get_ident() == self._main:
            return function()
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                future.set_exception(error)

        self._post(call)
        return future.result()

    def time_out(self, body: Body) -> None:
        """End a body whose time is up: its trial is an error that says where it was."""
        assert body.timeout_s is not None
        body.finish(TrialTimeout(_overdue(body.timeout_s, self._place(body))))
        self._stop(body)
        self._running.discard(body)

    def stop_all(self) -> None:
        """Tell every body to end, and give them a moment to do so."""
        for body in list(self._running):
            if not body.done:
                self._stop(body)
        until = time.perf_counter() + GRACE_S
        while self._running and (left := until - time.perf_counter()) > 0:
            self.wait(left)
        for body in self._running:
            body.finish(Stopped("the run stopped"))
        self._running.clear()

    def close(self) -> None:
        """Let the threads go and close the loop; a body that still hangs is left behind, in a thread that no exit waits for."""
        for _ in range(self._spawned):
            self._work.put(None)
        self._idle = self._spawned = 0
        loop, self._loop = self._loop, None
        if loop is None:
            return
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=GRACE_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
        # Without shutdown_default_executor, which would wait for threads that may hang.
        loop.close()

    def _serve(self) -> None:
        body: Body | None = None
        try:
            while (body := self._work.get()) is not None:
                self._threads[body] = threading.current_thread()
                body.context.run(body.run)
                if self._threads.pop(body, None) is None:
                    return
                self._post(functools.partial(self._thread_done, body))
        except Stopped:  # it came just after the last line of the body
            pass
        finally:
            if body is not None:
                body.finish(Stopped("the run stopped"))
                self._post(functools.partial(self._running.discard, body))

    def _thread_done(self, body: Body) -> None:
        self._running.discard(body)
        self._idle += 1

    def _task_done(self, body: Body, task: asyncio.Task[None]) -> None:
        self._tasks.pop(body, None)
        self._running.discard(body)
        if not body.done:
            body.finish(Stopped("cancelled") if task.cancelled() else task.exception())
        elif not task.cancelled():
            task.exception()  # seen, so that asyncio does not complain
        self._post(_nothing)

    def _post(self, event: Callable[[], None]) -> None:
        self._events.put(event)
        loop = self._loop
        if loop is None:
            return
        if threading.get_ident() == self._main:
            loop.stop()
        else:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(loop.stop)

    def _next_event(self, timeout_s: float | None, *, seeks_idle: bool) -> Callable[[], None]:
        if not seeks_idle:
            return self._events.get(timeout=timeout_s)
        nap_s = NAP_S if timeout_s is None else min(NAP_S, timeout_s)
        until, computed = time.perf_counter() + nap_s, time.process_time()
        try:
            return self._events.get(timeout=nap_s)
        except queue.Empty:
            now = time.perf_counter()
            is_calm = now - until < LATE_S and time.process_time() - computed < nap_s / 4
            self._calm = self._calm + 1 if is_calm else 0
            if self._calm >= (1 if self._room >= EAGER else CALM_NAPS):
                self._grow(max(EAGER, self._room + 1))
            elif now - self._grew > BUSY_S:
                self._grow(self._room + 1)
            raise

    def _grow(self, room: float) -> None:
        self._room = room
        self._grew = time.perf_counter()
        self._calm = 0

    def _watch_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop stop instead of waiting for the network, while idleness is sought."""
        selector: Any = getattr(loop, "_selector", None)
        select = getattr(selector, "select", None)
        if select is None:  # a loop of another make
            self._room = math.inf
            return

        def select_or_stop(timeout: float | None = None) -> Any:  # noqa: ANN401 - as the original
            if timeout == 0 or not self._seeks_idle:
                return select(timeout)
            ready = select(0)
            if not ready:
                self._seeks_idle = False
                self._grow(max(EAGER, self._room + 1))
                loop.stop()
            return ready

        selector.select = select_or_stop

    def _drive(self, timeout_s: float | None) -> None:
        loop = self.loop()
        timer = None if timeout_s is None else loop.call_later(max(timeout_s, 0), loop.stop)
        try:
            with self._watched():
                loop.run_forever()
        finally:
            self._driven = time.perf_counter()
            if timer is not None:
                timer.cancel()

    @contextlib.contextmanager
    def _watched(self) -> Generator[None]:
        """Stop an async body that blocks the loop when its time is up, where signals can."""
        timeouts = [body.timeout_s for body in self._tasks if body.timeout_s is not None] if self.has_timeouts else []
        if not timeouts or not _can_alarm():
            yield
            return

        def stop(frame: FrameType | None) -> None:
            body = current_body.get()
            overdue = None if body is None else body.overdue_at()
            if body is not None and overdue is not None and overdue <= time.perf_counter():
                assert body.timeout_s is not None
                body.finish(TrialTimeout(_overdue(body.timeout_s, _innermost(frame))))
                raise Stopped

        # Later than the loop's own timer would be: a body that lets the loop run is cancelled, which is gentler.
        with _alarm(stop, min(timeouts) + BLOCKED_S, every_s=BLOCKED_S):
            yield

    def _handle_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()()

    def _stop(self, body: Body) -> None:
        task = self._tasks.get(body)
        if task is not None:
            task.cancel()
            return
        # Taken out first: the thread that finds itself gone from here ends, so that the exception cannot hit another body.
        thread = self._threads.pop(body, None)
        # While a tracer such as coverage's is set, Python 3.11's main thread would spin until the other thread sees the exception.
        if thread is not None and thread.ident is not None and sys.gettrace() is None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped))

    def _place(self, body: Body) -> str:
        thread = self._threads.get(body)
        frame = None
        if thread is not None and thread.ident is not None:
            frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the only way to see it
        elif (task := self._tasks.get(body)) is not None:
            stack = task.get_stack()
            frame = stack[-1] if stack else None
        if frame is None:
            return ""
        frames = [entry for entry in traceback.extract_stack(frame) if entry.filename == str(body.item.path)]
        return _described((frames or traceback.extract_stack(frame))[-1])


@contextlib.contextmanager
def time_limit(timeout_s: float | None) -> Generator[None]:
    """Inside, what the main thread runs is stopped when its time is up, wherever it is.

    Where signals cannot do that (on Windows, or while another timer of the process runs) it may take as long as it likes.

    Raises:
        TrialTimeout: the time was up.
    """
    if timeout_s is None or not _can_alarm():
        yield
        return
    place: list[str] = []

    def stop(frame: FrameType | None) -> None:
        place.append(_innermost(frame))
        raise Stopped

    try:
        with _alarm(stop, timeout_s):
            yield
    except BaseException as error:
        if not place:
            raise
        raise TrialTimeout(_overdue(timeout_s, place[0])) from (None if isinstance(error, Stopped) else error)
    else:
        if place:  # the code caught what was to stop it
            raise TrialTimeout(_overdue(timeout_s, place[0]))


def _can_alarm() -> bool:
    """Whether this process can be woken by a timer, and nobody else's is running."""
    return hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]


@contextlib.contextmanager
def _alarm(handler: Callable[[FrameType | None], None], after_s: float, *, every_s: float = 0.0) -> Generator[None]:
    """Inside, call `handler` with the main thread's frame after so many seconds, and again every so many (0: once)."""
    before = signal.signal(signal.SIGALRM, lambda _, frame: handler(frame))
    signal.setitimer(signal.ITIMER_REAL, after_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _overdue(timeout_s: float, place: str) -> str:
    return f"the body did not end within {timeout_s:g} s (--llm-timeout, or pytest-timeout's){place}"


def _described(entry: traceback.FrameSummary) -> str:
    return f"; it was at {visible(entry.filename)}:{entry.lineno} in {visible(entry.name)}"


def _innermost(frame: FrameType | None) -> str:
    return "" if frame is None else _described(traceback.extract_stack(frame)[-1])


def _nothing() -> None:
    return None
