# ruff: noqa: SIM905
"""What a text gives away of an answer, as far as it can be decided in this process."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from guide_rl.guidance.leaks import formulas
from guide_rl.guidance.leaks.answers import Answer, plain_words, readings, values_of
from guide_rl.guidance.leaks.formulas import Number, close, letters
from guide_rl.guidance.leaks.math_text import INEQUALITIES, Formula, stated
from guide_rl.guidance.leaks.matrices import BLOCK, matrix_leak
from guide_rl.guidance.leaks.number_words import worded
from guide_rl.guidance.leaks.respelling import respelled

_MARK = re.compile(r"^[*_#> \t-]*(?:hint[ \t]*)?([1-5])[.):][*_]*(?=[ \t]+\S)", re.IGNORECASE | re.MULTILINE)
_BOUND = re.compile(r"\\(?:sum|prod|int)(?![A-Za-z])")
_CLAUSE_END = (
    r"\b(?:is|are|be|equals|becomes|gets?|gives?|leaves?|with|exactly|just|only)\s+(?:exactly\s+|just\s+|only\s+)?"
)
_SAYS_NOTHING = frozenset(
    "yes no true false none never always possible impossible even odd positive negative zero one".split()
)
_COMMON = frozenset(
    (
        "a all an and any art as at be bill both but by can case dawn do each earnest equal even faith false first for frank "
        "from given grace grant has hope how if in it its jack joy just last left less like line many mark may more most must "
        "next no not odd of off on once only or order other out over part pat point rich right rob rose same set side so some "
        "square sum sue than that the then there these this those time to true two up use violet was we west what when where "
        "which while who why will with would yes you"
    ).split()
)
"""Words that stand in hints anyway: as an answer, they count in the answer's own capitals, in quotes, or as the answer."""


@dataclass
class Finding:
    """What the quick look found."""

    leak: str | None = None
    """What in the text gives the answer away."""
    open: list[tuple[str, str]] = field(default_factory=list)
    """Pairs (formula of the text, answer) that only math-verify can compare."""


def quick_leak(question: str, answer: str, text: str) -> Finding:
    """What can be decided in this process; pure."""
    finding = Finding()
    text = without_markers(text)
    if block := BLOCK.search(answer):
        return Finding(*matrix_leak(block, question, text))
    asked = _asked(question)
    for wanted in readings(answer):
        if (phrase := _phrase(wanted, asked, text)) is not None:
            return Finding(phrase)
        if not wanted.parts or _states(asked, wanted):
            continue
        found = _all_stated(text, least=10 if wanted.prose else 2)
        candidates = [
            formula
            for formula in found
            if (formula.spelled not in asked.spelled or len(wanted.parts) > 1) and not _in_passing(formula, wanted)
        ]
        if _is_unbounded(wanted) and (any(one.relation in INEQUALITIES for one in found) or _BOUNDED.search(text)):
            candidates += [Formula("\\infty", ""), Formula("-\\infty", "")]
        if any(asked.reworks(part) for part in wanted.parts):
            candidates = [formula for formula in candidates if _is_result(formula.spelled, wanted)]
        leak = _all_found(wanted, candidates, finding)
        if leak is not None:
            return Finding(leak)
    return finding


def _all_stated(text: str, least: int = 2) -> list[Formula]:
    """The formulas that a text states, and those that it spells in words; of whole numbers, from `least` on."""
    found = list(stated(text))
    plain = respelled(text).lower()
    for start, _, formula in worded(plain):
        size = formula.lstrip("-")
        if not size.isdigit() or int(size) >= least:
            before = re.search(r"(\w+)\W*$", plain[max(0, start - 40) : start])
            found.append(Formula(formula, before[1] if before else "", group=len(found) + 1))
    return found


def restates(question: str, answer: str) -> bool:
    """Whether the question states the answer, or asks for another form of a formula that has its value."""
    asked = _asked(question)
    return any(
        _states(asked, wanted) or any(asked.reworks(part) for part in wanted.parts)
        for wanted in readings(answer)
        if wanted.parts
    )


