"""A grader that anyone can import: right or wrong by the text, about one in two."""

import hashlib

from guide_rl.types import Problem


def grade(problem: Problem, text: str) -> bool:
    """Whether the text is lucky."""
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] < 128
