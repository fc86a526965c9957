"""Cleaning: which questions are the same, and which split a problem belongs to. Pure functions.

Two questions are near-duplicates when the Jaccard similarity of their shingles (runs of `n` words or signs) reaches the
threshold. MinHash signatures in bands (rensa) propose pairs, exact similarity decides, so that there are no false alarms; a
pair of similarity 0.7 is proposed with probability 0.9998, one of 0.6 with 0.988, one of 0.5 with 0.873.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

from guide_rl.config import DuplicatesConfig

_WORD = re.compile(r"[⺀-鿿가-힯]|[^\W⺀-鿿가-힯]+|[^\w\s]")
_PERMUTATIONS, _BANDS = 128, 32
_AT_ONCE = 2048
_REACH = 64
"""How many texts of a bucket the others of it are compared with; without a limit a bucket of n would cost n * n."""
_SLACK = 0.2
"""How far the signatures' estimate may fall below the threshold: five standard errors."""


@dataclass(frozen=True, slots=True)
class Match:
    """A question that is the same as an earlier one."""

    earlier: int
    """Index of the earlier question."""
    kind: Literal["exact", "near"]
    """Spelled alike, or similar."""
    similarity: float
    """Jaccard similarity of the shingles."""


def normalised(question: str) -> str:
    """One spelling for questions that differ in case, spaces, `$` and Unicode forms only."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().replace("$", " ").split())


def shingles(question: str, n: int) -> frozenset[str]:
    """The runs of n words or signs of a question; of a shorter one, all of it."""
    words = _WORD.findall(normalised(question))
    return frozenset(" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity: shared over all."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def find_matches(
    questions: Sequence[str], answers: Sequence[str], reference: int, config: DuplicatesConfig
) -> dict[int, Match]:
    """The questions that are the same as an earlier one that stays.

    Args:
        questions: the first `reference` of them are evaluation questions, which all stay.
        answers: an answer each, of one spelling (`graders.answer_text.plain`).
        reference: how many evaluation questions there are; against them all checks are made, whatever `config`
            says about duplicates, and answers do not count.
        config: the recipe's `duplicates`.

    Returns:
        Index -> its match: the first evaluation question where there is one, else the first question that stays.
    """
    matches = _exact_matches(questions, reference, exact=config.exact)
    alone = [i for i in range(len(questions)) if i not in matches]
    if not (config.near or reference):
        return matches
    import numpy as np

    signatures = _signatures(questions, alone, config.shingle)
    evaluation = sum(i < reference for i in alone)
    proposed = _pairs(signatures, None, range(evaluation))
    if config.near:
        keys = [hash_64(answers[i]) if config.same_answer else 0 for i in alone]
        among = range(evaluation, len(alone))
        proposed = _distinct(np.concatenate([proposed, _pairs(signatures, keys, among)]))
    return matches | _verified(questions, alone, _likely(signatures, proposed, config.threshold), config)


def hash_64(text: str) -> int:
    """64 bits of a text; the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def splits_of(questions: Sequence[str], sizes: dict[str, float], seed: int) -> list[str | None]:
    """The split of each question, by a hash of its normalised text and the seed.

    A count (above 1) takes the questions with the lowest hashes; what remains is divided by the shares, each question by its
    own hash alone. So with shares only, a question's split does not depend on what other questions there are.

    Returns:
        A name each; None where all splits are counts and full.
    """
    draws = [hash_64(f"{seed}:{normalised(question)}") for question in questions]
    names: list[str | None] = [None] * len(questions)
    left = sorted(range(len(questions)), key=lambda i: (draws[i], i))
    for name, size in sizes.items():
        if size > 1:
            taken, left = left[: int(size)], left[int(size) :]
            for i in taken:
                names[i] = name
    shares = {name: size for name, size in sizes.items() if size <= 1}
    for i in left:
        # A second hash: the lowest first ones are gone where there were counts.
        draw = hash_64(f"share:{seed}:{normalised(questions[i])}") / 2**64
        for name, share in shares.items():
            names[i] = name
            draw -= share
            if draw < 0:
                break
    return names


