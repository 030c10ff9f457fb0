"""The fixture `llm_snapshot`: an output passes where it equals the stored one, or where scorers say that it is as good.

What is stored are snapshots of syrupy's own, in its own files: it counts, updates, finds unused and deletes them as any others.
"""

from __future__ import annotations

import functools
import inspect
import json
from typing import TYPE_CHECKING, Any

from syrupy.assertion import SnapshotAssertion
from syrupy.exceptions import SnapshotDoesNotExist, TaintedSnapshotError
from syrupy.extensions.amber import AmberSnapshotExtension
from syrupy.location import PyTestLocation

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.plugin.collect import name_in_recordings
from pytest_touchstone.plugin.session import RUNNER
from pytest_touchstone.plugin.trials import TrialRunner
from pytest_touchstone.text import quote, visible
from pytest_touchstone.trial import Score, Trial, as_score, asks_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import pytest

    from pytest_touchstone.trial import Scorer

NAME = "llm_snapshot"
EDGE = "| "


class TextExtension(AmberSnapshotExtension):
    """Amber files with the text itself, each line behind a bar, so that it can be read back and shown to a judge."""

    def serialize(self, data: Any, **_: object) -> str:  # noqa: ANN401 - as syrupy's
        """The lines, each behind a bar: even an empty text has one."""
        return "\n".join(f"{EDGE}{line}" if line else EDGE.rstrip() for line in str(data).split("\n"))


def stored_text(data: str) -> str:
    r"""The text that `TextExtension` stored.

    >>> stored_text(TextExtension().serialize("one\n\ntwo"))
    'one\n\ntwo'
    """
    return "\n".join(line[len(EDGE) :] for line in data.split("\n"))


class LlmSnapshot:
    """What the fixture gives: call it with the output and any number of scorers, or await `acheck` in an async body.

    Each call in a body has a snapshot of its own, numbered in the order of the calls or called by its `name`; the trials of a case share
    them, and `--snapshot-update` stores those of the first one. With scorers, an output that differs from the stored one passes where all
    of them pass; they find the stored one as `reference` and `expected`.
    """

    def __init__(self, assertion: Callable[[], SnapshotAssertion], trial: Trial, redact: Callable[[str], str]) -> None:
        """Read nothing yet; `assertion` makes one of the test for each call."""
        self._new_assertion = assertion
        self._trial = trial
        self._redact = redact
        self._count = 0
        self._names: set[str] = set()

    def __call__(self, output: object, *scorers: Scorer | str, name: str | None = None) -> None:
        """Hold the output against the stored one.

        Raises:
            CheckFailed: nothing is stored yet, or it differs, and there is no scorer, or one did not pass.
            Unscored: it differs, and a scorer gave no verdict.
            ScorerError: the output is neither text nor a JSON value, or a scorer is async: use `acheck`.
        """
        __tracebackhide__ = True
        held = self._hold(output, scorers, name)
        try:
            self._trial.check(*held.scorers)
        finally:
            held.settle()

    async def acheck(self, output: object, *scorers: Scorer | str, name: str | None = None) -> None:
        """As a call, for async bodies: scorers that wait do not block the loop."""
        __tracebackhide__ = True
        held = self._hold(output, scorers, name)
        try:
            await self._trial.acheck(*held.scorers)
        finally:
            held.settle()

    def keep(self) -> None:
        """Have syrupy call none of this test's snapshots unused: the body ended before it came to them."""
        assertion = self._new_assertion()
        extension, test = assertion.extension, assertion.test_location
        first = extension.get_snapshot_name(test_location=test)
        for stored in extension.read_snapshot_collection(snapshot_location=extension.get_location(test_location=test, index=0)):
            name = stored.name.removeprefix(first)[1:-1]
            if stored.name in {first, f"{first}[{name}]"} and name not in self._names:
                kept = self._new_assertion()(name=name or None)
                kept.__eq__(self._stored(kept))

    def _hold(self, output: object, scorers: Sequence[Scorer | str], name: str | None) -> _Held:
        if name is None:
            self._count += 1
            name = str(self._count) if self._count > 1 else ""
        self._names.add(name)
        assertion = self._new_assertion()(name=name or None)
        text, stored = self._shown(output), self._stored(assertion)
        if assertion.update_snapshots or (assertion.update_new_snapshots_only and stored is None):
            kept = text if self._trial.number == 1 else stored
            return _Held(assertion, [_AsGood(self._shown, text, output)], kept=kept)
        named: list[Scorer | None] = []
        if stored is not None and stored != text:
            named += self._trial._named(scorers)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as a check finds them
        return _Held(assertion, [_AsGood(self._shown, stored, output, scorer) for scorer in named or [None]], kept=stored, got=text)

    def _shown(self, output: object) -> str:
        if isinstance(output, str):
            text = output.replace("\r\n", "\n")
        else:
            try:
                text = json.dumps(output, ensure_ascii=False, sort_keys=True, indent=2)
            except (TypeError, ValueError, RecursionError) as error:
                msg = f"llm_snapshot got {type(output).__name__}, which is neither text nor a JSON value ({error}); give it one of those"
                raise ScorerError(msg) from None
        return visible(self._redact(text))

    def _stored(self, assertion: SnapshotAssertion) -> str | None:
        try:
            data = assertion.session.recall_snapshot(assertion.extension, assertion.test_location, assertion.index)
        except (SnapshotDoesNotExist, TaintedSnapshotError):
            return None
        return stored_text(str(data))


