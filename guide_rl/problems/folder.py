"""The folder of `guide problems`, for one process at a time.

    OUT/recipe.yaml        the recipe as resolved
    OUT/problems.jsonl     the problems, or one file for each split: OUT/<split>.jsonl
    OUT/rejected.jsonl     one line a rejected row: source, row, reason, detail, and what it matches
    OUT/summary.json       counts, and which problems matched an evaluation set; written last

Files are written at the end, one after the other, each at once; what is killed then, the same command mends.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from guide_rl.atomic_files import put_file, put_text
from guide_rl.problems import save_problems
from guide_rl.run_folder import RunFolder
from guide_rl.types import Problem


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes off `out`, which is made; if it is empty in the end, it is removed.

    Raises:
        FileExistsError: it is a file.
        BlockingIOError: another process works on it.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; give another folder (out=...)")
    out.mkdir(parents=True, exist_ok=True)
    with RunFolder(out).lock():
        try:
            yield
        finally:
            (out / ".lock").unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()


def check_folder(out: Path, recipe: str) -> None:
    """FileExistsError unless there is nothing in `out`, or what this very recipe made."""
    if all(path.name.startswith(".") for path in out.iterdir()):
        return
    made_by = out / "recipe.yaml"
    if not made_by.is_file() or made_by.read_text(encoding="utf-8") != recipe:
        raise FileExistsError(
            f"{out} is there and was not made by this recipe; remove it, or give this one another folder (out=...)"
        )


def write_folder(
    out: Path,
    recipe: str,
    splits: dict[str, list[Problem]],
    rejected: Sequence[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Write all files: the recipe, by which `check_folder` knows the folder, first, and the summary last."""
    put_text(out / "recipe.yaml", recipe)
    (out / "summary.json").unlink(missing_ok=True)
    for name, problems in splits.items():
        put_file(out / f"{name}.jsonl", partial(save_problems, problems=problems))
    put_text(out / "rejected.jsonl", "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in rejected))
    put_text(out / "summary.json", f"{json.dumps(summary, indent=2, ensure_ascii=False)}\n")