def _exact_matches(questions: Sequence[str], reference: int, *, exact: bool) -> dict[int, Match]:
    """The questions that an earlier one spells alike; those that are no evaluation's only where `exact`."""
    seen: dict[bytes, int] = {}
    matches = {}
    for i, question in enumerate(questions):
        key = blake2b(normalised(question).encode(), digest_size=16).digest()
        earlier = seen.get(key)
        if earlier is None:
            if exact or i < reference:
                seen[key] = i
        elif i >= reference:
            matches[i] = Match(earlier, "exact", 1.0)
    return matches


def _signatures(questions: Sequence[str], chosen: Sequence[int], n: int) -> Any:
    """MinHash signatures of the chosen questions, uint32 [chosen, _PERMUTATIONS]."""
    import numpy as np
    from rensa import RMinHash

    signatures = np.empty((len(chosen), _PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(chosen), _AT_ONCE):
        sets = [list(shingles(questions[i], n)) for i in chosen[start : start + _AT_ONCE]]
        signatures[start : start + len(sets)] = RMinHash.digests_from_token_sets(sets, _PERMUTATIONS, 0)
    return signatures


def _pairs(signatures: Any, keys: Sequence[int] | None, among: range) -> Any:
    """Pairs of rows that agree in a band, as sorted codes later * rows + earlier: the earlier one in `among`.

    With keys, both are in `among` and have equal ones; without, the later one is outside.
    """
    import numpy as np

    rows = len(signatures)
    first = 0 if keys is None else among.start
    width = signatures.shape[1] // _BANDS
    codes = np.empty(0, np.int64)
    for band in range(_BANDS):
        marks = np.zeros(rows, np.uint64) if keys is None else np.array(keys, np.uint64)
        for column in range(band * width, (band + 1) * width):
            marks = marks * np.uint64(0x9E3779B97F4A7C15) + signatures[:, column] + np.uint64(1)
            marks ^= marks >> np.uint64(29)
        found = [codes]
        for bucket in _buckets(marks[first:]):
            members = bucket + first
            earlier = members[members < among.stop][:_REACH, None]
            later = members[None, members >= (among.stop if keys is None else first)]
            found.append((later * rows + earlier)[later > earlier])
        codes = _distinct(np.concatenate(found))
    return codes


def _distinct(codes: Any) -> Any:
    """The distinct numbers, ascending; many times faster than np.unique where there are millions of repeated ones."""
    import numpy as np

    codes = np.sort(codes)
    return codes[np.append(True, codes[1:] != codes[:-1])[: len(codes)]]


def _buckets(marks: Any) -> Iterator[Any]:
    """The indices of equal marks, ascending, two or more each."""
    import numpy as np

    order = np.argsort(marks, kind="stable")
    ends = np.flatnonzero(np.diff(marks[order])) + 1
    starts = np.concatenate([[0], ends])
    sizes = np.diff(np.concatenate([starts, [len(marks)]]))
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[start : start + size]


def _likely(signatures: Any, codes: Any, threshold: float) -> Iterator[tuple[int, int]]:
    """The pairs (earlier, later) whose signatures do not speak against them, by the later row and then the earlier one."""
    for start in range(0, len(codes), _AT_ONCE):
        later, earlier = divmod(codes[start : start + _AT_ONCE], len(signatures))
        likely = (signatures[earlier] == signatures[later]).mean(axis=1) >= threshold - _SLACK
        yield from zip(earlier[likely].tolist(), later[likely].tolist(), strict=True)


def _verified(
    questions: Sequence[str],
    chosen: Sequence[int],
    pairs: Iterable[tuple[int, int]],
    config: DuplicatesConfig,
) -> dict[int, Match]:
    """For each later question of the pairs its first similar earlier one, of those that have no such match themselves."""
    cached = lru_cache(4 * _AT_ONCE)(lambda i: shingles(questions[i], config.shingle))
    matches: dict[int, Match] = {}
    for a, b in pairs:
        earlier, later = chosen[a], chosen[b]
        if later in matches or earlier in matches:
            continue
        score = similarity(cached(earlier), cached(later))
        if score >= config.threshold:
            matches[later] = Match(earlier, "near", score)
    return matches
