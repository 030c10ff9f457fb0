"""Sets aside what pytest has set up for one test, so that another can be set up beside it.

pytest keeps one chain of nodes that are set up, from the session down to one test, and one value of each fixture. Parking takes the
end of that chain off, with the values of the fixtures that belong to it, and puts it back when its test's turn comes. So each test
is set up and torn down by pytest itself, with its own fixtures, however many others are set up at the same time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    import pytest
    from _pytest.nodes import Node

    Finalizer = Callable[[], object]


@dataclass(kw_only=True)
class _FixtureState:
    result: Any
    finalizers: list[Finalizer]


@dataclass(kw_only=True)
class _Parked:
    """A node's entry in pytest's chain, and the state of the fixtures that live as long as the node."""

    entry: tuple[list[Finalizer], Any]
    fixtures: dict[pytest.FixtureDef[Any], _FixtureState]


class Parking:
    """What is set up in a session, test by test.

    The main thread switches between tests; any thread may add finalizers.
    """

    def __init__(self, session: pytest.Session) -> None:
        """Look at what is set up; change nothing."""
        self._session: Any = session
        self._fixtures: dict[Any, dict[pytest.FixtureDef[Any], None]] = {}
        self._parked: dict[Any, _Parked] = {}
        self._lock = threading.RLock()

    def note(self, node: Node, fixturedef: pytest.FixtureDef[Any]) -> None:
        """A fixture is being set up for as long as `node` is."""
        self._fixtures.setdefault(node, {})[fixturedef] = None

    def is_up(self, node: Node) -> bool:
        """Whether the node is set up, parked or not."""
        return node in self._parked or node in self._stack

    def innermost(self, without: Container[Node]) -> Node | None:
        """The innermost node of what is not parked, those of `without` left out."""
        return next((node for node in reversed(list(self._stack)) if node not in without), None)

    def switch(self, item: Node) -> None:
        """Park what does not belong to `item`, and put back what of it was parked."""
        chain = item.listchain()
        with self._lock:
            stack = self._stack
            for node in reversed(list(stack)):
                if node in chain:
                    break
                self._park(node)
            for node in chain[len(stack) :]:
                if not self._put_back(node):
                    break

    def forget_torn_down(self, nodes: Iterable[Node]) -> None:
        """Let go of the fixtures of those nodes that are no longer set up."""
        for node in nodes:
            if not self.is_up(node):
                self._fixtures.pop(node, None)

    def add_finalizer(self, node: Node, finalizer: Finalizer, fixturedef: pytest.FixtureDef[Any] | None = None) -> bool:
        """Add a finalizer of a parked node, or of one of its fixtures; False where the node is not parked."""
        with self._lock:
            parked = self._parked.get(node)
            if parked is None:
                return False
            if fixturedef is None:
                parked.entry[0].append(finalizer)
                return True
            state = parked.fixtures.get(fixturedef)
            if state is not None:
                state.finalizers.append(finalizer)
            return state is not None

    @property
    def _stack(self) -> dict[Any, Any]:
        # Read anew each time: a plugin may have replaced it.
        stack: dict[Any, Any] = self._session._setupstate.stack  # noqa: SLF001 - pytest has no public name for it
        return stack

    def _park(self, node: Node) -> None:
        entry = self._stack.pop(node)
        fixtures: dict[Any, _FixtureState] = {}
        for fixturedef in self._fixtures.get(node, ()):
            state: Any = fixturedef
            fixtures[fixturedef] = _FixtureState(result=state.cached_result, finalizers=list(state._finalizers))  # noqa: SLF001 - as above
            state.cached_result = None
            state._finalizers.clear()  # noqa: SLF001 - as above
        self._parked[node] = _Parked(entry=entry, fixtures=fixtures)

    def _put_back(self, node: Node) -> bool:
        parked = self._parked.pop(node, None)
        if parked is None:
            return False
        self._stack[node] = parked.entry
        for fixturedef, saved in parked.fixtures.items():
            state: Any = fixturedef
            state.cached_result = saved.result
            state._finalizers[:] = saved.finalizers  # noqa: SLF001 - as above
        return True


def what_is_unknown(session: pytest.Session) -> str | None:
    """What of pytest's inner state does not look as parking needs it, None where everything does."""
    chain = getattr(getattr(session, "_setupstate", None), "stack", None)
    if not isinstance(chain, dict):
        return "the chain of set-up nodes"
    for item in session.items:
        fixturedefs: Any = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", None)
        if fixturedefs:
            known = all(
                hasattr(each, "cached_result") and isinstance(getattr(each, "_finalizers", None), list)
                for each in next(iter(fixturedefs.values()))
            )
            return None if known else "the state of fixtures"
    return None
