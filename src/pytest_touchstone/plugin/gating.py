"""Holds the run to its gate: the second stage, and the decision at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.gate import decide, suspicious
from pytest_touchstone.gate_text import told
from pytest_touchstone.plugin.baselines import BASELINES, Baselines
from pytest_touchstone.plugin.collect import again, case_of, number_of, suite_of
from pytest_touchstone.plugin.gate_options import policy_of
from pytest_touchstone.plugin.summary import write_lines
from pytest_touchstone.report.comparison import RESULT_STYLES
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.settings import ExitStatus
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from pytest_touchstone.gate import Decision, Evidence, Policy
    from pytest_touchstone.report.terminal import Style
    from pytest_touchstone.runs import GateWord
    from pytest_touchstone.settings import GateSettings

# The statuses that a decision may take the place of: all is well, or trials failed, broke or were left out.
DECIDABLE = frozenset({pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, ExitStatus.ERRORS, ExitStatus.UNSCORED, ExitStatus.BUDGET})


class Gate:
    """Decides, in the controlling process, whether the run got worse than its baseline."""

    def __init__(
        self,
        config: pytest.Config,
        settings: GateSettings,
        *,
        marked: Mapping[str, Mapping[str, Any]],
        plan: Callable[[Iterable[pytest.Item]], None],
    ) -> None:
        """Decide nothing yet; `marked` is what the markers of each suite say, known once tests run, and `plan` accounts for more trials."""
        self.config = config
        self.settings = settings
        self.marked = marked
        self.plan = plan
        self.decision: Decision | None = None
        self._lines: list[Line] = []
        self._second_stage_is_over = not settings.stage2

    # The second stage

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        """After the last test, have suites that may have regressed tried again."""
        result = yield
        session = item.session
        if nextitem is None and not self._second_stage_is_over and not (session.shouldstop or session.shouldfail):
            self._second_stage_is_over = True
            self._begin_second_stage(session)
        return result

    def _begin_second_stage(self, session: pytest.Session) -> None:
        baseline, run = self._sides()
        suites = suspicious(baseline, run, policies=self._policies(run))
        firsts = [item for item in session.items if suite_of(item) in suites and case_of(item) is not None and number_of(item) == 1]
        done = max((number_of(item) for item in session.items if case_of(item) is not None), default=1)
        # Each case once more, then each again, as in the first stage.
        more = [again(item, done + round_) for round_ in range(1, self.settings.stage2 + 1) for item in firsts]
        if not more:
            return
        self.plan(more)
        session.items.extend(more)  # pytest's loop goes on with what it finds behind the last test
        session.testscollected += len(more)
        self._say("", f"second stage: every case of {', '.join(suites)} was tried {self.settings.stage2} more times")

    # The decision

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide, once every trial is in and every other plugin has said how the run ended."""
        if self.config.getoption("collectonly"):
            return
        status = session.exitstatus
        if self.config.option.update_snapshots:
            self._say("", "the baseline was updated, so nothing is held against it")
        elif status in DECIDABLE:
            self._decide()
        else:
            self._say("yellow", "no decision, because the run did not end as it should")
        if self.decision is not None and self.decision.fails:
            if self.decision.result == "regressed":
                session.exitstatus = ExitStatus.REGRESSED
            elif status == pytest.ExitCode.OK:
                session.exitstatus = ExitStatus.UNDECIDED

    def word(self) -> GateWord:
        """What there is to say once the session has finished."""
        from pytest_touchstone.runs import GateWord

        return GateWord(result=self.decision.result if self.decision else None, lines=tuple(line.text for line in self._lines))

    def _decide(self) -> None:
        baseline, run = self._sides()
        for suite in sorted(run.keys() - baseline.keys()):
            self._say("yellow", f"{suite} has no baseline, so its failures fail the run; --snapshot-update accepts one")
        run = {suite: run.get(suite, {}) for suite in baseline}
        if not baseline:
            return
        self.decision = decide(baseline, run, policies=self._policies(run))
        for result, line in told(self.decision):
            self._say("" if result is None else RESULT_STYLES[result], line)

    def _say(self, style: Style, text: str) -> None:
        self._lines.append(Line(style, visible(text)))

    def _sides(self) -> tuple[dict[str, Mapping[str, Evidence]], dict[str, Mapping[str, Evidence]]]:
        baselines = self.config.pluginmanager.get_plugin(BASELINES)
        assert isinstance(baselines, Baselines)
        sides = baselines.sides()
        return {suite: side.baseline for suite, side in sides.items() if side.baseline}, {suite: side.run for suite, side in sides.items()}

    def _policies(self, suites: Iterable[str]) -> dict[str, Policy]:
        return {suite: policy_of(self.settings, self.marked.get(suite, {})) for suite in suites}

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the decision, last of all."""
        if self._lines:
            terminalreporter.write_sep("=", "gate")
            write_lines(terminalreporter, self._lines)
