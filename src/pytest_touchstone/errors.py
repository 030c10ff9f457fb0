"""One tree of errors: every message says what is wrong, where, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TouchstoneError(Exception):
    """Base of every ordinary error that this package raises."""


class SettingsError(TouchstoneError):
    """An option, ini value or marker argument cannot be used as it stands."""


class GoldenError(TouchstoneError):
    """A golden source cannot be used; carries every fault that was found, not just the first.

    >>> fault = Fault(file="support.yaml", line=14, case_id="late", field="split", problem="is 'tset'", fix="use 'train' or 'holdout'")
    >>> print(GoldenError([fault]))
    support.yaml:14: case 'late': split: is 'tset'; use 'train' or 'holdout'
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Keep the faults; the message is one line for each."""
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong in a golden source: where, what, and how to fix it.

    `file` is shown as given; `line` counts from 1 and is None where the format has no lines.
    """

    file: str
    line: int | None = None
    case_id: str | None = None
    field: str | None = None
    problem: str
    fix: str

    def __str__(self) -> str:
        """Render as `file:line: case 'id': field: problem; fix`, leaving out what is not known."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        case = None if self.case_id is None else f"case {self.case_id!r}"
        return ": ".join(part for part in (place, case, self.field, f"{self.problem}; {self.fix}") if part)


class ScorerError(TouchstoneError):
    """A scorer was built or called in a way that cannot give a score."""


class ModelError(TouchstoneError):
    """A model cannot be asked before the user changes something: its SDK or key is missing, or the server does not know it."""


class JudgeError(TouchstoneError):
    """A judge cannot be asked at all: none is configured, or its SDK or key is missing."""


class RecordingError(TouchstoneError):
    """A recording file cannot be read or written as it stands."""


class BaselineError(TouchstoneError):
    """A baseline file cannot be used; carries every fault that was found, not just the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Keep the faults; the message is one line for each."""
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ExportError(TouchstoneError):
    """An export would be wrong, so nothing was written."""


class JobError(TouchstoneError):
    """A training job cannot be used; carries every fault that was found, not just the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Keep the faults; the message is one line for each."""
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class TrainingError(TouchstoneError):
    """A training run cannot start, or ended without a result."""


class StoreError(TouchstoneError):
    """The run store cannot be read or written as it stands, or does not know a run."""


class ImproveError(TouchstoneError):
    """A step of an improvement could not be done, so there is no verdict."""


class TrialTimeout(TouchstoneError):
    """A test body did not end within its time, so there is no verdict."""


class RecordingMiss(BaseException):
    """In replay mode a request has no recording.

    Derived from BaseException because provider SDKs wrap and retry ordinary exceptions, which would bury it.
    """


class BudgetSpent(BaseException):
    """A live model call may not begin: the run's budget is used up; BaseException for the reason of `RecordingMiss`."""


class NetworkBlocked(BaseException):
    """In replay mode something tried to connect beyond loopback; BaseException for the reason of `RecordingMiss`."""
