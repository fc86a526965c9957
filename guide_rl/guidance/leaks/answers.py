"""A reference answer -> what has to be found for it to be given away."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from guide_rl.guidance.leaks.formulas import Number, Unreadable, letters, value
from guide_rl.guidance.leaks.math_text import MATH_NAMES, Formula, stated
from guide_rl.guidance.leaks.number_words import spelled_out, worded


@dataclass(frozen=True)
class Answer:
    """What is looked for: every part must be found."""

    parts: tuple[str, ...]
    """Formulas; more than one where the answer is a list."""
    whole: str
    """The answer as one formula, lists in their brackets."""
    phrases: tuple[str, ...]
    """Phrases, in lower case, each of which gives it away."""
    choice: str = ""
    """The letter of a multiple-choice answer."""
    names: frozenset[str] = frozenset()
    """What the answer says is equal to its parts: the x of x = 5."""
    prose: bool = False
    """Whether it is a sentence; its parts are then the numbers in it."""


_OR = re.compile(
    r",?\s*\bor(?:\s+an?)?\s+(?:equivalent|approximately|about)\w*(?:\s+form)?(?:\s+such as)?\b\s*", re.IGNORECASE
)
_ASIDE = re.compile(r"\((?:i\.e\.|e\.g\.|none|no |approx)[^()]*\)", re.IGNORECASE)
_AND = re.compile(r"\s*(?:;|\band\b|\bor\b|\\cup(?![A-Za-z])|\N{UNION})\s*", re.IGNORECASE)
_PROSE = re.compile(rf"(?<![A-Za-z\\])(?!(?:{'|'.join(MATH_NAMES)})(?![A-Za-z]))[A-Za-z]{{4,}}")
_CHOICE = re.compile(r"\(?([A-J])\)?[.)]?")


@lru_cache(maxsize=4096)
def readings(answer: str) -> tuple[Answer, ...]:
    """The answer in each of the forms that it names ("C(10, 5), or equivalently 252" names two)."""
    bare = _bare(answer)
    return tuple(_reading(form) for form in _OR.split(bare) if form.strip())


def _bare(answer: str) -> str:
    """The answer without what surrounds it: math marks, a box, an aside, a period."""
    text = _ASIDE.sub(" ", " ".join(answer.split())).strip()  # runs of spaces cost the patterns below their square
    text = re.sub(r"\\(?:boxed|fbox)\s*\{(.*)\}", r"\1", text, flags=re.DOTALL)
    if inner := re.fullmatch(r"\\text(?:bf|rm|it)?\s*\{([^{}]*)\}", text):
        text = inner[1]
    text = re.sub(r"^\$+|\$+$|^\\[(\[]|\\[)\]]$", "", text.strip()).strip()
    return text.removesuffix(".").strip()


def _reading(form: str) -> Answer:
    """One form of the answer."""
    if choice := _CHOICE.fullmatch(form):
        return Answer((), form, (), choice[1])
    spelled = _whole(form)
    parts = _parts(form)
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", " ", form))
    prose = not parts or (len(words) >= 2 and spelled is None)
    return Answer(
        tuple(parts),
        spelled or form,
        (plain_words(form),) if prose else _number_words(parts),
        names=_names(form),
        prose=prose,
    )


def _whole(form: str) -> str | None:
    """The answer as one formula, or None where it is more than mathematics."""
    found = stated(f"${form}$")
    return found[0].spelled if found and not _PROSE.search(form) else None


def _parts(form: str) -> list[str]:
    """The formulas of which the answer consists; [] for an answer in words."""
    plain = form.lower()
    if in_words := [formula for start, end, formula in worded(plain) if (start, end) == (0, len(plain))]:
        return in_words
    listed = bool(_AND.search(form))
    pieces = [stated(f"${piece}$" if "\\" in piece or " " not in piece else piece) for piece in _AND.split(form)]
    if listed and not all(pieces):
        pieces = [stated(form)]
    parts = []
    for found in pieces:
        sides = [formula for formula in found if formula.other or not _has_other(found, formula)]
        parts += [formula.spelled for formula in sides]
    bracketed = [part for part in parts if part[0] in "([\\{" and "," in part]
    if bracketed:
        parts = [part for part in parts if part not in bracketed]
    if _PROSE.search(form):  # "98 values", "0 is the only possible value": the numbers are what it says.
        parts = [part for part in parts if not letters(part) and value_of(part) is not None][:1]
    return list(dict.fromkeys(parts))


def _names(form: str) -> frozenset[str]:
    """The left sides of the equations in the answer."""
    return frozenset(formula.other for formula in stated(form)) - {""}


def _has_other(found: Sequence[Formula], formula: Formula) -> bool:
    """Whether this formula is the left side of an equation among those found."""
    return any(other.other == formula.spelled and other.group == formula.group for other in found)


def _number_words(parts: Sequence[str]) -> tuple[str, ...]:
    """How a single number is spelled in words, where `reading` does not read the words as a number."""
    number = value_of(parts[0]) if len(parts) == 1 else None
    return tuple(spelled_out(number)) if isinstance(number, Fraction) and number in (-1, 0, 1) else ()


@lru_cache(maxsize=4096)
def values_of(spelled: str) -> tuple[Number, ...]:
    """The values that a formula without letters may stand for: 50% is 50 and 0.5; () for any other formula."""
    number = value_of(spelled)
    if number is None:
        return ()
    return (number, number * 100) if spelled.endswith("%") else (number,)


def value_of(spelled: str) -> Number | None:
    """The value of a formula without letters."""
    if letters(spelled):
        return None
    try:
        return value(spelled)
    except (Unreadable, ArithmeticError, ValueError):
        return None


def plain_words(text: str) -> str:
    """The text's words in lower case, one space apart."""
    return " ".join(re.findall(r"[\w']+", text.lower().replace("-", " ")))
