"""Procedural problems of reasoning-gym, for the `reasoning_gym` grader."""

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from guide_rl.config import GeneratorConfig, SourceConfig
from guide_rl.problems.sources.rows import NumberedRow, Row

ANY_ANSWER = "whatever the verifier accepts"
"""The answer of a problem to which reasoning-gym knows none."""


def read(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """The problems of all generators, one after the other.

    Columns: question, answer, solution (`metadata.answer_cot`, or None), stratum (the generator's name), grader and
    metadata (`source_dataset`, `entry`).

    Raises:
        ValueError: reasoning-gym has no such data set, or refuses its settings.
    """
    number = 0
    for generator in source.generators:
        for row in _generate(generator, generator.seed if generator.seed is not None else seed):
            number += 1
            yield number, row


def _generate(generator: GeneratorConfig, seed: int) -> Iterator[Row | str]:
    """The rows of one generator."""
    import reasoning_gym

    try:
        entries = reasoning_gym.create_dataset(generator.name, size=generator.size, seed=seed, **generator.settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"generators: {generator.name}: {error}; correct its name or settings") from error
    for entry in entries:
        try:
            plain = json.loads(json.dumps(entry, default=_plain))
        except TypeError as error:
            yield f"its metadata cannot be saved as JSON ({error})"
            continue
        yield {
            "question": plain["question"],
            "answer": plain["answer"] or ANY_ANSWER,
            "solution": plain["metadata"].get("answer_cot"),
            "stratum": generator.name,
            "grader": "reasoning_gym",
            "metadata": {"source_dataset": generator.name, "entry": plain},
        }


def _plain(value: Any) -> str:
    """A fraction as text: it only tells how a problem was made."""
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")
