"""Whose call it is, carried into the threads that an app starts."""

from __future__ import annotations

import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    Capture = Callable[[], Callable[[], AbstractContextManager[None]] | None]


class ThreadCarrier:
    """Makes `ThreadPoolExecutor.submit` and `Thread.start` carry what `capture` sees into the thread, while started.

    `capture` runs in the starting thread and returns a function that makes a context manager to run the work in, or None where there is
    nothing to carry. Nothing else of the context travels: an app's own context variables behave as they do without the plugin.
    """

    def __init__(self, capture: Capture) -> None:
        """Change nothing yet."""
        self._capture = capture
        self._active = False
        self._submitting = threading.local()
        self._submit: Callable[..., Any] | None = None
        self._start: Callable[..., Any] | None = None
        self._patched_submit: Callable[..., Any] | None = None
        self._patched_start: Callable[..., Any] | None = None

    def start(self) -> None:
        """Patch both methods."""
        self._submit, self._start = ThreadPoolExecutor.submit, threading.Thread.start
        self._patched_submit, self._patched_start = self._make_submit(self._submit), self._make_start(self._start)
        ThreadPoolExecutor.submit = self._patched_submit  # type: ignore[method-assign] # pyright: ignore[reportAttributeAccessIssue]
        threading.Thread.start = self._patched_start  # type: ignore[method-assign]
        self._active = True

    def stop(self) -> None:
        """Put the originals back; where somebody patched over ours, it stays in the chain and does nothing."""
        self._active = False
        if self._submit is not None and ThreadPoolExecutor.submit is self._patched_submit:
            ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign] # pyright: ignore[reportAttributeAccessIssue]
        if self._start is not None and threading.Thread.start is self._patched_start:
            threading.Thread.start = self._start  # type: ignore[method-assign]

    def _make_submit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
            inside = self._capture() if self._active else None
            if inside is None:
                return original(pool, fn, *args, **kwargs)
            # The pool's thread serves others later, so it must not start as this caller's.
            with self._in_submit():
                return original(pool, _Carried(inside, fn), *args, **kwargs)

        return submit

    def _make_start(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def start(thread: threading.Thread) -> None:
            inside = self._capture() if self._active and not getattr(self._submitting, "now", False) else None
            if inside is not None:
                _carry_run(thread, inside)
            original(thread)

        return start

    @contextlib.contextmanager
    def _in_submit(self) -> Generator[None]:
        before = getattr(self._submitting, "now", False)
        self._submitting.now = True
        try:
            yield
        finally:
            self._submitting.now = before


class _Carried:
    """A callable that runs in what was captured."""

    def __init__(self, inside: Callable[[], AbstractContextManager[None]], function: Callable[..., Any]) -> None:
        self._inside = inside
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the function takes and returns
        with self._inside():
            return self._function(*args, **kwargs)


def _carry_run(thread: threading.Thread, inside: Callable[[], AbstractContextManager[None]]) -> None:
    original = thread.run

    def run() -> None:
        # Gone before the work starts: the attribute would keep the thread alive through itself.
        del thread.run
        with inside():
            original()

    if "run" not in thread.__dict__:
        thread.run = run  # type: ignore[method-assign]
