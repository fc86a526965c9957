"""Cleaning: which questions are the same, and which split a problem belongs to. Pure functions.

Two questions are near-duplicates when the Jaccard similarity of their shingles (runs of `n` words or signs) reaches the
threshold. MinHash signatures in bands (rensa) propose pairs, exact similarity decides, so that there are no false alarms; a
pair of similarity 0.7 is proposed with probability 0.9998, one of 0.6 with 0.988, one of 0.5 with 0.873.

A question matches one of an evaluation set when it holds that share of its shingles, whatever else it holds, such as an
instruction behind it. All such pairs are found: enough of a question's shingles means one of its few rarest.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from typing import Any, Literal

from guide_rl.config import DuplicatesConfig

_WORD = re.compile(
    r"[^\W0-9_⺀-鿿가-힯]+|[0-9]+(?:\.[0-9]+)?|[+\-*/^_=<>|!%]|(?![\u3000-\u303f])[⺀-鿿가-힯]"
    r"|[^\w\s\x00-\x7f\u2014\u2018-\u201f\u3000-\u303f]"
)
"""Numbers, words and what is no punctuation: brackets, quotation marks and backslashes are left out."""
_DELIMITERS = re.compile(r"\$|(?<!\\)\\[()\[\]]")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
"""Signs that do not show, as web pages put into formulas: soft hyphens, spaces without width, invisible operators."""
_THOUSANDS = re.compile(r",(?<=[0-9],)(?=[0-9]{3}(?![0-9]))")
_COMMAND = re.compile(r"\\(?:([a-z]+)|[,;:! ])")
_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("left", "right", "big", "bigg", "bigl", "bigr", "displaystyle", "textstyle", "limits"), ""),
    **dict.fromkeys(("quad", "qquad", "text", "textbf", "textit", "mbox", "mathrm", "mathbf", "operatorname"), ""),
    **dict.fromkeys(("leq", "leqslant"), "le"),
    **dict.fromkeys(("geq", "geqslant"), "ge"),
    "neq": "ne",
    "lt": "<",
    "gt": ">",
}
"""LaTeX commands (in small letters) in one spelling, or left out."""
_SIGNS = {
    "{,}": ",",
    "<=": " le ",
    ">=": " ge ",
    "\u2264": " le ",
    "\u2265": " ge ",
    "\u2260": " ne ",
    "\u00d7": " times ",
    "\u00b7": " cdot ",
    "\u22c5": " cdot ",
    "\u00f7": " div ",
    "\u03c0": " pi ",
    "\u2212": "-",
    "\u2010": "-",
    "\u2013": "-",
    "\u2044": "/",
}
"""Signs as LaTeX has them, or as ASCII."""
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_PERMUTATIONS, _BANDS = 128, 32
_AT_ONCE = 2048
_REACH = 64
"""How many texts of a bucket the others of it are compared with; without a limit a bucket of n would cost n * n."""
_FEW = 10
"""An evaluation question of fewer shingles must be there as a whole, or similar: any text may hold most of them."""
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
    """Jaccard similarity of the shingles; with an evaluation question, see `overlap`."""


def normalised(question: str) -> str:
    r"""One spelling for questions that differ in case, spaces, LaTeX delimiters (`$`, `\(`, `\[`) and Unicode forms only."""
    seen = question if question.isascii() else _UNSEEN.sub("", question)
    return " ".join(_DELIMITERS.sub(" ", unicodedata.normalize("NFKC", seen).casefold()).split())


def words_of(question: str) -> list[str]:
    """The words, numbers and signs of a question, without punctuation, and with one spelling for what LaTeX has many of."""
    text = normalised(question)
    plain = _COMMAND.sub(lambda command: f" {_COMMANDS.get(command[1], command[1] or '')} ", text)
    plain = _THOUSANDS.sub("", _SIGN.sub(lambda sign: _SIGNS[sign[0]], plain))
    return _WORD.findall(plain) or [text]


def shingles(question: str, n: int) -> frozenset[str]:
    """The runs of n words or signs of a question; of a shorter one, all of it."""
    words = words_of(question)
    return frozenset(" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity: shared over all."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def overlap(evaluation: frozenset[str], question: frozenset[str]) -> float:
    """The share of an evaluation question's shingles that a question holds; of a very short one, similarity unless all."""
    share = len(evaluation & question) / len(evaluation)
    return share if share == 1 or len(evaluation) >= _FEW else similarity(evaluation, question)


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
    if reference:
        matches |= _evaluation_matches(questions, reference, matches, config)
        matches = {i: matches.get(match.earlier, match) for i, match in matches.items()}  # a copy matches it, too
    if config.near:
        alone = [i for i in range(reference, len(questions)) if i not in matches]
        signatures = _signatures(questions, alone, config.shingle)
        pairs = _pairs(signatures, [hash_64(answers[i]) if config.same_answer else 0 for i in alone])
        matches |= _verified(questions, alone, _likely(signatures, pairs, config.threshold), config)
    return matches


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


def _evaluation_matches(
    questions: Sequence[str], reference: int, matches: dict[int, Match], config: DuplicatesConfig
) -> dict[int, Match]:
    """The questions without a match that hold enough of an evaluation question; the first of several is named."""
    sets = [shingles(question, config.shingle) for question in questions[:reference]]
    counts = Counter(shingle for held in sets for shingle in held)
    holders: dict[str, list[int]] = defaultdict(list)
    for i, held in enumerate(sets):
        # Who lacks all of these holds too few of the others.
        rarest = sorted(held, key=lambda shingle: (counts[shingle], shingle))
        for shingle in rarest[: len(held) - ceil(config.threshold * len(held) - 1e-9) + 1]:
            holders[shingle].append(i)
    found = {}
    for i in range(reference, len(questions)):
        if i not in matches:
            held = shingles(questions[i], config.shingle)
            for earlier in sorted({holder for shingle in held for holder in holders.get(shingle, ())}):
                if (score := overlap(sets[earlier], held)) >= config.threshold:
                    found[i] = Match(earlier, "near", score)
                    break
    return found


def _signatures(questions: Sequence[str], chosen: Sequence[int], n: int) -> Any:
    """MinHash signatures of the chosen questions, uint32 [chosen, _PERMUTATIONS]."""
    import numpy as np
    from rensa import RMinHash

    signatures = np.empty((len(chosen), _PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(chosen), _AT_ONCE):
        sets = [list(shingles(questions[i], n)) for i in chosen[start : start + _AT_ONCE]]
        signatures[start : start + len(sets)] = RMinHash.digests_from_token_sets(sets, _PERMUTATIONS, 0)
    return signatures


def _pairs(signatures: Any, keys: Sequence[int]) -> Any:
    """Pairs of rows with equal keys that agree in a band, as sorted codes later * rows + earlier."""
    import numpy as np

    rows = len(signatures)
    width = signatures.shape[1] // _BANDS
    codes = np.empty(0, np.int64)
    for band in range(_BANDS):
        marks = np.array(keys, np.uint64)
        for column in range(band * width, (band + 1) * width):
            marks = marks * np.uint64(0x9E3779B97F4A7C15) + signatures[:, column] + np.uint64(1)
            marks ^= marks >> np.uint64(29)
        found = [codes]
        for members in _buckets(marks):
            earlier, later = members[:_REACH, None], members[None, :]
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
