"""Golden markers to parametrized tests, and the selection among them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_touchstone.errors import GoldenError
from pytest_touchstone.golden import Fields, Golden, load
from pytest_touchstone.plugin.repeats import repeat_of
from pytest_touchstone.plugin.selection import deselect
from pytest_touchstone.settings import SPLITS, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_touchstone.cases import Case
    from pytest_touchstone.export.leak import HeldOut

MARKER_OPTIONS = ("input", "expected", "id", "split", "group", "where", "limit")
MAX_TEST_ID = 120


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a golden test is parametrized with: the case, and which of its trials this is, from 1."""

    case: Case
    number: int


class GoldenCollector:
    """Turns each golden test function into one test a case."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.holdout: dict[tuple[str, str], Case] = {}
        self.functions: dict[str, tuple[Case, ...]] = {}
        self.suites: frozenset[str] = frozenset()
        self._loaded: dict[object, Golden] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize `case` over the cases of the function's golden marker."""
        marker = _golden_marker(metafunc.definition)
        if marker is None:
            return
        if "case" not in metafunc.fixturenames:
            name = metafunc.function.__name__
            msg = f"{metafunc.definition.nodeid} is a golden test without the fixture `case`; add it to its arguments: def {name}(case)"
            raise pytest.Collector.CollectError(msg)
        golden = self._load(marker, metafunc.definition)
        suite = metafunc.definition.nodeid
        self.holdout.update({(suite, case.id): case for case in golden.holdout})
        self.functions[suite.partition("[")[0]] = golden.cases
        # Each case once, then each again: what stops the run early leaves as many cases as possible tried.
        numbers = range(1, repeat_of(metafunc.definition, self.settings.repeat).times + 1)
        attempts = [Attempt(case=case, number=number) for number in numbers for case in golden.cases]
        ids = [_numbered(id_, number) for number in numbers for id_ in test_ids(golden.cases)]
        metafunc.parametrize("case", attempts, indirect=True, ids=ids)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Apply `--llm-split` and `--llm-limit` to what the other selections (-k, -m, --lf) left."""
        if self.settings.export is not None:
            self.suites = frozenset(suite_of(item) for item in items if case_of(item) is not None)
        yield
        deselect(config, items, list(self._unselected(items)))
        _share_locations(items)

    def held_out(self) -> list[dict[str, str]]:
        """What the export's leak guard has to know of every holdout case of the collected sources, selected or not, as plain data."""
        return [dataclasses.asdict(_held_out(suite, case)) for (suite, _), case in sorted(self.holdout.items())]

    def _unselected(self, items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
        taken: defaultdict[str, set[str]] = defaultdict(set)
        for item in items:
            case = case_of(item)
            if case is None:
                continue
            cases = taken[suite_of(item)]
            is_full = len(cases) == self.settings.limit and case.id not in cases
            if (self.settings.split or case.split) != case.split or is_full:
                yield item
            else:
                cases.add(case.id)

    def _load(self, marker: pytest.Mark, definition: pytest.Item) -> Golden:
        options = _marker_options(marker, definition)
        key = (definition.path.parent, *map(_identity, marker.args), *(_identity(options[name]) for name in MARKER_OPTIONS))
        if key not in self._loaded:
            chosen_split = options["split"] if options["split"] in SPLITS else None
            try:
                self._loaded[key] = load(
                    marker.args,
                    base=definition.path.parent,
                    rootdir=definition.config.rootpath,
                    fields=Fields(
                        input=options["input"],
                        expected=options["expected"],
                        id=options["id"],
                        split=None if chosen_split else options["split"],
                        group=options["group"],
                    ),
                    where=options["where"],
                    split=chosen_split,
                    limit=options["limit"],
                    complete=self.settings.export is not None,
                )
            except GoldenError as error:
                raise pytest.Collector.CollectError(str(error)) from error
        return self._loaded[key]


def _share_locations(items: Iterable[pytest.Item]) -> None:
    """Have pytest look up where a test function stands once, not anew for each of its cases."""
    firsts: dict[tuple[object, str], pytest.Function] = {}
    for item in items:
        if type(item) is not pytest.Function or case_of(item) is None:
            continue
        first = firsts.setdefault((item.parent, item.originalname), item)
        path, line, name = first.location
        if first is not item and name.endswith(first.name):
            vars(item)["location"] = (path, line, name.removesuffix(first.name) + item.name)


def fingerprint(case: Case) -> str:
    """The fingerprint of the case's input, by which an export knows a holdout input again."""
    from pytest_touchstone.export.leak import input_fingerprint

    return input_fingerprint(case.input)


def _held_out(suite: str, case: Case) -> HeldOut:
    from pytest_touchstone.export.leak import HeldOut

    return HeldOut.of(case.input, suite=suite, case_id=case.id, source=case.source)


def case_of(item: pytest.Item) -> Case | None:
    """The golden case of a collected test, None for any other test."""
    attempt = _attempt_of(item)
    return None if attempt is None else attempt.case


def number_of(item: pytest.Item) -> int:
    """Which trial of its case a golden test is, from 1."""
    attempt = _attempt_of(item)
    return 1 if attempt is None else attempt.number


def name_in_recordings(item: pytest.Item) -> str:
    """The test's name in its module, the same for every trial of a case: `test_refunds[late-return]`."""
    name = item.nodeid.partition("::")[2]
    number = number_of(item)
    if number == 1:
        return name
    callspec: Any = getattr(item, "callspec", None)
    ids = [id_.removesuffix(f"@{number}") if each == "case" else id_ for each, id_ in _named_ids(callspec)]
    return f"{name.partition('[')[0]}[{'-'.join(ids)}]"


def suite_of(item: pytest.Item) -> str:
    """The suite of a golden test: its node id without the case; other parameters stay, since each makes a suite of its own."""
    base, _, _ = item.nodeid.partition("[")
    callspec: Any = getattr(item, "callspec", None)
    others = [id_ for name, id_ in _named_ids(callspec) if name != "case"]
    return f"{base}[{'-'.join(others)}]" if others else base


def test_ids(cases: Sequence[Case]) -> list[str]:
    """A test id for each case: the case's id, with what `-k` and node ids cannot hold replaced by `-`.

    Ids that would coincide get a piece of the hash of the case's id, so that a test keeps its name wherever the case stands.

    >>> from pytest_touchstone.cases import Case
    >>> test_ids([Case(id="late return", input="x"), Case(id="gift", input="x")])
    ['late-return', 'gift']
    """
    plain = [_plain_id(case.id) for case in cases]
    count = Counter(plain)
    return [id_ if count[id_] == 1 and id_ else f"{id_}-{_short_hash(case.id)}".lstrip("-") for id_, case in zip(plain, cases, strict=True)]


def again(item: pytest.Item, number: int) -> pytest.Item:
    """A further trial of a golden test's case, the `number`-th, as if it had been collected."""
    first: Any = item
    attempt = _attempt_of(item)
    assert attempt is not None
    ids = [_numbered(id_, number) if name == "case" else id_ for name, id_ in _named_ids(first.callspec)]
    params = {**first.callspec.params, "case": Attempt(case=attempt.case, number=number)}
    callspec = dataclasses.replace(first.callspec, params=params, _idlist=ids)
    further: Any = cast("Any", type(first)).from_parent(
        first.parent,
        name=f"{first.originalname}[{callspec.id}]",
        callspec=callspec,
        fixtureinfo=first._fixtureinfo,  # noqa: SLF001 - as pytest makes the test of a case
        keywords={callspec.id: True},
        originalname=first.originalname,
    )
    if named := first.nodeid.removeprefix(f"{first.parent.nodeid}::{first.name}"):  # pytest-xdist has put the test's group there
        further._nodeid = f"{further.nodeid}{named}"  # noqa: SLF001 - as pytest-xdist does
    # What conftests and plugins have marked since.
    further.own_markers[:] = first.own_markers
    return cast("pytest.Item", further)


def behind_case(item: pytest.Item) -> str:
    """What stands behind the case's id in the node id of its first trial: other parameters, and what a plugin has put there."""
    first: Any = item
    named = list(_named_ids(first.callspec))
    place = next(place for place, (name, _) in enumerate(named) if name == "case")
    ids = "-".join(id_ for _, id_ in named[: place + 1])
    return str(first.nodeid).removeprefix(f"{first.parent.nodeid}::{first.originalname}[{ids}")


def nodeid_again(nodeid: str, number: int, *, behind: str) -> str:
    """The node id that `again` gives to the `number`-th trial, from that of the first and what stands behind the case's id in it.

    >>> nodeid_again("test_shop.py::test_shop[late-en]", 3, behind="-en]")
    'test_shop.py::test_shop[late@3-en]'
    """
    return f"{_numbered(nodeid.removesuffix(behind), number)}{behind}"


def _attempt_of(item: pytest.Item) -> Attempt | None:
    callspec: Any = getattr(item, "callspec", None)
    attempt = None if callspec is None else callspec.params.get("case")
    return attempt if isinstance(attempt, Attempt) else None


def _numbered(id_: str, number: int) -> str:
    # `@` is in no id of a case.
    return id_ if number == 1 else f"{id_}@{number}"


def _plain_id(case_id: str) -> str:
    id_ = re.sub(r"[^\w.+/-]+", "-", case_id).strip("-")
    return id_ if len(id_) <= MAX_TEST_ID else f"{id_[:MAX_TEST_ID]}-{_short_hash(case_id)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _named_ids(callspec: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - pytest's CallSpec2 is private
    # One id for each parametrize call, in order; a call over several names has one id for all of them.
    ids = list(getattr(callspec, "_idlist", ()))
    names = list(getattr(callspec, "params", {}))
    if len(ids) == len(names):
        yield from zip(names, ids, strict=True)


def _golden_marker(definition: pytest.Item) -> pytest.Mark | None:
    own = [marker for marker in definition.own_markers if marker.name == "golden"]
    if len(own) > 1:
        msg = f"{definition.nodeid} has {len(own)} golden markers; give all sources to one: @pytest.mark.golden('a.yaml', 'b.yaml')"
        raise pytest.Collector.CollectError(msg)
    return definition.get_closest_marker("golden")


def _marker_options(marker: pytest.Mark, definition: pytest.Item) -> dict[str, Any]:
    unknown = sorted(set(marker.kwargs) - set(MARKER_OPTIONS))
    if unknown:
        msg = f"{definition.nodeid}: golden() does not know {', '.join(unknown)}; it takes {', '.join(MARKER_OPTIONS)}"
        raise pytest.Collector.CollectError(msg)
    options = {name: marker.kwargs.get(name) for name in MARKER_OPTIONS}
    problem = _problem(marker, options)
    if problem is not None:
        msg = f"{definition.nodeid}: {problem}"
        raise pytest.Collector.CollectError(msg)
    return options


def _problem(marker: pytest.Mark, options: dict[str, Any]) -> str | None:
    if not marker.args:
        return "golden() names no source; give a file, a glob, a callable or a list: @pytest.mark.golden('cases.yaml')"
    for name in ("input", "expected", "id", "split", "group"):
        if not (options[name] is None or (isinstance(options[name], str) and options[name])):
            return f"golden({name}={options[name]!r}) is no field name; give the name of the field that holds the {name}, as text"
    if options["where"] is not None and not callable(options["where"]):
        return f"golden(where={options['where']!r}) is not callable; give a function of a case: where=lambda case: 'refunds' in case.tags"
    limit = options["limit"]
    if not (limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1)):
        return f"golden(limit={limit!r}) is not a whole number of at least 1"
    return None


def _identity(value: object) -> object:
    # Text, paths and numbers are the same source when equal; anything else only when it is the same object.
    return value if isinstance(value, (str, int)) or value is None else f"{type(value).__name__}:{id(value)}"
