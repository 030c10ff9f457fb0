"""Parquet files and saved Hugging Face datasets to records, read with pyarrow (extra `parquet`); `datasets` itself is not needed."""

from __future__ import annotations

import functools
import importlib
import json
import re
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pytest_touchstone.cases import shown
from pytest_touchstone.errors import Fault
from pytest_touchstone.golden_formats import MIB, Defaults, Item, Record, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

ROWS_PER_BATCH = 1_000
PARQUET_FIX = "pip install 'pytest-touchstone[parquet]'"

Guard: TypeAlias = "Callable[[Path, str], Fault | None]"
"""Says why a file inside a dataset folder may not be opened: (path, as shown) -> fault or None."""


def read_parquet(path: Path, place: str) -> Iterator[Item]:
    """The rows of a Parquet file, read in batches."""

    def batches() -> Iterator[Any]:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS_PER_BATCH)

    yield from _rows(place, batches, "is no readable Parquet file")


def _rows(place: str, batches: Callable[[], Iterable[Any]], problem: str, start: int = 1) -> Iterator[Item]:
    number = count(start)
    try:
        for batch in batches():
            for row in batch.to_pylist():
                data = {str(name): plain(value) for name, value in row.items()}
                yield Record(place=f"{place} row {next(number)}", data=data)
    except ImportError:
        yield Fault(file=place, problem="needs pyarrow, which is not installed", fix=PARQUET_FIX)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - what pyarrow raises for broken files: ArrowException, ValueError, UnicodeDecodeError
        yield Fault(file=place, problem=f"{problem}: {shown(str(error))}", fix="write it anew")


def is_dataset(path: Path) -> bool:
    """Whether a folder was saved by Hugging Face `datasets` (`save_to_disk`)."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def read_dataset(folder: Path, place: str, guard: Guard) -> Iterator[Item]:
    """The rows of a saved Dataset, or of all parts of a saved DatasetDict in its order.

    Rows of a part that is not named `train` are holdout cases unless they say otherwise.
    """
    if not (folder / "dataset_dict.json").is_file():
        yield from _part(folder, place, guard)
        return
    names = _listed(folder / "dataset_dict.json", f"{place}/dataset_dict.json", guard, lambda content: content["splits"])
    if isinstance(names, Fault):
        yield names
        return
    for name in names:
        # Rows that were set aside for testing must never be trained on, so they are holdout unless they say otherwise.
        yield Defaults(place=place, data={} if name == "train" else {"split": "holdout"})
        yield from _part(folder / name, f"{place}/{name}", guard)


def _part(folder: Path, place: str, guard: Guard) -> Iterator[Item]:
    state, where = folder / "state.json", f"{place}/state.json"
    names = _listed(state, where, guard, lambda content: [file["filename"] for file in content["_data_files"]])
    if isinstance(names, Fault):
        yield names
        return
    number = 1
    for name in names:
        path = folder / name
        fault = guard(path, f"{place}/{name}")
        if fault is not None:
            yield fault
            continue
        for item in _rows(place, functools.partial(_stream, path), f"file {shown(name)} is no readable Arrow file", number):
            number += isinstance(item, Record)
            yield item


def _stream(path: Path) -> Iterator[Any]:
    ipc: Any = importlib.import_module("pyarrow.ipc")
    with path.open("rb") as file, ipc.open_stream(file) as stream:
        for batch in stream:
            yield from (batch.slice(start, ROWS_PER_BATCH) for start in range(0, batch.num_rows, ROWS_PER_BATCH))


def _listed(path: Path, place: str, guard: Guard, choose: Callable[[Any], object]) -> list[str] | Fault:
    """The file or folder names that a dataset's own JSON file lists: plain names, so that none leads out of the folder."""
    text = guard(path, place) or read_text(path, place, MIB, "state")
    if isinstance(text, Fault):
        return text
    try:
        names = choose(json.loads(text))
    except (ValueError, RecursionError, KeyError, TypeError):
        names = None
    if isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in cast("list[object]", names)):
        return cast("list[str]", names)
    return Fault(file=place, problem="does not list the dataset's files", fix="save the dataset again with save_to_disk")


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever an Arrow column holds
    """An Arrow value as JSON has it: dates and decimals become text, UTF-8 bytes too."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