class _Held:
    """One call: the scorers that decide it, and how syrupy is told."""

    def __init__(self, assertion: SnapshotAssertion, scorers: Sequence[_AsGood], *, kept: str | None, got: str | None = None) -> None:
        self.scorers = scorers
        self._assertion = assertion
        self._kept = kept
        self._got = got

    def settle(self) -> None:
        """Have syrupy count it, and store it where it is to be stored."""
        told = self._kept if all(scorer.passed for scorer in self.scorers) else self._got
        if told is not None:
            self._assertion.__eq__(told)


class _AsGood:
    """A scorer: whether an output equals the stored one, or `inner` says that it is as good."""

    name = NAME

    def __init__(self, shown: Callable[[object], str], stored: str | None, output: object, inner: Scorer | None = None) -> None:
        self.passed = False
        self.asks_model = inner is not None and asks_model(inner)
        self._shown = shown
        self._stored = stored
        self._output = output
        self._inner = inner
        if (ascore := getattr(inner, "ascore", None)) is not None:
            self.ascore: Callable[[Trial], Awaitable[Score]] = lambda trial: self._awaited(ascore(self._beside_stored(trial)))

    def __call__(self, trial: Trial) -> Score | Awaitable[Score]:
        if self._inner is None:
            return self._noted(self._compared())
        result = self._inner(self._beside_stored(trial))
        return self._awaited(result) if inspect.isawaitable(result) else self._noted(as_score(self._inner, result))

    def _compared(self) -> Score:
        text = self._shown(self._output)
        if text == self._stored:
            return Score(name=NAME, value=1.0, passed=True, reason="equals the snapshot")
        if self._stored is None:
            return Score(name=NAME, value=0.0, passed=False, reason="there is no snapshot yet; --snapshot-update stores one")
        reason = f"{quote(text)} is not what the snapshot holds: {quote(self._stored)}; --snapshot-update accepts it"
        return Score(name=NAME, value=0.0, passed=False, reason=reason)

    async def _awaited(self, result: Awaitable[Any]) -> Score:
        assert self._inner is not None
        return self._noted(as_score(self._inner, await result))

    def _noted(self, score: Score) -> Score:
        self.passed = score.passed is True
        return score

    def _beside_stored(self, trial: Trial) -> Trial:
        assert self._stored is not None
        expected = self._stored if isinstance(self._output, str) else json.loads(self._stored)
        beside = trial.fresh(trial.case.model_copy(update={"reference": self._stored, "expected": expected}))
        beside.calls = trial.calls
        beside.output = self._output
        return beside


class _SharedNode:
    """What syrupy asks of a test, under the name that all trials of its case share."""

    def __init__(self, item: pytest.Function) -> None:
        classes = item.nodeid.removesuffix(item.name)
        self.path = item.path
        self.obj = item.obj
        self.stash = item.stash
        self.name = name_in_recordings(item).removeprefix(classes.partition("::")[2])
        self.nodeid = f"{classes}{self.name}"


def llm_snapshot_of(item: pytest.Function, trial: Trial) -> LlmSnapshot:
    """The fixture's value for one trial."""
    config: Any = item.config
    node: Any = _SharedNode(item)
    runner = config.pluginmanager.get_plugin(RUNNER)
    assert isinstance(runner, TrialRunner)
    assertion = functools.partial(
        SnapshotAssertion,
        session=config._syrupy,  # noqa: SLF001 - where syrupy keeps it
        extension_class=TextExtension,
        test_location=PyTestLocation(node),
        update_snapshots=config.option.update_snapshots,
        update_new_snapshots_only=config.option.update_new_snapshots_only,
    )
    return LlmSnapshot(assertion, trial, runner.recorder.redact)
