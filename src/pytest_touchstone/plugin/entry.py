"""The pytest11 module: hooks that delegate.

pytest imports it at every start, so it imports nothing that a run without `--llm-eval` does not need.
"""

from __future__ import annotations

import pytest

from pytest_touchstone.plugin.fixtures import case, judge, llm_snapshot
from pytest_touchstone.plugin.selection import deselect

__all__ = ["case", "judge", "llm_snapshot"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the `--llm-*` options and `llm_*` ini keys."""
    from pytest_touchstone.plugin.options import add_options

    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the `pytest_llm_*` hooks, so that a conftest may implement them whether or not a run evaluates."""
    from pytest_touchstone.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Let a conftest build SDK clients without keys where the run only replays, and have the start of a run be quick."""
    if early_config.known_args_namespace.llm_eval:
        from pytest_touchstone.plugin.surroundings import fewer_collections

        early_config.add_cleanup(fewer_collections())  # first, since imports make much that stays
        from pytest_touchstone.plugin.session import set_placeholder_keys

        set_placeholder_keys(early_config)


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Keep a plan in this process."""
    if config.getoption("llm_plan"):
        from pytest_touchstone.plugin.plan import stay_in_one_process

        stay_in_one_process(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and with `--llm-eval` the plugins that do the work."""
    config.addinivalue_line("markers", GOLDEN_MARKER)
    config.addinivalue_line("markers", ALONE_MARKER)
    config.addinivalue_line("markers", GATE_MARKER)
    config.addinivalue_line("markers", REPEAT_MARKER)
    _keep_baselines_from_syrupy(config)
    if config.getoption("llm_eval"):
        from pytest_touchstone.plugin.session import register

        register(config)
    elif config.getoption("llm_export"):
        msg = "--llm-export writes what a run with --llm-eval found; add --llm-eval"
        raise pytest.UsageError(msg)
    elif config.getoption("llm_plan"):
        msg = "--llm-plan says what a run with --llm-eval would ask; add --llm-eval"
        raise pytest.UsageError(msg)


def _keep_baselines_from_syrupy(config: pytest.Config) -> None:
    """Have syrupy leave baselines alone where nobody speaks for them: it would call them unknown, fail the run, and delete them."""
    from pytest_touchstone.settings import BASELINE_SUFFIX

    given: list[str] | None = getattr(config.option, "ignore_file_extensions", None)
    if BASELINE_SUFFIX not in (given or ()):
        config.option.ignore_file_extensions = [*(given or ()), BASELINE_SUFFIX]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect golden tests unless the run evaluates; syrupy is to see them first, or it would call their snapshots unused."""
    if not config.getoption("llm_eval"):
        deselect(config, items, [item for item in items if item.get_closest_marker("golden")])


GOLDEN_MARKER = (
    "golden(*sources, input=None, expected=None, id=None, split=None, where=None, limit=None): "
    "one test for each golden case of the sources (files, globs, callables, lists); runs with --llm-eval, through the fixture `case`"
)
ALONE_MARKER = (
    "llm_alone(reason=None): run this golden test with no other beside it, because it changes the whole process; "
    "without effect on other tests"
)
GATE_MARKER = (
    "llm_gate(alpha=0.01, margin=0, min_cases=1, min_pass_rate=None, max_mean_cost_increase=None, max_p95_latency_increase=None, "
    "sided='one', undecided='warn', suspicious=0.2): what --llm-gate regression holds this golden test to"
)
REPEAT_MARKER = "llm_repeat(n, require='all'): try each case of this golden test n times; 'all', 'any' or a number of them have to pass"
