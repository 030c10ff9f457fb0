"""Runs golden tests: gives each its trial, owns its model calls, and puts the finished record on its report.

Registered in every process that runs tests: pytest itself, or each pytest-xdist worker.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.errors import BudgetSpent, RecordingError, RecordingMiss
from pytest_touchstone.plugin.collect import GoldenCollector, behind_case, case_of, fingerprint, name_in_recordings, number_of, suite_of
from pytest_touchstone.plugin.gate_options import MARKER as GATE_MARKER
from pytest_touchstone.plugin.gate_options import marked_policy
from pytest_touchstone.plugin.outcome import make_skipped, outcome_of, reason_of
from pytest_touchstone.plugin.repeats import MARKER as REPEAT_MARKER
from pytest_touchstone.plugin.repeats import repeat_of
from pytest_touchstone.plugin.targets import Targets
from pytest_touchstone.plugin.tracebacks import error_repr, make_safe
from pytest_touchstone.plugin.window import WINDOW, Window
from pytest_touchstone.recording.recorder import Owner
from pytest_touchstone.report.terminal import Line, as_pairs, plain, trial_block
from pytest_touchstone.text import shorten, visible
from pytest_touchstone.trial import CheckFailed, Trial, TrialRecord, changed, current_role, raise_unless_passed, scorer_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pydantic import JsonValue

    from pytest_touchstone.cases import Case
    from pytest_touchstone.export.example import Example, LeftOut, Lesson
    from pytest_touchstone.recording.recorder import Recorder
    from pytest_touchstone.settings import Settings
    from pytest_touchstone.trial import Call, Outcome, Score, Scorer

MAX_OUTPUT = 100_000
MAX_INPUT = 200
HOOK_RAISED = "a pytest_llm_example hook raised"
# What scorers and pytest-timeout's alarm may raise while a teacher's answer is checked, and is no business of the trial.
_ENDED = (pytest.fail.Exception, pytest.skip.Exception)
CONVERSATION = ("prompt", "completion", "tools", "rejected")


@dataclass(kw_only=True)
class Running:
    """A golden test while it runs."""

    planned: TrialRecord
    trial: Trial
    owner: Owner
    refused: list[str]
    in_body: bool = False
    disowned: RecordingError | None = None
    failed_subtests: int = 0
    lesson: Lesson | None = None
    is_taught: bool = False
    record: TrialRecord | None = None


RUNNING = pytest.StashKey[Running]()
PLANNED = pytest.StashKey[TrialRecord]()
_set_up: contextvars.ContextVar[pytest.Item | None] = contextvars.ContextVar("touchstone_set_up", default=None)


def trial_of(item: pytest.Item) -> Trial | None:
    """The trial of the golden test that runs, None for any other test."""
    running = item.stash.get(RUNNING, None)
    return None if running is None else running.trial


def trial_of_setup() -> Trial | None:
    """The trial of the golden test whose fixtures are being set up, None while no golden test is."""
    item = _set_up.get()
    return None if item is None else trial_of(item)


def trial_of_subtest(item: pytest.Item) -> TrialRecord | None:
    """What is planned of the golden test whose subtest reports now, while its body goes on; None for any other report."""
    running = item.stash.get(RUNNING, None)
    return running.planned if running is not None and running.in_body else None


@contextlib.contextmanager
def without_trial(item: pytest.Item) -> Generator[None]:
    """Inside, the test is none of which a trial is reported."""
    running = item.stash[RUNNING]
    del item.stash[RUNNING]
    try:
        yield
    finally:
        item.stash[RUNNING] = running


class TrialRunner:
    """The hooks around golden tests."""

    def __init__(self, config: pytest.Config, settings: Settings, recorder: Recorder, collector: GoldenCollector) -> None:
        self.config = config
        self.collector = collector
        self.settings = settings
        self.recorder = recorder
        self.targets = Targets(settings, redact=recorder.redact)
        self.registry: Mapping[str, Scorer] = {}
        self.plan: dict[str, Any] | None = None

    def pytest_sessionstart(self) -> None:
        """Take over the network and collect the registered scorers, before any test module is imported."""
        self.registry = _registered_scorers(self.config)
        self.recorder.start()

    def pytest_unconfigure(self) -> None:
        """Give everything back."""
        self.recorder.stop()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which trials this run is to hold, so that none can go missing."""
        trials = [self.planned(item).to_dict() for item in session.items if case_of(item) is not None]
        alone = self._ran_alone(session.items) if self.config.get_verbosity() > 0 else []
        marked = self._marked(session.items)
        needed = self._needed(session.items)
        self.plan = {
            "trials": trials,
            "alone": alone,
            "holdout": self.collector.held_out(),
            "marked": marked,
            "needed": needed,
            "behind": self._behind(session.items),
            "corrections": self.targets.placed(self.collector),
        }

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Start a fresh trial; a rerun of the same test is another one."""
        case = case_of(item)
        if case is None:
            return (yield)
        item.stash[RUNNING] = self._start(item, case)
        token = _set_up.set(item)
        try:
            with self.owned(item):
                return (yield)
        finally:
            _set_up.reset(token)

    @pytest.hookimpl(specname="pytest_runtest_setup", tryfirst=True)
    def pytest_refuse_broken_recordings(self, item: pytest.Item) -> None:
        """Stop a trial whose recordings cannot be used; not in the wrapper above, since other plugins' wrappers must see their setup."""
        running = item.stash.get(RUNNING, None)
        if running is not None and running.disowned is not None:
            raise running.disowned

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Own what the body asks, where it runs here."""
        with self.owned(item):
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Own what function-scoped fixtures ask while they clean up."""
        with self.owned(item):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Keep the calls of fixtures that many tests share out of the trial that happens to come first."""
        starting = _set_up.get()
        if starting is None or fixturedef.scope == "function":
            return (yield)
        owner = Owner(module=starting.path, test=f"fixture:{fixturedef.argname}", trial=1, on_call=_ignore, on_miss=_ignore)
        with self.recorder.own(owner):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Hold the body to what its trial saw: a swallowed miss or a missing verdict is no pass."""
        running = pyfuncitem.stash.get(RUNNING, None)
        if running is None:
            return (yield)
        __tracebackhide__ = True
        running.in_body = True
        try:
            result = yield
        except (Exception, BaseExceptionGroup) as error:
            if running.refused:
                raise BudgetSpent(running.refused[0]) from error
            if running.trial.misses:
                raise RecordingMiss(running.trial.misses[0]) from error
            raise
        finally:
            running.in_body = False
        if running.refused:
            raise BudgetSpent(running.refused[0])
        if running.trial.misses:
            raise RecordingMiss(running.trial.misses[0])
        raise_unless_passed([score for score in running.trial.scores if score.passed is None])
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the finished trial on the report, and show a failure as the trial, not as a traceback through this plugin."""
        running = item.stash.get(RUNNING, None)
        if running is None:
            return (yield)
        error = None if call.excinfo is None else call.excinfo.value
        outcome = outcome_of(error)
        final = call.when == "call" and not running.in_body
        if final:
            running.record = self._finish(item, running, error, outcome, duration_s=call.duration)
            _set_properties(item, running.record)
        if final and isinstance(error, CheckFailed) and item.get_closest_marker("xfail") is None:
            # The trial says all there is to say, and pytest's own view of it, which --xfail-tb shows, takes long to make.
            with _without_traceback(item):
                report = yield
        else:
            report = yield
        report.sections = [(name, self._redact(text)) for name, text in report.sections]
        if report.failed and isinstance(error, BudgetSpent):
            make_skipped(report, item, self._redact(reason_of(error)))
        if report.failed and call.excinfo is not None and outcome == "error" and not self.config.getoption("fulltrace"):
            report.longrepr = error_repr(call.excinfo, self.config)
        if running.in_body:  # a subtest's own report, made while the body goes on
            running.failed_subtests += report.failed
            make_safe(report.longrepr, self._redact)
            return report
        if call.when == "setup" and not report.passed:
            running.record = self._finish(item, running, error, "error" if outcome != "not_run" else outcome)
            final = True
        if final and running.record is not None:
            self._attach(report, running.trial, running.record, error)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send what is planned with the first report: the controller of pytest-xdist collects nothing itself."""
        if self.plan is not None and hasattr(self.config, "workerinput"):
            report.touchstone_plan = self.take_plan()  # type: ignore[attr-defined]

    def take_plan(self) -> dict[str, Any] | None:
        """What is planned, once; None afterwards."""
        if self.plan is None:
            return None
        plan, self.plan = self.plan, None
        window = self.config.pluginmanager.get_plugin(WINDOW)
        return {**plan, "note": window.note if isinstance(window, Window) else ""}

    def _marked(self, items: Iterable[pytest.Item]) -> dict[str, dict[str, Any]]:
        """What the markers of each suite say of its gate."""
        firsts = {suite_of(item): item for item in items if case_of(item) is not None and item.get_closest_marker(GATE_MARKER)}
        return {suite: marked_policy(item, self.settings.gate) for suite, item in firsts.items()}

    def _needed(self, items: Iterable[pytest.Item]) -> dict[str, int]:
        """How many trials of each case have to pass, by suite, where that is not all of them."""
        firsts = {suite_of(item): item for item in items if case_of(item) is not None and item.get_closest_marker(REPEAT_MARKER)}
        repeats = {suite: repeat_of(item, self.settings.repeat) for suite, item in firsts.items()}
        return {suite: repeat.needed for suite, repeat in repeats.items() if repeat.needed < repeat.times}

    def _behind(self, items: Iterable[pytest.Item]) -> dict[str, str]:
        """What the controller of pytest-xdist needs to name further trials: by suite, and by test where that is not as in its suite."""
        behind: dict[str, str] = {}
        if self.settings.gate.stage2 and hasattr(self.config, "workerinput"):
            for item in items:
                if case_of(item) is None or number_of(item) != 1:
                    continue
                told = behind_case(item)
                if behind.setdefault(suite_of(item), told) != told:
                    behind[item.nodeid] = told
        return behind

    def _ran_alone(self, items: Iterable[pytest.Item]) -> list[list[Any]]:
        window = self.config.pluginmanager.get_plugin(WINDOW)
        return [list(each) for each in window.ran_alone(items)] if isinstance(window, Window) else []

    def _start(self, item: pytest.Item, case: Case) -> Running:
        trial = Trial(case, number=number_of(item), judge_settings=self.settings.judge, registry=self.registry, redact=self._redact)
        refused: list[str] = []
        owner = Owner(
            module=item.path,
            test=name_in_recordings(item),
            trial=trial.number,
            on_call=trial.add_call,
            on_miss=_unless_teaching(trial.misses.append),
            on_refused=_unless_teaching(refused.append),
        )
        return Running(planned=self.planned(item), trial=trial, owner=owner, refused=refused)

    def planned(self, item: pytest.Item) -> TrialRecord:
        """The record of a golden test that has not run."""
        if (known := item.stash.get(PLANNED, None)) is not None:
            return known
        case = case_of(item)
        assert case is not None
        item.stash[PLANNED] = planned = TrialRecord(
            nodeid=item.nodeid,
            suite=suite_of(item),
            case_id=case.id,
            source=case.source,
            content_hash=case.content_hash,
            split=case.split,
            tags=case.tags,
            must_pass=case.must_pass,
            quarantine="" if case.quarantine is None else case.quarantine.reason,
            number=number_of(item),
            outcome="not_run",
            input_fingerprint="" if self.settings.export is None else fingerprint(case),
            input=_in_a_line(case.input, self._redact),
        )
        return planned

    def owned(self, item: pytest.Item) -> AbstractContextManager[None]:
        """Inside, model calls belong to the item's trial."""
        running = item.stash.get(RUNNING, None)
        if running is not None and running.disowned is None:
            try:
                return self.recorder.own(running.owner)
            except RecordingError as error:
                running.disowned = error
        return contextlib.nullcontext()

    def _finish(
        self, item: pytest.Item, running: Running, error: BaseException | None, outcome: Outcome, *, duration_s: float | None = None
    ) -> TrialRecord:
        trial = running.trial
        if self.targets.teacher is not None:  # where the body did not run beside others, nobody has asked yet
            self.teach(item, error)
        self.recorder.settle(running.owner)
        reason = self._redact(reason_of(error))
        if outcome == "passed" and running.failed_subtests:
            outcome, reason = "failed", f"{running.failed_subtests} subtests failed"
        record = changed(
            self.planned(item),
            outcome=outcome,
            reason=reason,
            # Here, because only this process knows the keys that its clients have sent.
            output=_output_text(trial, self._redact),
            scores=tuple(map(self._without_secrets, trial.scores)),
            calls=tuple(_without_texts(call) for call in (*trial.calls, *trial.judge_calls, *trial.teacher_calls)),
            duration_s=duration_s,
        )
        return self._with_example(record, running) if self.settings.export is not None else record

    def teach(self, item: pytest.Item, error: BaseException | None) -> None:
        """Where the body of a train case failed and nobody has said what is right: ask the teacher, in the body's own thread."""
        running, teacher = item.stash[RUNNING], self.targets.teacher
        open_ = self._to_be_taught(item, running, error)
        if open_ is not None and teacher is not None:
            try:
                with self.owned(item):
                    running.lesson = teacher.teach(running.trial, error, open_, module=str(item.path))
            except _ENDED as stop:
                running.lesson = teacher.stopped(stop)

    async def ateach(self, item: pytest.Item, error: BaseException | None) -> None:
        """As `teach`, on the loop of the body."""
        running, teacher = item.stash[RUNNING], self.targets.teacher
        open_ = self._to_be_taught(item, running, error)
        if open_ is not None and teacher is not None:
            try:
                with self.owned(item):
                    running.lesson = await teacher.ateach(running.trial, error, open_, module=str(item.path))
            except _ENDED as stop:
                running.lesson = teacher.stopped(stop)

    def _to_be_taught(self, item: pytest.Item, running: Running, error: BaseException | None) -> Example | None:
        if running.is_taught or error is None or outcome_of(error) != "failed" or running.refused or running.disowned is not None:
            return None
        running.is_taught = True
        return self.targets.to_be_taught(running.trial, suite_of(item))

    def _with_example(self, record: TrialRecord, running: Running) -> TrialRecord:
        from pytest_touchstone.export.example import LeftOut

        trial, lesson = running.trial, running.lesson
        *earlier, last = self.targets.offers_of(trial, record.outcome, suite=record.suite, lesson=lesson)
        uncorrected: Mapping[str, Any] | None = None
        if isinstance(last, LeftOut):
            uncorrected = self.targets.uncorrected(trial, last, suite=record.suite, why=record.reason, lesson=lesson)
        return changed(
            record,
            **self._offered(last, trial),
            uncorrected=uncorrected,
            earlier_examples=tuple({"call": number, **self._offered(offer, trial)} for number, offer in enumerate(earlier, 1)),
        )

    def _offered(self, offer: Example | LeftOut, trial: Trial) -> dict[str, Any]:
        from pytest_touchstone.export.example import LeftOut

        if isinstance(offer, LeftOut):
            return {"example": None, "example_reason": offer.reason}
        offered = offer.to_dict()
        example: dict[str, Any] = {name: offered[name] for name in CONVERSATION}
        try:
            kept = self.config.hook.pytest_llm_example(example=example, trial=trial)
        except Exception as error:  # noqa: BLE001 - a hook's mistake stops the export, which names it, not the session
            return {"example": None, "example_reason": f"{HOOK_RAISED} {type(error).__name__}: {error}"}
        if any(answer is False for answer in kept):
            return {"example": None, "example_reason": "dropped by a pytest_llm_example hook"}
        # The hook gets the conversation only, so that it cannot turn one case's example into another's.
        return {"example": {**offered, **{name: example.get(name) for name in CONVERSATION}}, "example_reason": ""}

    def _attach(self, report: pytest.TestReport, trial: Trial, record: TrialRecord, error: BaseException | None) -> None:
        data: dict[str, Any] = {"record": record.to_dict()}
        if report.failed:
            make_safe(report.longrepr, self._redact)
            block = [Line(style, self._redact(text)) for style, text in trial_block(trial, full=self.config.get_verbosity() > 1)]
            if isinstance(error, CheckFailed):
                report.longrepr = plain(block)
            data["block"] = as_pairs(block)
            data["crash"] = [str(report.location[0]), (report.location[1] or 0) + 1, record.reason or record.outcome]
        if hasattr(report, "wasxfail"):
            data["expected"] = True
        report.touchstone = data  # type: ignore[attr-defined]

    def _without_secrets(self, score: Score) -> Score:
        reason = self._redact(score.reason)
        return score if reason == score.reason else dataclasses.replace(score, reason=reason)

    def _redact(self, text: str) -> str:
        return self.recorder.redact(text)


