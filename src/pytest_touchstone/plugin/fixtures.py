"""The fixtures that golden tests ask for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_touchstone.judging.rubric import Judge
    from pytest_touchstone.plugin.snapshots import LlmSnapshot
    from pytest_touchstone.trial import Trial


@pytest.fixture
def case() -> Trial:
    """The trial of this test's golden case: set `.output`, then `.check(...)` it."""
    from pytest_touchstone.plugin.trials import trial_of_setup

    # Without `request`: pytest makes a fixture of it anew for each test, which takes longer than all the rest of this.
    trial = trial_of_setup()
    if trial is None:
        nodeid = os.environ.get("PYTEST_CURRENT_TEST", "a test").removesuffix(" (setup)")
        msg = f"{nodeid} asks for the fixture `case` but is no golden test; add @pytest.mark.golden('cases.yaml')"
        raise pytest.UsageError(msg)
    return trial


@pytest.fixture(scope="session")
def judge() -> Callable[..., Judge]:
    """The factory of judges, as `pytest_touchstone.judge`: `judge("Polite, and cites the 30-day window.")`."""
    from pytest_touchstone.judging.rubric import judge as make_judge

    return make_judge


@pytest.fixture
def llm_snapshot(request: pytest.FixtureRequest, case: Trial) -> Iterator[LlmSnapshot]:
    """Holds an output against the stored one: `llm_snapshot(case.output)`, or `llm_snapshot(case.output, judge("Says the same."))`."""
    if not request.config.pluginmanager.has_plugin("syrupy"):
        msg = f"{request.node.nodeid} asks for the fixture `llm_snapshot`, which stores through syrupy; take -p no:syrupy off"
        raise pytest.UsageError(msg)
    from pytest_touchstone.plugin.snapshots import llm_snapshot_of
    from pytest_touchstone.plugin.trials import RUNNING

    snapshot = llm_snapshot_of(request.node, case)
    yield snapshot
    running = request.node.stash.get(RUNNING, None)
    if running is None or running.record is None or running.record.outcome != "passed":
        snapshot.keep()
