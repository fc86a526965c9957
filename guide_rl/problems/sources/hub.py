"""Data sets of the Hugging Face hub, and local folders that hold one or that `save_to_disk` left, through `datasets`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guide_rl.config import SourceConfig
from guide_rl.problems.sources.rows import NumberedRow


def read(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """The rows of one split; only the needed columns are read, from Parquet not even loaded.

    Raises:
        ImportError: `datasets` is not installed.
        OSError: it cannot be loaded (name, access, network).
        ValueError: it has no such configuration or split.
    """
    rows = _saved(source) if _is_saved(Path(source.path)) else _load(source, columns)
    if columns is not None and rows.column_names is not None:
        rows = rows.select_columns([name for name in rows.column_names if name in columns])
    yield from enumerate(rows, start=1)


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved(source: SourceConfig) -> Any:
    """What `save_to_disk` left: the one data set, or of several the split."""
    from datasets import DatasetDict, load_from_disk

    saved = load_from_disk(source.path)
    if not isinstance(saved, DatasetDict):
        return saved
    if source.split not in saved:
        raise ValueError(f"{source.path}: no split {source.split!r}; there are {', '.join(saved)}")
    return saved[source.split]


def _load(source: SourceConfig, columns: Sequence[str] | None) -> Any:
    """The split as a `datasets` object."""
    from datasets import load_dataset, load_dataset_builder

    folder = Path(source.path).is_dir()
    path = str(Path(source.path).resolve()) if folder else source.path
    where = {"path": path, "name": source.config, "revision": source.revision}
    try:
        options: dict[str, Any] = {}
        builder = load_dataset_builder(**where)
        if columns is not None and hasattr(builder.config, "columns"):
            # Without a card the columns are known from the first row only.
            there: Any = builder.info.features or next(
                iter(load_dataset(**where, split=source.split, streaming=True)), {}
            )
            options["columns"] = [name for name in columns if name in there]
        return load_dataset(**where, split=source.split, streaming=source.streaming, **options)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    except Exception as error:  # Of the hub, of the network and of file systems there are many kinds.
        absent = "" if folder else "no such file or folder here, and from the hub "
        check = (
            "A folder must hold files of one kind with the same columns, and no others; or name one of its files"
            if folder
            else "Check name, config, split and revision; a gated data set needs its terms accepted and a token "
            "(`hf auth login`)"
        )
        raise OSError(
            f"{source.path}: {absent}cannot load this data set ({type(error).__name__}: {error}). {check}"
        ) from error
