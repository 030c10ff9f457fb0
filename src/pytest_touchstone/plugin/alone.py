"""Which golden tests may run beside others, and which run alone, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Fixtures that change, or listen to, the whole process: what they do would reach the tests beside theirs.
PROCESS_GLOBAL = frozenset(
    {
        *("monkeypatch", "capsys", "capsysbinary", "capfd", "capfdbinary", "capteesys", "caplog", "recwarn", "subtests"),
        *("pytester", "testdir"),
        *("mocker", "class_mocker", "module_mocker", "package_mocker", "session_mocker"),  # pytest-mock
        *("httpx_mock", "respx_mock", "requests_mock", "aioresponses", "responses"),
        *("vcr", "socket_disabled", "socket_enabled", "freezer", "time_machine", "fs", "benchmark"),
    }
)
# Marks by which other plugins run a body themselves.
OWNERS = {"asyncio": "pytest-asyncio", "anyio": "anyio", "trio": "pytest-trio", "twisted": "pytest-twisted"}


def why_one_by_one(config: pytest.Config, concurrency: int) -> str | None:
    """Why no test of this run runs beside another; None where tests may."""
    if concurrency == 1:
        return "--llm-concurrency 1"
    given = {name for name in ("usepdb", "trace", "setupshow", "setuponly", "setupplan") if config.getoption(name, default=False)}
    names = {"usepdb": "--pdb", "trace": "--trace", "setupshow": "--setup-show", "setuponly": "--setup-only", "setupplan": "--setup-plan"}
    if given:
        return ", ".join(sorted(names[name] for name in given))
    return "-s" if config.getoption("capture", default="fd") == "no" else None


def why_alone(item: pytest.Item, more_fixtures: Sequence[str] = ()) -> str | None:
    """Why this test runs alone; None where it may run beside others.

    `more_fixtures` names fixtures that the user says change the whole process.
    """
    owner = owner_of(item)
    if owner is not None:
        return f"run by {owner}"
    # Exactly: another plugin's kind of test has its own way to run.
    if type(item) is not pytest.Function:
        return f"a {type(item).__name__}"
    mark = item.get_closest_marker("llm_alone")
    if mark is not None:
        return str(mark.kwargs.get("reason") or next(iter(mark.args), "") or "marked llm_alone")
    found = [name for name in item.fixturenames if name in PROCESS_GLOBAL or name in more_fixtures]
    if found:
        return f"asks for {found[0]}"
    if getattr(item.obj, "is_hypothesis_test", False):
        return "run by hypothesis"
    return _asks_in_body(item, more_fixtures)


def owner_of(item: pytest.Item) -> str | None:
    """The plugin that runs this test's body itself, None where there is none."""
    marks = {mark.name for mark in item.iter_markers()}
    if "anyio_backend" in getattr(item, "fixturenames", ()):
        marks.add("anyio")
    return next((owner for name, owner in OWNERS.items() if name in marks), None)


def conditions(item: pytest.Function) -> Mapping[object, object]:
    """What of the process a test needs to be in one state while it runs: tests that differ in it do not run beside each other.

    These are the warning filters of its marks, and the parameters of the fixtures that it shares with other tests.
    """
    filters = tuple(arg for mark in item.iter_markers("filterwarnings") for arg in mark.args)
    return {"filterwarnings": filters, **dict(_shared_parameters(item))}


def is_process_global(name: str, item: pytest.Function, more_fixtures: Sequence[str] = ()) -> bool:
    """Whether the fixture, or one that it asks for, changes the whole process."""
    manager: Any = item.session._fixturemanager  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - no public way to look fixtures up
    seen: set[str] = set()
    names = [name]
    while names:
        name = names.pop()
        if name in PROCESS_GLOBAL or name in more_fixtures:
            return True
        if name not in seen:
            seen.add(name)
            names += [asked for fixturedef in manager.getfixturedefs(name, item) or () for asked in fixturedef.argnames]
    return False


def _asks_in_body(item: pytest.Function, more_fixtures: Sequence[str]) -> str | None:
    code = getattr(getattr(item.obj, "__func__", item.obj), "__code__", None)
    if code is None or "getfixturevalue" not in code.co_names:
        return None
    found = [value for value in code.co_consts if isinstance(value, str) and is_process_global(value, item, more_fixtures)]
    return f"asks for {found[0]}" if found else None


def _shared_parameters(item: pytest.Function) -> Iterator[tuple[object, object]]:
    callspec: Any = getattr(item, "callspec", None)
    scopes: Mapping[str, Any] = getattr(callspec, "_arg2scope", {})
    for name, scope in scopes.items():
        if scope.value == "function":
            continue
        place = {"class": item.cls or item.path, "module": item.path}.get(scope.value)
        yield (name, place), callspec.indices[name]
