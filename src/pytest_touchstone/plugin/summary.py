"""pytest's own summary of failures, made fit for thousands of cases: linear in their number, and folded where a suite has many.

pytest has no hooks inside its summary, so methods of the one terminal reporter are stood in for while it prints. Where another plugin
brings its own reporter, or pytest's methods have changed, nothing is touched, and the summary is as it would be without this plugin.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.report.terminal import Failure, Line, further_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

TEARDOWN_REPORTS = "_get_teardown_reports"


def write_lines(tw: Any, lines: Iterable[Line]) -> None:  # noqa: ANN401 - a pytest TerminalWriter or TerminalReporter
    """Write styled lines to pytest's terminal."""
    for style, text in lines:
        markup = "light" if style == "dim" else style
        tw.line(text, **({markup: True} if markup else {}))


def write_further(reporter: pytest.TerminalReporter, further: Mapping[str, Sequence[Failure]]) -> None:
    """Print one line for each further failure."""
    width = reporter._tw.fullwidth  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the width has no public name
    write_lines(reporter, further_failures(further, width=width))


def shown_and_further(reports: Iterable[Any], limit: int | None) -> tuple[list[Any], dict[str, list[Failure]]]:
    """The reports to print in full, and by suite those beyond its first `limit` (None: no limit); tests that are not golden are printed."""
    shown: list[Any] = []
    further: defaultdict[str, list[Failure]] = defaultdict(list)
    taken: defaultdict[str, int] = defaultdict(int)
    for report in reports:
        data: dict[str, Any] | None = getattr(report, "touchstone", None)
        if data is None or limit is None:
            shown.append(report)
            continue
        record = data["record"]
        suite = record["suite"]
        if taken[suite] < limit:
            taken[suite] += 1
            shown.append(report)
        else:
            further[suite].append(Failure(nodeid=report.nodeid, case_id=record["case_id"], reason=record["reason"]))
    return shown, dict(further)


class LeanSummary:
    """Stands in for methods of pytest's terminal reporter while it prints its summary."""

    def __init__(self, reporter: pytest.TerminalReporter, *, limit: int | None) -> None:
        """`limit` is how many failures of a suite are printed in full, None for all."""
        self.reporter = reporter
        self.limit = limit
        self._teardowns: dict[str, list[Any]] = {}
        self._indexed = -1

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """Do so inside the block; everything is as before after it."""
        stand_ins: dict[str, Callable[..., Any]] = {}
        if self._is_pytests_own(TEARDOWN_REPORTS, 2):
            stand_ins[TEARDOWN_REPORTS] = self._teardown_reports
        for method, category in (("summary_failures", "failed"), ("summary_errors", "error")):
            if self._is_pytests_own(method, 1):
                stand_ins[method] = self._folding(getattr(self.reporter, method), category)
        own = vars(self.reporter)
        own.update(stand_ins)
        try:
            yield
        finally:
            for method in stand_ins:
                own.pop(method, None)

    def _is_pytests_own(self, method: str, parameters: int) -> bool:
        original = getattr(pytest.TerminalReporter, method, None)
        return (
            isinstance(original, FunctionType)
            and len(inspect.signature(original).parameters) == parameters
            and getattr(type(self.reporter), method, None) is original
            and method not in vars(self.reporter)
        )

    def _teardown_reports(self, node_id: object) -> list[Any]:
        # pytest asks once for every failure and looks through all reports of the run each time.
        others = self.reporter.stats.get("", [])
        if len(others) != self._indexed:
            index: defaultdict[str, list[Any]] = defaultdict(list)
            for report in self.reporter.getreports(""):
                if getattr(report, "when", None) == "teardown":
                    index[report.nodeid].append(report)
            self._teardowns, self._indexed = dict(index), len(others)
        return self._teardowns.get(str(node_id), [])

    def _folding(self, original: Callable[[], None], category: str) -> Callable[[], None]:
        def folded() -> None:
            stats = self.reporter.stats
            reports = stats.get(category)
            shown, further = shown_and_further(reports or (), self.limit)
            if not further or self.reporter.config.option.tbstyle == "no":
                original()
                return
            assert reports is not None
            stats[category] = shown
            try:
                original()
            finally:
                stats[category] = reports
            write_further(self.reporter, further)

        return folded
