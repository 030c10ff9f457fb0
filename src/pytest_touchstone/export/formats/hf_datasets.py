"""A folder that Hugging Face `datasets` loads (`load_dataset("DIR/datasets")`), here or from a hub: prompt/completion in Parquet.

Parquet, not what `save_to_disk` writes: the types are stated instead of guessed, the same rows give the same bytes, hubs and other
readers (pandas, Polars, DuckDB) know it, and pyarrow alone writes it (extra `parquet`).

A column of Arrow has one shape, so every message comes back with all keys that any message has, and null for those that it had not;
TRL's chat templates read null as absent. Texts, and with them the arguments of tool calls, are texts for Arrow too, and come back exactly.
"""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING, Any, Final

from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import Files, NotHeldError
from pytest_touchstone.export.formats.trl import COLUMNS, trl_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

PARQUET_FILE: Final = "train.parquet"  # the name tells `datasets` the split
_KEYS: Final = ("role", "content", "name", "tool_call_id", "reasoning_content", "tool_calls")


class HFDatasets:
    """Prompt/completion as a data set in a folder."""

    files = (PARQUET_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        row = trl_row(example)
        if isinstance(row, LeftOut):
            raise NotHeldError(row.reason)
        return row

    def encode(self, rows: Sequence[Row]) -> Files:
        """As `Format.encode`."""
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
        schema = _schema(pyarrow, rows)
        table = pyarrow.Table.from_pylist(list(rows), schema=schema)
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        return Files(content={PARQUET_FILE: buffer.getvalue()})


def _schema(pyarrow: Any, rows: Sequence[Row]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """The columns, with the keys that any of their messages has, and `tools` where any row has them."""
    text = pyarrow.string()
    function = pyarrow.struct([("name", text), ("arguments", text)])
    call = pyarrow.struct([("id", text), ("type", text), ("function", function)])
    types = {**dict.fromkeys(_KEYS, text), "tool_calls": pyarrow.list_(call)}
    columns: list[tuple[str, Any]] = []
    for column in COLUMNS:
        used = {key for row in rows for message in row[column] for key in message}
        columns.append((column, pyarrow.list_(pyarrow.struct([(key, types[key]) for key in _KEYS if key in used]))))
    tools = [("tools", text)] if any("tools" in row for row in rows) else []
    return pyarrow.schema([*columns, *tools])
