"""Taking tests out of a run the way pytest does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def deselect(config: pytest.Config, items: list[pytest.Item], dropped: Sequence[pytest.Item]) -> None:
    """Take `dropped` out of `items` and tell pytest, which counts them as deselected."""
    if dropped:
        unwanted = set(dropped)
        items[:] = [item for item in items if item not in unwanted]
        config.hook.pytest_deselected(items=list(dropped))
