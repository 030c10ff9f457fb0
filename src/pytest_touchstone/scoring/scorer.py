"""The `scorer` decorator, and what the scorers of this folder have in common."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from pytest_touchstone import trial as trials
from pytest_touchstone.errors import ScorerError
from pytest_touchstone.trial import Score, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class NamedScorer(Protocol):
    """What every factory of this package returns: a frozen value with a name that scores a trial."""

    @property
    def name(self) -> str:
        """The name its scores carry."""
        ...

    def __call__(self, trial: Trial, /) -> Score:
        """Score the trial."""
        ...


def passed(name: str, reason: str = "") -> Score:
    """A score of 1.0."""
    return Score(name=name, value=1.0, passed=True, reason=reason)


def failed(name: str, reason: str) -> Score:
    """A score of 0.0 and why."""
    return Score(name=name, value=0.0, passed=False, reason=reason)


@overload
def scorer(
    function: Callable[P, R], /, *, name: str | None = None, threshold: float | None = None, asks_model: bool = False
) -> Callable[P, R]: ...
@overload
def scorer(
    *, name: str | None = None, threshold: float | None = None, asks_model: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def scorer(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, threshold: float | None = None, asks_model: bool = False
) -> Callable[..., Any]:
    """Name a callable `(trial) -> bool | float | Score`, sync or async, so that its scores can be told apart.

    What comes back is called as the original is; the original is left as it was. It works on functions, methods, partials and
    objects with `__call__`. `name` defaults to the callable's own name; where it is given, a `Score` that the callable returns
    carries it too. A returned number passes from `threshold` on (0 to 1; 0.5 where it is None). `asks_model=True` says that it
    waits for a model: `check` then runs it beside the other scorers that wait.

    Raises:
        ScorerError: what is decorated cannot be called, the name is empty, or the threshold is not a number from 0 to 1.

    >>> @scorer(name="politeness", threshold=0.8)
    ... def polite(trial: Trial) -> float:
    ...     return 1.0 if "please" in trial.output else 0.0
    >>> polite.name, polite.threshold
    ('politeness', 0.8)
    """
    if function is None:
        return functools.partial(scorer, name=name, threshold=threshold, asks_model=asks_model)
    if not callable(function):
        msg = f"@scorer got {type(function).__name__}; decorate a callable `(trial) -> bool | float | Score`"
        raise ScorerError(msg)
    if name is not None:
        _check_name(name)
    if threshold is not None:
        threshold = _checked_threshold(threshold)
    return _wrap(function, name, threshold, asks_model=asks_model)


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and name.strip()):
        msg = f"@scorer: name is {name!r}; give a text that is not empty, or leave it out"
        raise ScorerError(msg)


def _checked_threshold(threshold: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not (math.isfinite(threshold) and 0 <= threshold <= 1):
        msg = f"@scorer: threshold is {threshold!r}; give a number from 0 to 1"
        raise ScorerError(msg)
    return float(threshold)


def _wrap(function: Callable[..., Any], name: str | None, threshold: float | None, *, asks_model: bool) -> Callable[..., Any]:
    def renamed(result: object) -> object:
        return dataclasses.replace(result, name=name) if name is not None and isinstance(result, Score) else result

    def awaiting(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wrapped)
        async def call(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - passed through
            return renamed(await wrapped(*args, **kwargs))

        return call

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - passed through
        return renamed(function(*args, **kwargs))

    wrapper = cast("Any", awaiting(function) if trials.is_async(function) else call)
    wrapper.name = name if name is not None else trials.scorer_name(function)
    wrapper.asks_model = asks_model or trials.asks_model(function)
    if threshold is not None:
        wrapper.threshold = threshold
    if (ascore := getattr(function, "ascore", None)) is not None:
        wrapper.ascore = awaiting(ascore)
    return cast("Callable[..., Any]", wrapper)
