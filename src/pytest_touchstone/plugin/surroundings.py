"""What pytest and pytest-timeout set around the phases of a test, set around the bodies that run between the phases."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import pytest

# How many objects may be made, those that went left out, before Python looks for reference cycles; its own number is 700.
ALLOCATIONS = 20_000


def _timeout_settings(item: pytest.Item) -> tuple[Any, Any]:
    """pytest-timeout's hooks and settings for a test, None for both where it is not there or does not look as expected."""
    plugin: Any = item.config.pluginmanager.get_plugin("timeout")
    settings: Any = getattr(plugin, "_get_item_settings", None)
    if settings is None:
        return None, None
    return item.config.hook, settings(item)


def seconds_of_pytest_timeout(item: pytest.Item) -> float | None:
    """What pytest-timeout gives a test, in seconds; None where it gives no bound."""
    _, settings = _timeout_settings(item)
    seconds: float | None = getattr(settings, "timeout", None)
    return seconds


@contextlib.contextmanager
def timed_by_pytest_timeout(item: pytest.Item) -> Generator[None]:
    """Have pytest-timeout watch a setup that is done ahead, as it watches one in its turn."""
    hooks, settings = _timeout_settings(item)
    watched = settings is not None and bool(settings.timeout) and settings.func_only is False
    if watched:
        hooks.pytest_timeout_set_timer(item=item, settings=settings)
    try:
        yield
    finally:
        if watched:
            hooks.pytest_timeout_cancel_timer(item=item)


@contextlib.contextmanager
def explained_asserts(item: pytest.Item) -> Generator[None]:
    """Have asserts explained as in a test whose turn it is, since bodies run between the turns."""
    import _pytest.assertion as explaining  # as above

    hook: Any = explaining.pytest_runtest_protocol
    steps = hook(item)
    next(steps)
    try:
        yield
    finally:
        steps.close()


@contextlib.contextmanager
def warning_filters(filters: Sequence[str]) -> Generator[None]:
    """Have the warning filters of marks hold between the turns too, where bodies run."""
    from _pytest.config import parse_warning_filter  # as above

    if not filters:
        yield
        return
    with warnings.catch_warnings():
        for each in filters:
            warnings.filterwarnings(*parse_warning_filter(each, escape=False))
        yield


@contextlib.contextmanager
def switch_interval(seconds: float) -> Generator[None]:
    """Let a thread run longer before another takes over, which costs more the more bodies there are."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(max(before, seconds))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def fewer_collections() -> Callable[[], None]:
    """Have the garbage of reference cycles looked for after `ALLOCATIONS`, where Python would look sooner; gives what undoes it.

    Imports and collected tests make what stays, each model call thousands of objects that live as long as the call, and each look goes
    through many of them.
    """
    before = gc.get_threshold()
    if before[0]:  # else somebody has switched it off
        gc.set_threshold(max(before[0], ALLOCATIONS), *before[1:])
    return lambda: gc.set_threshold(*before)


def leave_quickly() -> None:
    """Have Python, when the process ends, not look for reference cycles among all that the run has left.

    That takes most of a second after a thousand tests; pytest has looked by then, and the memory goes back anyway.
    """
    atexit.unregister(gc.freeze)  # a process may run pytest many times
    atexit.register(gc.freeze)