@contextlib.contextmanager
def _without_traceback(item: pytest.Item) -> Generator[None]:
    item.repr_failure = lambda excinfo, style=None: ""  # type: ignore[method-assign] # noqa: ARG005 - as the method
    try:
        yield
    finally:
        del item.repr_failure


def _without_texts(call: Call) -> Call:
    return changed(call, messages=(), tools=(), answer=None)


def _in_a_line(value: JsonValue, redact: Callable[[str], str]) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(redact(text), MAX_INPUT)


def _output_text(trial: Trial, redact: Callable[[str], str]) -> str | None:
    if not trial.has_output:
        return None
    if isinstance(trial.output, str):
        text = trial.output
    else:
        try:
            text = json.dumps(trial.output, ensure_ascii=False, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            text = repr(trial.output)
    return redact(text)[:MAX_OUTPUT].encode("utf-8", "backslashreplace").decode()  # a key that is cut in two would not be known any more


def _set_properties(item: pytest.Item, record: TrialRecord) -> None:
    own = [("llm_outcome", record.outcome), ("llm_case", record.case_id), ("llm_split", record.split)]
    if record.reason:
        own.append(("llm_reason", record.reason))
    for score in record.scores:
        value = "unscored" if score.value is None else f"{score.value:g}"
        own.append((f"llm_score:{visible(score.name)}", value))
    others = [pair for pair in item.user_properties if not str(pair[0]).startswith("llm_")]
    item.user_properties[:] = [*others, *((name, visible(value)) for name, value in own)]


def _registered_scorers(config: pytest.Config) -> dict[str, Scorer]:
    registry: dict[str, Scorer] = {}
    for scorers in config.hook.pytest_llm_scorers():
        for scorer in scorers:
            name = scorer_name(scorer)
            if registry.setdefault(name, scorer) is not scorer:
                msg = f"two hooks pytest_llm_scorers register a scorer named {name!r}; rename one with @scorer(name=...)"
                raise pytest.UsageError(msg)
    return registry


def _unless_teaching(note: Callable[[str], None]) -> Callable[[str], None]:
    """What a teacher lacks is no fault of the trial."""
    return lambda said: None if current_role() == "teacher" else note(said)


def _ignore(_: object) -> None:
    return None
