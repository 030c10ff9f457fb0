"""How plugin tests run pytest on what they wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs pytest on what `pytester` wrote, in this process; under xdist the workers are processes of their own."""

    pytester: pytest.Pytester
    arguments: tuple[str, ...]

    def run(self, *args):
        return self.pytester.runpytest_inprocess(*self.arguments, *args)
