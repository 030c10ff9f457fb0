"""The plan: one training run that is about to start, and what a backend has to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.train.data import TrainingData
    from pytest_touchstone.train.job import Job
    from pytest_touchstone.train.watch import Watch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, on what, to where.

    `job` is resolved; `output` is absolute; `python` is the interpreter of the process that trains. `resume` continues a run that
    was interrupted: its folder holds the same job.
    """

    job: Job
    data: TrainingData
    output: Path
    python: str
    resume: bool = False


class Backend(Protocol):
    """What trains. `touchstone train` asks for the problems first, and trains only where there are none."""

    def problems(self, plan: Plan) -> Sequence[str]:
        """Everything that keeps the run from starting, each with how to fix it; costs no training and no money."""
        ...

    def command(self, plan: Plan) -> Sequence[str]:
        """What would be run or asked, in lines for a person to read: `--dry-run`."""
        ...

    def train(self, plan: Plan, watch: Watch) -> Mapping[str, Any]:
        """Train to the end, tell `watch` on the way, and return what `result.json` shall hold beside what is known before.

        A backend that makes an adapter writes it into `plan.output / "adapter"` and returns `{"adapter": "adapter"}`; one whose
        provider keeps the model returns `{"model": NAME}`.

        Raises:
            TrainingError: there is no result; says why and what to do.
            KeyboardInterrupt: the user stopped it; what can be resumed is left behind, and nothing runs on.
        """
        ...
