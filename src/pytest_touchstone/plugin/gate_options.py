"""The options of the gate: what a run is held to, from the command line, the marker of a suite and the ini file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.gate_rules import RULES
from pytest_touchstone.plugin.option_values import optional, positive
from pytest_touchstone.settings import GATE_MODES, GateSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_touchstone.gate import Policy
    from pytest_touchstone.gate_rules import Rule

MARKER = "llm_gate"
GATE = "touchstone-gate"


def add_gate_options(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Declare the options and ini keys of the gate."""
    group.addoption(
        "--llm-gate",
        choices=GATE_MODES,
        help="strict: each failing test fails the run. regression: the run is held against the baseline, and fails if it got worse by more "
        "than chance explains. Default: ini llm_gate, else strict. Example: --llm-gate regression",
    )
    parser.addini("llm_gate", "What fails a run, as --llm-gate.", default="")
    group.addoption(
        "--llm-gate-stage2",
        type=positive,
        metavar="N",
        help="With --llm-gate regression: where a suite fell and it may or may not be chance, try every case of it N more times before "
        "deciding. Default: ini llm_gate_stage2, else no second stage. Example: --llm-gate-stage2 4",
    )
    parser.addini("llm_gate_stage2", "How often the second stage tries each case, as --llm-gate-stage2.", default="")
    group.addoption(
        "--llm-gate-stop-early",
        action="store_true",
        help="With --llm-gate regression: once a suite has shown that it regressed, leave out the rest of its trials; costs half of alpha. "
        "Default: ini llm_gate_stop_early, else every trial is made. Example: --llm-gate-stop-early",
    )
    parser.addini(
        "llm_gate_stop_early", "Whether suites that have regressed are stopped, as --llm-gate-stop-early.", type="bool", default=False
    )
    for rule in RULES:
        option = f"--llm-{rule.name}"
        told = f"{rule.effect} Default: ini {rule.ini}, else {rule.default}. Example: {option} {rule.example}"
        group.addoption(option, type=rule.read, metavar=rule.metavar, help=told)
        parser.addini(rule.ini, f"As {option}.", default="")


def read_gate(config: pytest.Config) -> GateSettings:
    """The gate as the command line and the ini file ask for it.

    Raises:
        pytest.UsageError: an option or ini value cannot be meant.
    """
    mode = config.option.llm_gate or config.getini("llm_gate") or "strict"
    if mode not in GATE_MODES:
        msg = f"ini llm_gate is {mode!r}; use one of {', '.join(GATE_MODES)}, for example llm_gate = regression"
        raise pytest.UsageError(msg)
    given = {rule.field: getattr(config.option, f"llm_{rule.key}") for rule in RULES}
    gate = GateSettings(
        mode=mode,
        stage2=config.option.llm_gate_stage2 or optional(config, "llm_gate_stage2", positive, "4") or 0,
        stop_early=config.option.llm_gate_stop_early or config.getini("llm_gate_stop_early"),
        given={field: value for field, value in given.items() if value is not None},
        ini={rule.field: _ini(config, rule) for rule in RULES if config.getini(rule.ini)},
    )
    policy_of(gate, {})  # so that what is out of range is said before anything runs
    if gate.stage2 and gate.mode != "regression":
        msg = "--llm-gate-stage2 belongs to --llm-gate regression; add it, or leave the second stage out"
        raise pytest.UsageError(msg)
    if gate.stop_early and gate.mode != "regression":
        msg = "--llm-gate-stop-early belongs to --llm-gate regression; add it, or have every trial made"
        raise pytest.UsageError(msg)
    return gate


def policy_of(gate: GateSettings, marked: Mapping[str, Any]) -> Policy:
    """The policy of one suite: the command line beats its marker, which beats the ini file.

    Raises:
        pytest.UsageError: a value is out of its range.
    """
    from pytest_touchstone.errors import SettingsError
    from pytest_touchstone.gate import Policy

    try:
        return Policy(**{**gate.ini, **marked, **gate.given})
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from error


def marked_policy(item: pytest.Item, gate: GateSettings) -> dict[str, Any]:
    """What the `llm_gate` markers of a test say, the closest one first.

    Raises:
        pytest.UsageError: a marker says what no policy knows, or a value is out of its range.
    """
    from pytest_touchstone.gate import Policy

    known = [field.name for field in dataclasses.fields(Policy)]
    marked: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        unknown = sorted(set(marker.kwargs) - set(known))
        if marker.args or unknown:
            what = f"does not know {', '.join(unknown)}" if unknown else "takes no values without a name"
            msg = f"{item.nodeid}: llm_gate() {what}; it takes {', '.join(known)}"
            raise pytest.UsageError(msg)
        marked.update(marker.kwargs)
    try:
        policy_of(gate, marked)
    except (pytest.UsageError, TypeError) as error:
        msg = f"{item.nodeid}: llm_gate: {str(error).removeprefix('gate: ')}"
        raise pytest.UsageError(msg) from error
    return marked


def _ini(config: pytest.Config, rule: Rule) -> Any:  # noqa: ANN401 - a number or a word, as the policy's field
    text: str = config.getini(rule.ini)
    try:
        return rule.read(text)
    except ValueError as error:
        msg = f"ini {rule.ini} is {text!r}; give a number, for example {rule.ini} = {rule.example}"
        raise pytest.UsageError(msg) from error
