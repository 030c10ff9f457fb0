"""`touchstone runs`, `show` and `history`: what the run store holds."""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import SettingsError, StoreError
from pytest_touchstone.settings import chosen_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_touchstone.runs import RunStore

LISTED = 20
NOTHING = "no run is stored yet; pytest --llm-eval stores one, unless llm_store is off (--store names another store)"
# As pytest looks for them: the file, and where in it the keys stand.
_CONFIGURATION = (
    ("pytest.toml", ("pytest",)),
    (".pytest.toml", ("pytest",)),
    ("pytest.ini", ("pytest",)),
    (".pytest.ini", ("pytest",)),
    ("pyproject.toml", ("tool", "pytest")),
    ("tox.ini", ("pytest",)),
    ("setup.cfg", ("tool:pytest",)),
)


def add_commands(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type of subparsers to itself
    """Add the commands to those of `touchstone`."""
    store = argparse.ArgumentParser(add_help=False)
    add_store_option(store)
    listed = commands.add_parser("runs", parents=[store], help="List stored runs, newest first.")
    _add_limit(listed)
    _add_json(listed)
    listed.set_defaults(run=_runs)
    pruned = listed.add_subparsers(metavar="prune").add_parser("prune", help="Remove old runs; the newest of all always stays.")
    add_store_option(pruned, default=argparse.SUPPRESS)  # else it would undo what was given before the word
    which = pruned.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep", type=_positive, metavar="N", help="All but the newest N runs.")
    which.add_argument("--older-than", type=_days, metavar="DAYS", help="Those that started so long ago: 90d.")
    pruned.add_argument("--dry-run", action="store_true", help="Only say what would go.")
    pruned.set_defaults(run=_prune)
    shown = commands.add_parser("show", parents=[store], help="Show one run: provenance, tables, failures, cost.")
    shown.add_argument("name", metavar="RUN", help="The id of a run, the beginning of one, or: latest; latest~1 is the one before.")
    shown.add_argument("--all", action="store_true", help="Every trial that did not pass. Default: the first 20.")
    _add_json(shown)
    shown.set_defaults(run=_show)
    history = commands.add_parser("history", parents=[store], help="How a number developed from run to run.")
    history.add_argument("--metric", choices=("pass_rate", "cost", "latency_p95"), default="pass_rate", help="Default: pass_rate.")
    history.add_argument("--suite", metavar="NAME", help="Only this suite: evals/test_shop.py::test_refunds. Default: all together.")
    _add_limit(history)
    _add_json(history)
    history.set_defaults(run=_history)


def add_store_option(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add `--store`."""
    parser.add_argument(
        "--store",
        default=default,
        metavar="PATH|URL",
        help="The run store. Default: TOUCHSTONE_STORE, else llm_store of pytest's configuration, else .touchstone/runs.db.",
    )


def find_store(options: argparse.Namespace) -> RunStore | None:
    """The store that is meant; None where nothing is stored there, or storing is switched off.

    Raises:
        StoreError: it cannot be used.
    """
    from pytest_touchstone.runs import RunStore

    root = root_folder()
    configured = configuration(root).get("llm_store")
    target = chosen_store(options.store, os.environ.get("TOUCHSTONE_STORE"), configured if isinstance(configured, str) else None)
    return None if target is None else RunStore.open_existing(target, base=Path.cwd() if options.store else root)


def open_store(options: argparse.Namespace) -> RunStore:
    """The store that is meant.

    Raises:
        StoreError: it cannot be used, nothing is stored there, or storing is switched off.
    """
    store = find_store(options)
    if store is None:
        raise StoreError(NOTHING)
    return store


def root_folder() -> Path:
    """Where pytest ran: the nearest folder, from here up to where the repository begins, that a run has left word in, else here.

    Where no run has left word, it is the nearest one that is configured for pytest.
    """
    here = Path.cwd()
    folders = [here, *here.parents]
    border = next((number for number, folder in enumerate(folders, start=1) if (folder / ".git").exists()), None)
    ran = (folder for folder in folders[:border] if (folder / ".touchstone").is_dir())
    configured = (folder for folder in folders[:border] if any((folder / name).is_file() for name, _ in _CONFIGURATION))
    return next(ran, None) or next(configured, here)


def print_json(value: object) -> None:
    """Print plain data; every character beyond ASCII is an escape."""
    print(json.dumps(value, indent=2))


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print styled lines without their styles."""
    for _, text in lines:
        print(text)


def configuration(root: Path) -> dict[str, Any]:
    """The keys of pytest's configuration in this folder, none where there is none.

    Raises:
        SettingsError: a file that may hold it cannot be read.
    """
    for name, place in _CONFIGURATION:
        path = root / name
        if path.is_file() and (section := _section(path, place)) is not None:
            return section
    return {}


def _section(path: Path, place: tuple[str, ...]) -> dict[str, Any] | None:
    """The keys that pytest reads from the file; None where it has none for it."""
    import configparser
    import tomllib

    if path.suffix != ".toml":
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _unreadable(path) from error
        return dict(parser[place[0]]) if parser.has_section(place[0]) else None
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path) from error
    for name in place:
        found = found.get(name)
        if not isinstance(found, dict):
            return None
        found = cast("dict[str, Any]", found)
    keys: dict[str, Any] = found.get("ini_options", found)
    return keys


def _unreadable(path: Path) -> SettingsError:
    return SettingsError(f"{path.name}: cannot be read, so what is configured for pytest is not known; correct it")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_positive, default=LISTED, metavar="N", help=f"The newest N runs. Default: {LISTED}.")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
        msg = f"{text!r} is not a whole number of at least 1"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _days(text: str) -> timedelta:
    number = text.removesuffix("d")
    if not (text.endswith("d") and number.isascii() and number.isdigit() and 0 < int(number) < 10**5):
        msg = f"{text!r} is no number of days; write 90d"
        raise argparse.ArgumentTypeError(msg)
    return timedelta(days=int(number))


