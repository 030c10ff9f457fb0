"""Holds the run to its gate: the second stage, and the decision at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_touchstone.gate import decide, suspicious
from pytest_touchstone.gate_early import EarlyStop
from pytest_touchstone.gate_text import told
from pytest_touchstone.plugin.baselines import BASELINES, Baselines
from pytest_touchstone.plugin.collect import nodeid_again, suite_of
from pytest_touchstone.plugin.excuses import is_held_against_baseline
from pytest_touchstone.plugin.gate_options import policy_of
from pytest_touchstone.plugin.stages import END_ID, TwoStages, further_records, further_trials
from pytest_touchstone.plugin.summary import write_lines
from pytest_touchstone.report.comparison import RESULT_STYLES
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.settings import ExitStatus
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from pytest_touchstone.gate import Decision, Evidence, Policy
    from pytest_touchstone.plugin.stopping import Stopping
    from pytest_touchstone.report.terminal import Style
    from pytest_touchstone.runs import GateWord
    from pytest_touchstone.settings import GateSettings
    from pytest_touchstone.trial import TrialRecord

# The statuses that a decision may take the place of: all is well, or trials failed, broke or were left out.
DECIDABLE = frozenset({pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, ExitStatus.ERRORS, ExitStatus.UNSCORED, ExitStatus.BUDGET})


class Accounts(Protocol):
    """The trials of the run, accounted for: what is planned and what came of it, by node id, and, by suite, what markers say of its gate.

    `behind` is what stands behind the case's id in node ids, by suite or, where that differs, by test; workers of pytest-xdist tell it.
    """

    planned: dict[str, TrialRecord]
    records: dict[str, TrialRecord]
    marked: dict[str, dict[str, Any]]
    behind: dict[str, str]

    def plan(self, trials: Iterable[TrialRecord]) -> None:
        """Account for further trials."""
        ...

    def not_run(self, item: pytest.Item) -> TrialRecord:
        """The record of a golden test of this process that has not run."""
        ...


class Gate:
    """Decides, in the controlling process, whether the run got worse than its baseline."""

    def __init__(self, config: pytest.Config, settings: GateSettings, *, accounts: Accounts, stopping: Stopping) -> None:
        """Decide nothing yet; `accounts` knows the trials of the run, and `stopping` is told which suites need no more of them."""
        self.config = config
        self.settings = settings
        self.accounts = accounts
        self.decision: Decision | None = None
        self._lines: list[Line] = []
        self._session: pytest.Session | None = None
        self._has_second_stage = bool(settings.stage2) and is_held_against_baseline(config, settings)
        self._stopping = stopping
        self._watch: EarlyStop | None = None
        self._early: dict[str, float] | None = {} if settings.stop_early and is_held_against_baseline(config, settings) else None
        self._makes_second = False
        self._again: tuple[str, ...] | None = None

    # Stopping early

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Stop a suite once it has shown that it regressed."""
        record = self.accounts.records.get(report.nodeid)
        if self._early is None or record is None or not hasattr(report, "touchstone"):
            return
        if self._watch is None:
            baseline, _ = self._sides()
            self._watch = EarlyStop(baseline, self.accounts.planned.values(), self._policies(baseline))
        e = self._watch.add(record)
        if e is not None:
            self._early[record.suite] = e
            self._stopping.stop(record.suite)

    # The second stage

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Know whom to tell of further trials."""
        self._session = session

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        """After the last test, have suites that may have regressed tried again."""
        result = yield
        if nextitem is None and self._again is None:
            session = item.session
            again = self._suspicious()
            more = list(further_trials([each for each in session.items if suite_of(each) in again], self.settings.stage2))
            self.accounts.plan(self.accounts.not_run(each) for each in more)
            session.items.extend(more)  # pytest's loop goes on with what it finds behind the last test
            session.testscollected += len(more)
        return result

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Generator[None, object, object]:  # noqa: ANN401 - xdist's Producer
        """Have two of whatever scheduler there is, one a stage."""
        scheduler = yield
        if not self._has_second_stage or self._makes_second:
            return scheduler

        def make() -> object:
            self._makes_second = True
            return config.hook.pytest_xdist_make_scheduler(config=config, log=log)

        return TwoStages(scheduler, make=make, further=self._further)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Take the end of the first stage off a worker's tests, before xdist counts and prints them."""
        if ids and ids[-1] == END_ID:
            ids.pop()

    def _further(self, collection: Sequence[str]) -> dict[int, str]:
        """Which of the further trials of a worker's tests are wanted (0 is the first of them all), and their node ids."""
        again, accounts = self._suspicious(), self.accounts
        trials = [accounts.planned[nodeid] for nodeid in collection if nodeid in accounts.planned]
        more = further_records(trials, self.settings.stage2, nodeid=self._nodeid_again)
        wanted = {place: trial for place, trial in enumerate(more) if trial.suite in again} if again else {}
        accounts.plan(trial for trial in wanted.values() if trial.nodeid not in accounts.planned)
        assert self._session is not None
        self._session.testscollected = len(collection) + len(wanted)
        return {place: trial.nodeid for place, trial in wanted.items()}

    def _second_stage_in_words(self, again: tuple[str, ...]) -> str:
        left = sum(record.outcome == "not_run" for record in self.accounts.records.values() if record.suite in again)
        but = f", but {left:,} of their trials did not run" if left else ""
        return f"second stage: every case of {', '.join(again)} was tried {self.settings.stage2} more times{but}"

    def _nodeid_again(self, trial: TrialRecord, number: int) -> str:
        behind = self.accounts.behind
        return nodeid_again(trial.nodeid, number, behind=behind.get(trial.nodeid, behind[trial.suite]))

    def _suspicious(self) -> tuple[str, ...]:
        """The suites that are tried again; decided once, when every trial of the first stage is in."""
        if self._again is None:
            session, self._again = self._session, ()
            if self._has_second_stage and session is not None and not (session.shouldstop or session.shouldfail):
                baseline, run = self._sides()
                found = suspicious(baseline, run, policies=self._policies(run))
                self._again = tuple(suite for suite in found if suite not in (self._early or {}))
        return self._again

    # The decision

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide, once every trial is in and every other plugin has said how the run ended."""
        if self.config.getoption("collectonly"):
            return
        status = session.exitstatus
        if self._again:
            self._say("", self._second_stage_in_words(self._again))
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
        self.decision = decide(baseline, run, policies=self._policies(run), early=self._early)
        for suite in self._early or ():
            outcomes = [record.outcome for record in self.accounts.records.values() if record.suite == suite]
            left = outcomes.count("not_run")
            self._say("", f"stopped early: {suite}: {left:,} of {len(outcomes):,} trials were not made, because it had regressed by then")
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
        return {suite: policy_of(self.settings, self.accounts.marked.get(suite, {})) for suite in suites}

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the decision, last of all."""
        if self._lines:
            terminalreporter.write_sep("=", "gate")
            write_lines(terminalreporter, self._lines)
