# ruff: noqa: PIE800, SIM905
"""Numbers and arithmetic in English words."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6}
_SMALL = {word: at for at, word in enumerate(ONES)} | {word: 10 * at for at, word in enumerate(TENS) if at > 1}
_PARTS = {
    **{f"{word}th": at for at, word in enumerate(ONES) if at in (4, 6, 7, 10, 11) or at > 12},
    **{"half": 2, "halve": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12},
    **{"twentieth": 20, "hundredth": 100, "thousandth": 1000},
}
_SIGNS = {
    **{"plus": "+", "minus": "-", "negative": "-", "times": "*", "multiplied by": "*", "divided by": "/", "over": "/"},
    **{"squared": "^2", "cubed": "^3", "to the power of": "^", "factorial": "!", "percent": "%", "per cent": "%"},
    **{"percent of": "%*", "per cent of": "%*", "% of": "%*"},
    **{"twice": "2*", "double": "2*", "square root of": "sqrt", "sum of": "sum", "product of": "product"},
}


def _any(words: dict[str, int] | dict[str, str]) -> str:
    """A pattern for these words; blanks may be of any length."""
    return "|".join(sorted((word.replace(" ", r"\s{1,3}") for word in words), reverse=True))


_TOKEN = re.compile(
    rf"(?<![a-z\\])(?:(?P<word>{_any(_SMALL)})|(?P<scale>{_any(SCALES)})"
    rf"|(?P<article>an?\s)?(?P<part>{_any(_PARTS)})s?(?P<of>\s+of(?:\s+the)?)?|(?P<sign>{_any(_SIGNS)}))(?![a-z])"
    r"|(?<![\w.,^/])(?P<digits>[0-9][0-9,]{0,30}(?:\.[0-9]{1,30})?)(?![\w^/*])"
)
_GAP = re.compile(r"[\s\x01\x02-]*(?P<both>\sand\s+)?(?:the\s+)?")
_CLAUSE_END = re.compile(r"\s*(?:[^\w\s]|$)")
_PLAIN = re.compile(r"[0-9]*|\([0-9]+/[0-9]+\)")
_LONGEST = 16
"""Words of one number at most; more are more numbers."""


class _Piece(NamedTuple):
    """A number or a sign of a phrase."""

    start: int
    end: int
    spelled: str
    words: bool
    """Whether it is a number in words."""


def worded(text: str) -> Iterator[tuple[int, int, str]]:
    """The numbers and the arithmetic that a text in lower case spells in words, at least partly: (start, end, formula).

    "two hundred and forty-two", "2 hundred 42", "1.5 million", "a dozen", "minus three per cent", "seven twelfths",
    "one and a half", "6 times four", "the square root of 12", "half of 84".
    """
    phrase, start, end = "", 0, 0
    for piece in _pieces(text):
        gap = _GAP.fullmatch(text, end, piece.start) if phrase else None
        if phrase and gap is None:
            yield from ((start, end, formula) for formula in _arithmetic(phrase))
            phrase = ""
        if not phrase:
            start = piece.start
        elif gap is not None:
            phrase += "&" if gap["both"] else " "
        if piece.words and not phrase.endswith("- "):
            yield piece.start, piece.end, piece.spelled.strip("()*")
        phrase, end = phrase + piece.spelled, piece.end
    yield from ((start, end, formula) for formula in _arithmetic(phrase))


def _arithmetic(phrase: str) -> Iterator[str]:
    """The formulas in a phrase of which the words are signs already, plain numbers left out."""
    if _PLAIN.fullmatch(phrase):
        return
    phrase = re.sub(r"([0-9]+)&\(([0-9]+/[0-9]+)\)", r"(\1+\2)", phrase)
    phrase = re.sub(r"sqrt ([0-9][0-9.]*|\([^ &]+\))", r"sqrt(\1)", phrase)
    for name, sign in (("sum", "+"), ("product", "*")):
        for listed in re.findall(rf"{name} ([^ &]+(?:&[^ &]+)+)", phrase):
            phrase = phrase.replace(f"{name} {listed}", listed.replace("&", sign))
    phrase = re.sub(r" ?([-+*/^]) ?| (?=[!%])", r"\1", phrase)
    for formula in re.split("[ &]", phrase):
        formula = formula.strip("+*/^").rstrip("-")
        if not _PLAIN.fullmatch(formula) and re.search("[0-9]", formula):
            yield formula


def _pieces(text: str) -> Iterator[_Piece]:
    """The numbers and signs of a text in lower case."""
    number: list[re.Match[str]] = []
    for match in _TOKEN.finditer(text):
        if number and not _continues(number, match, text):
            yield _number(number)
            number = []
        if match["word"] or match["scale"] or match["digits"]:
            number.append(match)
        elif match["sign"]:
            yield _Piece(*match.span(), _SIGNS[re.sub(r"\s+", " ", match["sign"])], words=False)
        else:
            part = Fraction(_value(number) if number else 1, _PARTS[match["part"]])
            counted = bool(number or (match["article"] and (match["of"] or _CLAUSE_END.match(text, match.end()))))
            start = number[0].start() if number else match.start()
            spelled = f"({part.numerator}/{part.denominator}){'*' if match['of'] else ''}"
            yield _Piece(start, match.end(), spelled, counted)
            number = []
    if number:
        yield _number(number)


def _number(run: list[re.Match[str]]) -> _Piece:
    """The number that words and digits make together."""
    value = _value(run)
    spelled = str(value) if value.denominator == 1 else f"({value})"
    words = any(not match["digits"] for match in run)
    return _Piece(run[0].start(), run[-1].end(), spelled, words)


def _continues(run: list[re.Match[str]], match: re.Match[str], text: str) -> bool:
    """Whether a word or number goes on with the number before it: the two of twenty-two, not that of three two."""
    last = run[-1]
    gap = _GAP.fullmatch(text, last.end(), match.start())
    if gap is None or match["sign"] or match["article"] or len(run) == _LONGEST:
        return False
    if match["scale"] or match["part"]:
        return not gap["both"] and gap[0] != ""
    number = _value([match])
    if last["scale"]:
        return number < SCALES[last["scale"]] and last["scale"] != "dozen"
    return (
        not gap["both"]
        and bool(last["word"])
        and bool(match["word"])
        and number in range(1, 10)
        and _value([last]) >= 20
    )


def _value(run: list[re.Match[str]]) -> Fraction:
    """The value of a number's words and digits."""
    total = current = Fraction(0)
    for match in run:
        if scale := SCALES.get(match["scale"] or ""):
            current = (current or Fraction(1)) * scale
            if scale >= 1000:
                total, current = total + current, Fraction(0)
        else:
            current += _SMALL[match["word"]] if match["word"] else Fraction(match["digits"].replace(",", ""))
    return total + current


def spelled_out(number: Fraction) -> Iterator[str]:
    """A number in English words: whole ones below a billion and simple fractions."""
    sign = [""] if number >= 0 else ["minus ", "negative "]
    size = abs(number)
    parts = {bottom: word for word, bottom in _PARTS.items() if word != "halve"}
    if size.denominator == 1 and size < 10**9:
        yield from (mark + _words(int(size)) for mark in sign)
    elif size.denominator in parts and size.numerator < 20:
        many = "" if size.numerator == 1 else "s"
        part = "halves" if many and size.denominator == 2 else parts[size.denominator] + many
        yield from (f"{mark}{_words(size.numerator)} {part}" for mark in sign)


def _words(number: int) -> str:
    """A whole number from 0 to 999,999,999 in words, without hyphens."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    name = "million" if number >= 10**6 else "thousand" if number >= 1000 else "hundred"
    rest = f" {_words(number % SCALES[name])}" if number % SCALES[name] else ""
    return f"{_words(number // SCALES[name])} {name}{rest}"
