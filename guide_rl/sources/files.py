"""Files of rows: JSON lines, Parquet, CSV. Read piece by piece; a bad line does not stop the rest."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from guide_rl.config import SourceConfig
from guide_rl.sources.rows import NumberedRow

_ROWS_AT_ONCE = 1024


def read_jsonl(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """One JSON object a line; empty lines are skipped."""
    with _existing(source.path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(line)


def read_csv(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """Comma-separated values with a header, UTF-8; all values are text."""
    csv.field_size_limit(2**31 - 1)
    with _existing(source.path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=1):
            short = None in row or None in row.values()
            yield number, "not as many cells as the header" if short else dict(row)


def read_parquet(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """A Parquet file; only the needed columns are read."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(_existing(source.path)) as file:
        there = file.schema_arrow.names
        wanted = there if columns is None else [name for name in there if name in columns]
        number = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _existing(path: str) -> Path:
    """The path of a file that is there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; correct the source's path")
    return Path(path)


def _object(line: bytes) -> dict[str, object] | str:
    """A line's object, or why it holds none."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    return row if isinstance(row, dict) else f"a {type(row).__name__}, not a JSON object"