@dataclass(frozen=True)
class Asked:
    """What the question states."""

    spelled: frozenset[str]
    numbers: tuple[Number, ...]
    words: str

    def reworks(self, part: str) -> bool:
        """Whether the question's own formula has the answer's value: it asks for another form of it."""
        own = letters(part)
        same_letters = (spelled for spelled in self.spelled if len(spelled) > 1 and letters(spelled) == own)
        return any(not _LITERAL.fullmatch(spelled) and formulas.same(spelled, part) for spelled in same_letters)


@lru_cache(maxsize=256)
def _asked(question: str) -> Asked:
    """What the question states, with the numbers that it writes out; arithmetic in it is no statement of its result."""
    found = _all_stated(question)
    numbers = [
        number for formula in found if _LITERAL.fullmatch(formula.spelled) for number in values_of(formula.spelled)
    ]
    return Asked(frozenset(formula.spelled for formula in found), tuple(numbers), f" {plain_words(question)} ")


_LITERAL = re.compile(
    r"\(?-?[0-9][0-9,.]*(?:e-?[0-9]+|\*10\^\{?-?[0-9]+\}?)?%?(?:/[0-9]+)?\)?|-?\\frac\{[0-9]+\}\{[0-9]+\}|-?\.[0-9]+"
)


def _states(asked: Asked, wanted: Answer) -> bool:
    """Whether the question itself states the answer."""
    if wanted.parts and any(f" {phrase} " in asked.words for phrase in wanted.phrases):
        return True
    return all(
        part in asked.spelled or any(close(one, two) for one in values_of(part) for two in asked.numbers)
        for part in wanted.parts
    )


_COUNTED = frozenset(
    (
        "mod modulo base step steps hint part case cases equation theorem lemma figure section method property rule"
    ).split()
)
"""Words after which a number is a name or a modulus, and no result."""
_SUPPOSING = frozenset(
    ("at if when for let set setting put putting plug plugging substitute substituting suppose assume consider").split()
)
"""Words after which an equation is an assumption: "at x = 0"."""


def without_markers(text: str) -> str:
    """The text without the markers 1. to 5. of a numbered list (only such as follow each other from 1 on)."""
    expected = 1

    def mark(match: re.Match[str]) -> str:
        nonlocal expected
        if int(match[1]) != expected:
            return match[0]
        expected += 1
        return ""

    return _MARK.sub(mark, text)


def _in_passing(formula: Formula, wanted: Answer) -> bool:
    """Whether a number stands where it names something, bounds something from outside, or is an easy value to try."""
    if formula.other and formula.other in wanted.names:
        return False
    outside = formula.relation in ("<", ">") and len(wanted.parts) == 1
    if outside or (formula.before in _COUNTED and formula.spelled.isdigit() and not formula.other):
        return True
    trial = formula.other and formula.before in _SUPPOSING and formula.spelled in ("0", "1", "-1")
    # An equation set to 0 is a form of equations, whatever its solution.
    return bool(trial) or (formula.spelled == "0" and len(formula.other) > 1 and bool(letters(formula.other)))


_BOUNDED = re.compile(
    r"\b(?:at (?:least|most)|(?:more|less|greater|larger|smaller) than|above|below|exceeds?)\b", re.IGNORECASE
)
"""What says an inequality in words."""


def _is_unbounded(wanted: Answer) -> bool:
    """Whether the answer is an interval without end: what an inequality says too."""
    ends = {part.strip("-+") == "\\infty" for part in wanted.parts}
    return ends == {True, False}


def _is_result(spelled: str, wanted: Answer) -> bool:
    """Whether a formula is a number written out or the answer rearranged, and not a step towards it."""
    return bool(_LITERAL.fullmatch(spelled)) or sorted(_signs(spelled)) in [
        sorted(_signs(part)) for part in wanted.parts
    ]


def _signs(spelled: str) -> str:
    """A formula's letters, digits and signs but those that only group or multiply."""
    return re.sub(r"[(){}* ]", "", spelled)


