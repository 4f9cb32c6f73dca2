"""Tables of Apache Arrow and pandas. Both are optional."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from millpond._records import NewRecord
from millpond.errors import InvalidError, MillpondError, WrongTypeError


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MillpondError(f"{name} is not installed", code="library_missing", hint=f"pip install 'millpond[{extra}]'") from error


def to_arrow(batch: Any) -> Any:
    """A ``pyarrow.RecordBatch``. Called by the native module."""
    return _library("pyarrow", "arrow").record_batch(batch)


def to_pandas(batch: Any) -> Any:
    """A ``pandas.DataFrame``. Called by the native module."""
    _library("pandas", "pandas")
    return to_arrow(batch).to_pandas()


class IfThere(str):
    """The name of a column that need not be there."""

    __slots__ = ()


KEY = IfThere("key")
"""The column of keys where none is named."""


def rows(data: Any, value: str, key: str | None) -> Iterator[NewRecord[Any, Any]]:
    """The rows of a table as records."""
    pyarrow = _library("pyarrow", "arrow")
    try:
        table: Any = data if isinstance(data, pyarrow.Table) else pyarrow.table(data)
    except (TypeError, ValueError, AttributeError) as error:
        raise WrongTypeError(
            f"what is of type {type(data).__name__} is no table that Arrow knows: {error}",
            code="wrong_type",
            hint="send_arrow takes a table of pyarrow or pandas, a dict of columns, or a Batch; send_many takes a list of records",
        ) from error
    names: list[str] = table.column_names
    if value not in names:
        raise InvalidError(
            f"the table has no column `{value}`: there are {', '.join(names)}",
            code="column_missing",
            hint="name the column that has the values: send_arrow(table, value=\"reading\")",
        )
    if isinstance(key, IfThere) and key not in names:
        key = None
    if key is not None and key not in names:
        raise InvalidError(f"the table has no column `{key}`: there are {', '.join(names)}", code="column_missing")
    for part in table.to_batches():
        columns = [part.column(name).to_pylist() if name in names else None for name in (value, key, "headers", "timestamp")]
        values, keys, headers, times = columns
        for index in range(part.num_rows):
            pairs = None if headers is None or headers[index] is None else [(entry["name"], entry["value"]) for entry in headers[index]]
            yield NewRecord(
                value=values[index],  # type: ignore[index]
                key=None if keys is None else keys[index],
                headers=pairs,
                timestamp=None if times is None else times[index],
            )
