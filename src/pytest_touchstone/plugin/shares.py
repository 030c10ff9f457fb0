"""Which tests come next in this process, and how many of them may run at once: alone, or as one of pytest-xdist's workers."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterator

    import pytest


def share_of(concurrency: int, config: pytest.Config) -> int:
    """How many bodies may run at once in this process: the workers of one run share the width, and each has at least 1.

    The first workers take what does not divide evenly.
    """
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    if workerinput is None:
        return concurrency
    count = int(workerinput.get("workercount", 1))
    number = int("".join(letter for letter in str(workerinput.get("workerid", "gw0")) if letter.isdigit()) or 0)
    return max(1, concurrency // count + (number < concurrency % count))


class Upcoming:
    """The tests that this process runs after the current one, in order."""

    def __init__(self, session: pytest.Session) -> None:
        """Look at the collected tests."""
        self._items = session.items
        self._index = {item: index for index, item in enumerate(session.items)}

    def after(self, item: pytest.Item, skip: int) -> Iterator[pytest.Item]:
        """The tests after this one, without the first `skip`."""
        if len(self._index) < len(self._items):  # some came later
            self._index = {each: index for index, each in enumerate(self._items)}
        index = self._index.get(item)
        if index is not None:
            for position in range(index + 1 + skip, len(self._items)):
                yield self._items[position]


class UpcomingInWorker:
    """The same in a worker of pytest-xdist, which knows what it has been sent so far."""

    def __init__(self, session: pytest.Session, worker: Any, started: Container[pytest.Item]) -> None:  # noqa: ANN401 - of xdist
        """Keep tests that have been started from being given to another worker."""
        self._items = session.items
        self._worker = worker
        self._started = started
        self._steal = worker.steal
        worker.steal = self._steal_unless_started

    def after(self, item: pytest.Item, skip: int) -> Iterator[pytest.Item]:
        """The tests that were sent after this one, without the first `skip`."""
        if self._items[self._worker.item_index] is not item:
            return
        with self._worker.torun.lock() as queue:
            indexes = [self._worker.nextitem_index, *queue]
        for index in indexes[skip:]:
            if not isinstance(index, int):
                return
            yield self._items[index]

    def _steal_unless_started(self, indices: list[int]) -> None:
        with self._worker.torun.lock():
            started = any(self._items[index] in self._started for index in indices)
            # All or none is what the answer to this message says.
            if not started:
                self._steal(indices)
        if started:
            self._worker.sendevent("unscheduled", indices=[])


def find_worker(config: pytest.Config) -> Any:  # noqa: ANN401 - xdist's WorkerInteractor, or None
    """The part of pytest-xdist that runs tests in a worker, None elsewhere or where it does not look as expected."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            expected = ("torun", "steal", "sendevent", "nextitem_index")
            return plugin if all(hasattr(plugin, name) for name in expected) and hasattr(plugin.torun, "lock") else None
    return None


def make_scheduler(config: pytest.Config, log: Any, ahead: int) -> Any:  # noqa: ANN401 - xdist's Producer and Scheduling
    """A scheduler for `--dist load` that sends each worker at least `ahead` tests more than it has finished."""
    base: Any = importlib.import_module("xdist.scheduler").LoadScheduling

    class WindowScheduling(base):  # type: ignore[misc] # xdist is not typed
        def check_schedule(self, node: Any, duration: float = 0) -> None:  # noqa: ANN401, ARG002 - as the method that this overrides
            missing = ahead - len(self.node2pending[node])
            if missing > 0 and self.pending and not node.shutting_down:
                self._send_tests(node, missing)
            # The duration would make it wait until the worker has next to nothing to do.
            base.check_schedule(self, node, 0)

        def schedule(self) -> None:
            base.schedule(self)
            for node in self.nodes:
                if self.collection is not None and self.pending:
                    self.check_schedule(node)

    return WindowScheduling(config, log)


@contextlib.contextmanager
def as_current(config: pytest.Config, item: pytest.Item) -> Generator[None]:
    """In a worker of pytest-xdist, which sends reports of the test only whose turn it is: make it this one's."""
    worker = find_worker(config)
    if worker is None:
        yield
        return
    before, worker.item_index = worker.item_index, item.session.items.index(item)
    try:
        yield
    finally:
        worker.item_index = before
