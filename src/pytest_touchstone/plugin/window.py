"""Runs async test bodies on one event loop for the whole session, so that clients made at import time keep their connections."""

from __future__ import annotations

import asyncio
import contextvars
import inspect

import pytest

from pytest_touchstone.plugin.collect import case_of


class BodyRunner:
    """Runs the async bodies of golden tests; sync ones run as in any pytest."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run an async golden body to its end, in a copy of the current context."""
        if case_of(pyfuncitem) is None or not inspect.iscoroutinefunction(pyfuncitem.obj) or _has_owner(pyfuncitem):
            return None
        __tracebackhide__ = True
        if self._runner is None:
            self._runner = asyncio.Runner()
        # As pytest's own call does, which has no public name for what the function's signature asks for.
        names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        arguments = {name: pyfuncitem.funcargs[name] for name in names}
        self._runner.run(pyfuncitem.obj(**arguments), context=contextvars.copy_context())
        return True

    def pytest_unconfigure(self) -> None:
        """Close the loop, if one was needed."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _has_owner(item: pytest.Function) -> bool:
    """Whether pytest-asyncio or anyio runs this body."""
    return any(item.get_closest_marker(name) for name in ("asyncio", "anyio")) or "anyio_backend" in item.fixturenames
