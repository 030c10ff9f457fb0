"""How often each case of a golden test is tried, and how many of its trials have to pass: the marker `llm_repeat`."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_touchstone.trial import TrialRecord

MARKER = "llm_repeat"


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Each case is tried `times` times (>= 1), and passes if at least `needed` of its trials do (1 to `times`)."""

    times: int
    needed: int


def repeat_of(item: pytest.Item, given: int | None) -> Repeat:
    """What holds for a golden test: `given` is the command line's number of trials, which beats the marker's; None: not given.

    Raises:
        pytest.Collector.CollectError: the marker cannot be meant.
    """
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        return Repeat(times=given or 1, needed=given or 1)
    times, require = _meant(marker, item)
    if require in {"all", "any"}:
        return Repeat(times=given or times, needed=1 if require == "any" else given or times)
    return Repeat(times=given or times, needed=min(require, given or times))


def missed(records: Iterable[TrialRecord], needed: Mapping[str, int]) -> Iterator[str]:
    """What is to be said of each case of which too few trials passed; `needed` is by suite.

    A case of which enough could have passed, had all its trials a verdict, is not judged: errors and the like speak for themselves.
    """
    cases: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        if record.suite in needed:
            cases[record.suite, record.case_id][record.outcome] += 1
    for (suite, case_id), outcomes in cases.items():
        possible = outcomes.total() - outcomes["failed"]
        if possible < needed[suite]:
            yield visible(f"{suite} {case_id}: {outcomes['passed']} of {outcomes.total()} trials passed, {needed[suite]} needed")


def _meant(marker: pytest.Mark, item: pytest.Item) -> tuple[int, Any]:
    given = {**dict(zip(("n",), marker.args, strict=False)), **marker.kwargs}
    times: Any = given.get("n")
    require: Any = given.get("require", "all")
    if len(marker.args) > 1 or set(given) - {"n", "require"} or not _is_count(times):
        problem = "takes the number of trials and what is required of them: llm_repeat(5), llm_repeat(5, require=3)"
    elif require not in {"all", "any"} and not (_is_count(require) and require <= times):
        problem = f"requires {require!r}; give 'all', 'any', or how many of the {times} trials have to pass"
    else:
        return times, require
    msg = f"{item.nodeid}: llm_repeat() {problem}"
    raise pytest.Collector.CollectError(msg)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