def _prune(options: argparse.Namespace) -> int:
    before = None if options.older_than is None else datetime.now(UTC) - options.older_than
    old, left = open_store(options).prune(keep=options.keep, before=before, dry_run=options.dry_run)
    each, all_, rest = ("would remove", "would go", "would stay") if options.dry_run else ("removed", "removed", "left")
    for run in old:
        print(f"{each} {run.id}")
    print(f"{len(old):,} of {len(old) + left:,} runs {all_}, {left:,} {rest}")
    return 0


def _runs(options: argparse.Namespace) -> int:
    from pytest_touchstone.report.runs import run_data, runs_table

    store = open_store(options)
    runs = store.runs(options.limit)
    figures = store.figures(runs)
    if options.json:
        print_json([run_data(run, figures[run.id]) for run in runs])
    else:
        print_lines(runs_table(runs, figures))
    return 0


def _show(options: argparse.Namespace) -> int:
    from pytest_touchstone.report.runs import run_data, run_lines

    store = open_store(options)
    run = store.find(options.name)
    records = store.records(run)
    if options.json:
        print_json({**run_data(run, store.figures([run])[run.id]), "trials": [record.to_dict() for record in records]})
    else:
        print_lines(run_lines(run, records, all_failures=options.all))
    return 0


def _history(options: argparse.Namespace) -> int:
    from pytest_touchstone.report.runs import history_lines, measure

    store = open_store(options)
    runs = store.runs(options.limit)[::-1]
    figures = store.figures(runs, suite=options.suite)
    runs = [run for run in runs if run.id in figures]
    if not runs:
        known = ", ".join(store.suites())
        msg = f"no stored run has trials of {options.suite}; the suites are: {known}" if options.suite else NOTHING
        raise StoreError(msg)
    values = {run.id: measure(options.metric, figures[run.id]) for run in runs}
    if options.json:
        named = {"metric": options.metric, "suite": options.suite}
        points = [{"run": run.id, "started": run.started, "commit": run.checkout.commit, "value": values[run.id]} for run in runs]
        print_json({**named, "runs": points})
    else:
        print_lines(history_lines(options.metric, runs, values, suite=options.suite))
    return 0