def _all_found(wanted: Answer, candidates: Sequence[Formula], finding: Finding) -> str | None:
    """The formula that states the answer, or those that state all parts of it; what is undecided goes to `finding`."""
    found = []
    for part in wanted.parts:
        match = _find(part, candidates, finding)
        if match is None:
            return None
        found.append(match)
    return " and ".join(found)


def _find(part: str, candidates: Sequence[Formula], finding: Finding) -> str | None:
    """The candidate that means the same as one part of the answer."""
    numbers = values_of(part)
    own_letters = letters(part)
    for formula in candidates:
        spelled = formula.spelled
        if spelled == part:
            return spelled
        if letters(spelled) != own_letters:
            if _BOUND.search(spelled):
                finding.open.append((spelled, part))
            continue
        if numbers:
            if any(close(one, two) for one in numbers for two in values_of(spelled)) or _rounded(spelled, numbers[0]):
                return spelled
            same: bool | None = False if values_of(spelled) else None
        else:
            same = formulas.same(part, spelled)
            if same:
                return spelled
        if same is None and ("\\" in spelled or "\\" in part or "," in part):
            finding.open.append((spelled, part))
    return None


def _rounded(spelled: str, number: Number) -> bool:
    """Whether this is the number, cut or rounded to three decimals or more."""
    whole, _, decimals = spelled.partition(".")
    if len(decimals) < 3 or not decimals.isdigit() or not whole.lstrip("-").isdigit():
        return False
    return abs(float(spelled) - float(number)) < 10.0 ** -len(decimals)


_STATEMENT = (
    r"(?:answer|result|solution|conclusion)\b[^.?!\n]{0,40}?(?:\bis|\bbe|:|=|equals)"
    r"(?:\s{0,9}that\b)?[\W_]{0,99}(?:text\b[\W_]{0,9})?"
)


def _phrase(wanted: Answer, asked: Asked, text: str) -> str | None:
    """The words that give the answer away, or None."""
    if wanted.choice:
        letter = wanted.choice
        found = re.search(
            rf"\\boxed\s{{0,9}}\{{\W{{0,9}}(?:\\text\W{{0,9}})?{letter}\W{{0,9}}\}}"
            rf"|{_STATEMENT}(?:(?:option|choice)[\W_]{{0,9}})?{letter}(?![\w'])"
            rf"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)[\s:*(]*{letter}(?![\w'])|\({letter}\)|\\textbf\{{{letter}\}}"
            rf"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ii]t)\s+(?:must|would|will|should)\s+be\W+{letter}(?=[*).,;:!]|\s*$)"
            rf"|\b(?:[Pp]ick|[Cc]hoose|[Ss]elect|[Mm]ark)\s+(?:option|choice|answer|letter)?[\W_]*{letter}[*)_$]*(?=[.,;:!]|\s*$)"
            rf"|\b{letter}[*)_]*\s+is\s+(?:the\s+)?(?:correct|right)\b",
            text,
            re.MULTILINE,
        )
        return found[0].strip() if found else None
    words = None
    for phrase in wanted.phrases:
        if not phrase or (wanted.parts and f" {phrase} " in asked.words):
            continue
        words = f" {plain_words(text)} " if words is None else words
        if phrase in _SAYS_NOTHING or f" {phrase} " in asked.words:
            found = re.search(
                _STATEMENT + re.escape(phrase) + r"\b|boxed\W*(?:text\W*)?" + re.escape(phrase), text, re.IGNORECASE
            )
            if wanted.parts and not found:
                found = re.search(_CLAUSE_END + phrase + r"(?=\s*(?:[.;:!)\n]|$))", text, re.IGNORECASE)
            if found:
                return found[0]
        elif phrase in _COMMON and not wanted.parts:
            own = "" if wanted.whole.islower() else rf"|\b{re.escape(wanted.whole)}\b"
            said = rf"(?i:{_STATEMENT}{phrase}\b|[\"'`*{{\u201c\u2018]{phrase}[\"'`*}}\u201d\u2019])"
            if found := re.search(said + own, text):
                return found[0]
        elif f" {phrase} " in words:
            return phrase
    return None
