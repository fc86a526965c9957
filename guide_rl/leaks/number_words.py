# ruff: noqa: SIM905
"""Numbers in English words."""

from collections.abc import Iterator
from fractions import Fraction

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
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


def spelled_out(number: Fraction) -> Iterator[str]:
    """A number in English words: whole ones below 10,000 and simple fractions."""
    sign = [""] if number >= 0 else ["minus ", "negative "]
    size = abs(number)
    if size.denominator == 1 and size < 10_000:
        yield from (mark + _words(int(size)) for mark in sign)
    elif size.denominator in _PARTS and size.numerator < 20:
        many = "" if size.numerator == 1 else "s"
        part = "halves" if many and size.denominator == 2 else _PARTS[size.denominator] + many
        yield from (f"{mark}{_words(size.numerator)} {part}" for mark in sign)


def _words(number: int) -> str:
    """A whole number from 0 to 9,999 in words, without hyphens."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    power, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = f" {_words(number % power)}" if number % power else ""
    return f"{_words(number // power)} {name}{rest}"
