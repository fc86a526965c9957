# ruff: noqa: SIM905
"""Numbers in English words."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6}
_SMALL = {word: at for at, word in enumerate(ONES)} | {word: 10 * at for at, word in enumerate(TENS) if at > 1}
_PARTS = {
    2: "half",
    3: "third",
    4: "quarter",
    5: "fifth",
    6: "sixth",
    7: "seventh",
    8: "eighth",
    9: "ninth",
    10: "tenth",
}
_WORD = re.compile(
    rf"(?P<sign>\b(?:minus|negative)\s+)?"
    rf"(?:\b(?P<word>{'|'.join([*_SMALL, *SCALES])})\b|(?<![\w.,^/$])(?P<digits>[0-9][0-9,]*(?:\.[0-9]+)?)(?![\w^/*]))"
    r"(?P<percent>\s+per\s?cent\b)?",
    re.IGNORECASE,
)
_GAP = re.compile(r"[ \t\n-]+|(?P<both>\s+and\s+)")


def worded(text: str) -> Iterator[tuple[int, Fraction, bool]]:
    """The numbers that a text spells in words, at least partly: (where it starts, value, whether per cent).

    "two hundred and forty-two", "2 hundred 42", "1.5 million", "a dozen", "minus three per cent".
    """
    run: list[re.Match[str]] = []
    for match in [*_WORD.finditer(text), None]:
        if run and (match is None or not _continues(run, match, text)):
            if any(part["word"] for part in run):
                value = _value(run)
                yield run[0].start(), -value if run[0]["sign"] else value, bool(run[-1]["percent"])
            run = []
        if match is not None:
            run.append(match)


def _continues(run: Sequence[re.Match[str]], match: re.Match[str], text: str) -> bool:
    """Whether a word or number goes on with the number before it: the two of twenty-two, not that of three two."""
    last = run[-1]
    gap = _GAP.fullmatch(text, last.end(), match.start())
    if gap is None or match["sign"] or last["percent"]:
        return False
    scale = SCALES.get((last["word"] or "").lower(), 0)
    if match["word"] and match["word"].lower() in SCALES:
        return not gap["both"]
    number = _value([match])
    if scale:
        return number < scale and scale != 12
    return (
        not gap["both"]
        and bool(last["word"])
        and bool(match["word"])
        and number in range(1, 10)
        and _value([last]) >= 20
    )


def _value(run: Sequence[re.Match[str]]) -> Fraction:
    """The value of a number's words and digits."""
    total = current = Fraction(0)
    for match in run:
        word = (match["word"] or "").lower()
        if word in SCALES:
            current = (current or Fraction(1)) * SCALES[word]
            if SCALES[word] >= 1000:
                total, current = total + current, Fraction(0)
        else:
            current += _SMALL[word] if word else Fraction(match["digits"].replace(",", ""))
    return total + current


def spelled_out(number: Fraction) -> Iterator[str]:
    """A number in English words: whole ones below a billion and simple fractions."""
    sign = [""] if number >= 0 else ["minus ", "negative "]
    size = abs(number)
    if size.denominator == 1 and size < 10**9:
        yield from (mark + _words(int(size)) for mark in sign)
    elif size.denominator in _PARTS and size.numerator < 20:
        many = "" if size.numerator == 1 else "s"
        part = "halves" if many and size.denominator == 2 else _PARTS[size.denominator] + many
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
