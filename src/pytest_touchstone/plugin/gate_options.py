"""The options of the gate: what a run is held to, from the command line, the marker of a suite and the ini file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.plugin.option_values import optional, positive
from pytest_touchstone.settings import GATE_MODES, GateSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_touchstone.gate import Policy

MARKER = "llm_gate"


@dataclass(frozen=True, kw_only=True)
class PolicyOption:
    """One field of the policy: `--llm-NAME`, ini `llm_NAME`, and the keyword `field` of the marker."""

    name: str
    field: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    example: str

    @property
    def option(self) -> str:
        """The command-line option."""
        return f"--llm-{self.name}"

    @property
    def ini(self) -> str:
        """The ini key."""
        return f"llm_{self.name.replace('-', '_')}"


POLICY = (
    PolicyOption(
        name="alpha",
        field="alpha",
        read=float,
        metavar="P",
        help="How often an unchanged app may be called regressed. Default: ini llm_alpha, else 0.01.",
        example="0.05",
    ),
    PolicyOption(
        name="margin",
        field="margin",
        read=float,
        metavar="POINTS",
        help="Accept a drop of the pass rate by up to so many points. Default: ini llm_margin, else 0.",
        example="2",
    ),
    PolicyOption(
        name="min-cases",
        field="min_cases",
        read=int,
        metavar="N",
        help="Leave a suite undecided in which fewer cases can be compared. Default: ini llm_min_cases, else 1.",
        example="30",
    ),
    PolicyOption(
        name="min-pass-rate",
        field="min_pass_rate",
        read=float,
        metavar="RATE",
        help="Call a suite regressed whose pass rate is lower. Default: ini llm_min_pass_rate, else no floor.",
        example="0.8",
    ),
    PolicyOption(
        name="max-cost-increase",
        field="max_mean_cost_increase",
        read=float,
        metavar="PART",
        help="Call a suite regressed whose mean cost of a trial rose by more than this part of the baseline's. "
        "Default: ini llm_max_cost_increase, else no limit.",
        example="0.2",
    ),
    PolicyOption(
        name="max-latency-increase",
        field="max_p95_latency_increase",
        read=float,
        metavar="PART",
        help="Call a suite regressed whose 95th percentile of latency rose by more than this part of the baseline's. "
        "Default: ini llm_max_latency_increase, else no limit.",
        example="0.5",
    ),
    PolicyOption(
        name="sided",
        field="sided",
        read=str,
        metavar="one|two",
        help="Test for drops alone, or for drops and gains with half of alpha each. Default: ini llm_sided, else one.",
        example="two",
    ),
    PolicyOption(
        name="undecided",
        field="undecided",
        read=str,
        metavar="warn|fail",
        help="Whether a suite that is undecided warns or fails the run. Default: ini llm_undecided, else warn.",
        example="fail",
    ),
)


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
    for each in POLICY:
        group.addoption(each.option, type=each.read, metavar=each.metavar, help=f"{each.help} Example: {each.option} {each.example}")
        parser.addini(each.ini, f"As {each.option}.", default="")


def read_gate(config: pytest.Config) -> GateSettings:
    """The gate as the command line and the ini file ask for it.

    Raises:
        pytest.UsageError: an option or ini value cannot be meant.
    """
    mode = config.option.llm_gate or config.getini("llm_gate") or "strict"
    if mode not in GATE_MODES:
        msg = f"ini llm_gate is {mode!r}; use one of {', '.join(GATE_MODES)}, for example llm_gate = regression"
        raise pytest.UsageError(msg)
    given = {each.field: getattr(config.option, f"llm_{each.name.replace('-', '_')}") for each in POLICY}
    gate = GateSettings(
        mode=mode,
        stage2=config.option.llm_gate_stage2 or optional(config, "llm_gate_stage2", positive, "4") or 0,
        given={field: value for field, value in given.items() if value is not None},
        ini={each.field: _ini(config, each) for each in POLICY if config.getini(each.ini)},
    )
    policy_of(gate, {})  # so that what is out of range is said before anything runs
    if gate.stage2 and gate.mode != "regression":
        msg = "--llm-gate-stage2 belongs to --llm-gate regression; add it, or leave the second stage out"
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


def _ini(config: pytest.Config, option: PolicyOption) -> Any:  # noqa: ANN401 - a number or a word, as the policy's field
    text: str = config.getini(option.ini)
    try:
        return option.read(text)
    except ValueError as error:
        msg = f"ini {option.ini} is {text!r}; give a number, for example {option.ini} = {option.example}"
        raise pytest.UsageError(msg) from error
