"""The 270 competition problems of the package `champ-dataset`, with their human hints (MIT)."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from guide_rl.config import SourceConfig
from guide_rl.problems.sources.rows import NumberedRow

_FILE = "champ_dataset/dataset_files/v0.json"


def read(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """All problems, in the package's order.

    Columns: id, question, answer (as it is: a number, a formula or words), category, solution (its steps, a line each),
    hints (its own, a list in their order, maybe empty) and points (hints and general concepts, a list in their order).

    Raises:
        PackageNotFoundError: `champ-dataset` is not installed.
    """
    data: dict[str, dict[str, Any]] = json.loads(
        Path(str(distribution("champ-dataset").locate_file(_FILE))).read_text(encoding="utf-8")
    )
    texts = {name: item["_text"] for kind in ("hints", "concepts") for name, item in data[kind].items()}
    for number, (name, problem) in enumerate(data["problems"].items(), start=1):
        yield (
            number,
            {
                "id": name,
                "question": problem["_text"],
                "answer": problem["_answer"],
                "category": problem["category"],
                "solution": "\n".join(step["_text"] for step in problem["solution"]["steps"]),
                "hints": [texts[point] for point in problem["ch_list"] if point in data["hints"]],
                "points": [texts[point] for point in problem["ch_list"]],
            },
        )
