"""The rules of the gate as people set them: the names that pytest's options, its ini keys and the command `touchstone compare` share.

Imported while pytest starts, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One field of the gate's policy: `--llm-NAME` and ini `llm_NAME` of pytest, `--NAME` of the command, `field` in the marker.

    `read` makes a value of a text, or raises ValueError; `default` says in words what holds where nothing is set.
    """

    name: str
    field: str
    read: Callable[[str], Any]
    metavar: str
    effect: str
    default: str
    example: str

    @property
    def key(self) -> str:
        """The name as Python and ini files write it: `min_cases`.

        >>> RULES[2].key, RULES[2].ini
        ('min_cases', 'llm_min_cases')
        """
        return self.name.replace("-", "_")

    @property
    def ini(self) -> str:
        """The ini key."""
        return f"llm_{self.key}"


RULES = (
    Rule(
        name="alpha",
        field="alpha",
        read=float,
        metavar="P",
        effect="How often an unchanged app may be called regressed.",
        default="0.01",
        example="0.05",
    ),
    Rule(
        name="margin",
        field="margin",
        read=float,
        metavar="POINTS",
        effect="Accept a drop of the pass rate by up to so many points.",
        default="0",
        example="2",
    ),
    Rule(
        name="min-cases",
        field="min_cases",
        read=int,
        metavar="N",
        effect="Leave a suite undecided in which fewer cases can be compared.",
        default="1",
        example="30",
    ),
    Rule(
        name="min-pass-rate",
        field="min_pass_rate",
        read=float,
        metavar="RATE",
        effect="Call a suite regressed whose pass rate is lower.",
        default="no floor",
        example="0.8",
    ),
    Rule(
        name="max-cost-increase",
        field="max_mean_cost_increase",
        read=float,
        metavar="PART",
        effect="Call a suite regressed whose mean cost of a trial rose by more than this part of the baseline's.",
        default="no limit",
        example="0.2",
    ),
    Rule(
        name="max-latency-increase",
        field="max_p95_latency_increase",
        read=float,
        metavar="PART",
        effect="Call a suite regressed whose 95th percentile of latency rose by more than this part of the baseline's.",
        default="no limit",
        example="0.5",
    ),
    Rule(
        name="sided",
        field="sided",
        read=str,
        metavar="one|two",
        effect="Test for drops alone, or for drops and gains with half of alpha each.",
        default="one",
        example="two",
    ),
    Rule(
        name="undecided",
        field="undecided",
        read=str,
        metavar="warn|fail",
        effect="Whether a suite that is undecided warns or fails the run.",
        default="warn",
        example="fail",
    ),
)
