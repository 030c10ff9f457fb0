"""The hard limit on what one run may ask of models, shared by all its processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from pytest_touchstone.errors import BudgetSpent
from pytest_touchstone.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

PREFIX = "budget-"
STALE_S = 7 * 24 * 3600.0
# One size for every state, so that a state replaces the last one in a single write.
RECORD_BYTES = 2048
MAX_NAME = 100
MAX_REASON = 140


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run has used so far: model calls begun, their known cost in US dollars, and why a cost is not known (empty where all are)."""

    calls: int = 0
    cost_usd: float = 0.0
    unpriced: str = ""


class Ledger(Protocol):
    """Where the state is kept; `change` is one step that nobody else can come between, and returns the new state."""

    def change(self, step: Callable[[Spent], Spent]) -> Spent: ...  # noqa: D102 - told by the class


class MemoryLedger:
    """The state of a run in one process."""

    def __init__(self) -> None:
        """Nothing is spent yet."""
        self._lock = threading.Lock()
        self._spent = Spent()

    def change(self, step: Callable[[Spent], Spent]) -> Spent:
        """As `Ledger` says."""
        with self._lock:
            self._spent = step(self._spent)
            return self._spent


class FileLedger:
    """The state of a run in several processes: a small file, changed under its lock."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def change(self, step: Callable[[Spent], Spent]) -> Spent:
        """As `Ledger` says.

        Raises:
            OSError: the file cannot be read or written.
            ValueError: it does not hold what this class writes.
        """
        with self._locked() as descriptor:
            before = _decode(os.pread(descriptor, RECORD_BYTES + 1, 0))
            after = step(before)
            if after != before:
                os.pwrite(descriptor, _encode(after), 0)
            return after

    def close(self) -> None:
        """Let the file go; the next change opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    @contextlib.contextmanager
    def _locked(self) -> Generator[int]:
        # The file's lock is that of the process, so threads need one of their own.
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield self._descriptor
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def new_ledger_file(folder: Path, *, now: Callable[[], float] = time.time) -> Path:
    """Make the file that the processes of one run share, and remove those that killed runs left more than a week ago.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{PREFIX}*.json"):
        with contextlib.suppress(OSError):
            if old.stat().st_mtime < now() - STALE_S:
                old.unlink()
    descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix=".json", dir=folder)
    try:
        os.write(descriptor, _encode(Spent()))
    finally:
        os.close(descriptor)
    return folder / os.path.basename(name)  # noqa: PTH119 - mkstemp gives text, and `folder` may be relative


def _encode(spent: Spent) -> bytes:
    text = json.dumps({"calls": spent.calls, "cost_usd": spent.cost_usd, "unpriced": spent.unpriced})
    return text.encode().ljust(RECORD_BYTES - 1) + b"\n"


def _decode(data: bytes) -> Spent:
    fields: Any = json.loads(data) if len(data) == RECORD_BYTES else None
    if not isinstance(fields, dict):
        msg = "it does not hold a budget"
        raise ValueError(msg)  # noqa: TRY004 - what is in a file is a value
    fields = cast("dict[str, Any]", fields)
    try:
        return Spent(calls=int(fields["calls"]), cost_usd=float(fields["cost_usd"]), unpriced=str(fields["unpriced"]))
    except (KeyError, TypeError, ValueError):
        msg = "it does not hold a budget"
        raise ValueError(msg) from None


class Budget:
    """How many live model calls a run may begin, and what they may cost.

    `max_calls` is exact: no further call leaves the machine, whichever process asks. What a call cost is known only when it is answered,
    so `max_cost_usd` (US dollars) is overshot by at most what is on its way when it is reached. None: no limit.
    """

    def __init__(self, *, max_calls: int | None = None, max_cost_usd: float | None = None, ledger: Ledger | None = None) -> None:
        """Nothing is begun yet."""
        self._max_calls = max_calls
        self._max_cost_usd = max_cost_usd
        self._ledger: Ledger = ledger or MemoryLedger()
        self._final: str | None = None

    @property
    def spent(self) -> str | None:
        """Why no further call may begin, None while one may.

        >>> budget = Budget(max_calls=1)
        >>> budget.begin()
        >>> budget.spent
        'the budget of 1 call is spent'
        """
        return self._final or self._change(lambda spent: spent)

    def begin(self) -> None:
        """Count a call that is about to leave.

        Raises:
            BudgetSpent: it may not.
        """
        counted = False

        def count(spent: Spent) -> Spent:
            nonlocal counted
            counted = self._why_not(spent) is None
            return replace(spent, calls=spent.calls + 1) if counted else spent

        why = self._final or self._change(count)
        if not counted:
            raise BudgetSpent(why)

    def settle(self, cost_usd: float | None, *, model: str, host: str, reason: str) -> None:
        """Add what a call cost in US dollars; with None and a limit on the cost, the budget is spent from now on, and says `reason`."""
        if self._max_cost_usd is None:
            return
        if cost_usd is not None:
            self._change(lambda spent: replace(spent, cost_usd=spent.cost_usd + cost_usd))
            return
        named = visible(model)[:MAX_NAME] or "a model without a name"
        why = f"the cost of a call to {named} at {visible(host)[:MAX_NAME]} is not known ({visible(reason)[:MAX_REASON]})"
        self._change(lambda spent: spent if spent.unpriced else replace(spent, unpriced=why))

    def _change(self, step: Callable[[Spent], Spent]) -> str | None:
        try:
            why = self._why_not(self._ledger.change(step))
        except (OSError, ValueError) as error:
            why = f"the budget cannot be counted: {visible(str(error))}"
        # What is spent stays spent, so that a thread that saw an earlier state must not take it back.
        if why is not None:
            self._final = why
        return why

    def _why_not(self, spent: Spent) -> str | None:
        if self._max_calls is not None and spent.calls >= self._max_calls:
            return f"the budget of {counted(self._max_calls, 'call')} is spent"
        if self._max_cost_usd is None:
            return None
        if spent.unpriced:
            return f"{spent.unpriced}, so --llm-max-cost cannot be held; use --llm-max-calls"
        return f"the budget of {_dollars(self._max_cost_usd)} is spent" if spent.cost_usd >= self._max_cost_usd else None


def _dollars(usd: float) -> str:
    """An amount of US dollars, in cents where it is a whole number of them.

    >>> _dollars(1250), _dollars(0.005)
    ('$1,250.00', '$0.005')
    """
    return f"${usd:,.2f}" if round(usd, 2) == usd else f"${usd:g}"
