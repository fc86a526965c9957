r"""The `math` grader: the final answer means the same as the reference answer.

`quick_grade` decides equal spellings, numbers, fractions, lists of them and words in microseconds; math-verify compares
the rest (matrices, equations, expressions) in milliseconds, or in hours: give that a hard limit.

Beyond math-verify: a sum, difference, product or whole-number quotient of plain numbers is not an answer where a
plain number is asked for. `37+58` must not earn what `95` earns, or a policy learns to repeat the question.
Percentages are compared here: math-verify reads them with antlr 4.13 only, and verl holds antlr at 4.9.
As in math-verify, units are ignored, 50% equals both 0.5 and 50, decimals in an expression are compared to six places,
and the order within a bare list (1, 2) does not matter. Digits other than ASCII are no digits.
"""

import logging
import re
from fractions import Fraction
from functools import cache
from typing import Any

from guide_rl.graders.answer_text import CORRECT, WRONG, answer_or_grade, final_answer, plain, plain_number, unwrapped
from guide_rl.types import Grade, Problem

NOT_EVALUATED = Grade(0.0, False, "not evaluated")

_TIMES = re.compile(r"\\(?:times|cdot|div)(?![A-Za-z])")
_QUOTIENT = re.compile(r"\\frac\{?([+-]?[0-9]+)\}?\{([+-]?[0-9]+)\}")
_ARITHMETIC = re.compile(r"[0-9.+\-*/()\xd7\xb7\xf7 ]+")
_OPERATION = re.compile(r"[0-9.)] ?[+\-*/\xd7\xb7\xf7]")
_FRACTION = re.compile(r"[+-]?(?:[0-9]+ ?)?\(?[+-]?[0-9]+/[+-]?[0-9]+\)?")
_RATIONAL = re.compile(
    r"([+-]?)(?:([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})|([0-9]{1,30})/([0-9]{1,30})|\\frac([0-9])([0-9])"
    r"|\\frac\{([+-]?[0-9]{1,30})\}\{([0-9]{1,30})\})"
)
_BRACKETED = re.compile(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", re.DOTALL)
_PERCENT = re.compile(r"\s*\\?%$")
_CLOSE = Fraction(1, 1000)
"""Fractions that are nearer are left to math-verify, which rounds."""
_WORDS = re.compile(r"[A-Za-z]{4,}(?: [A-Za-z]+)*")


def quick_grade(problem: Problem, text: str) -> Grade | None:
    """The grade where it takes no algebra, else None."""
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    given, reference = plain(answer), plain(problem.answer)
    if given == reference:
        return CORRECT
    number = plain_number(reference)
    if number is not None:
        given_number = plain_number(given)
        if given_number is not None:
            return CORRECT if given_number == number else WRONG
        if left_to_do(given, whole=number == number.to_integral_value()):
            return NOT_EVALUATED
    # math-verify reads bare words as products of letters, and products commute: "listen" would equal "silent".
    if _WORDS.fullmatch(reference):
        return CORRECT if given.casefold() == reference.casefold() else WRONG
    return _compare_rationals(given, reference)


def _compare_rationals(given: str, reference: str) -> Grade | None:
    """The grade of two fractions, or of two tuples, intervals or sets of fractions, that plainly agree or differ."""
    if (_PERCENT.search(given) is None) != (_PERCENT.search(reference) is None):
        return _compare_percentage(given, reference)
    one, other = (_rationals(_PERCENT.sub("", answer)) for answer in (given, reference))
    if one is None or other is None or one[0] != other[0]:
        return None
    if one == other:
        return CORRECT
    apart = len(one[1]) != len(other[1]) or any(abs(a - b) > _CLOSE for a, b in zip(one[1], other[1], strict=True))
    return WRONG if apart else None


def _compare_percentage(given: str, reference: str) -> Grade | None:
    """The grade of two fractions of which one is a percentage: 50% equals 50 and 0.5."""
    percentage, other = (given, reference) if _PERCENT.search(given) else (reference, given)
    share, number = _rationals(_PERCENT.sub("", percentage)), _rationals(other)
    if share is None or number is None or share[0] or number[0]:
        return None
    apart = min(abs(number[1][0] - share[1][0] / parts) for parts in (1, 100))
    return CORRECT if apart == 0 else WRONG if apart > _CLOSE else None


def _rationals(answer: str) -> tuple[str, list[Fraction]] | None:
    """The brackets of an answer and the fractions in them, a set's in order; None where it holds anything else."""
    found = _BRACKETED.fullmatch(answer)
    brackets, inner = (found[1] + found[3], found[2].split(",")) if found else ("", [answer])
    values = []
    for part in inner:
        if (number := _RATIONAL.fullmatch(part.strip())) is None:
            return None
        sign, top, bottom = ([each for each in number.groups() if each is not None] + ["1"])[:3]
        if not int(bottom):
            return None
        values.append(Fraction(top) / int(bottom) * (-1 if sign == "-" else 1))
    return brackets, sorted(set(values)) if brackets == r"\{\}" else values


def thorough_grade(problem: Problem, text: str) -> Grade:
    """What math-verify says; correct only where it can read both answers as mathematics. No limits of its own."""
    parse, verify, reading = _math_verify()
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    reference = final_answer(problem.answer) or problem.answer
    percentages = [_PERCENT.search(plain(spelled)) for spelled in (answer, reference)]
    if percentages.count(None) == 1 and (grade := _compare_percentage(plain(answer), plain(reference))):
        return grade
    if all(percentages):
        answer, reference = (_PERCENT.sub("", plain(spelled)) for spelled in (answer, reference))
    # Its own limits are signals that only a main thread can take; the pool's limits hold everywhere.
    given, expected = (parse(f"\\boxed{{{unwrapped(spelled)}}}", **reading) for spelled in (answer, reference))
    return CORRECT if verify(expected, given, timeout_seconds=None) else WRONG


def left_to_do(given: str, *, whole: bool) -> bool:
    """Whether the answer is arithmetic on plain numbers; a fraction is not where the reference is not whole."""
    spelled = _QUOTIENT.sub(r"(\1/\2)", _TIMES.sub("*", given))
    if not _ARITHMETIC.fullmatch(spelled) or not _OPERATION.search(spelled):
        return False
    return whole or not _FRACTION.fullmatch(spelled)


def value_of(answer: str) -> float | None:
    """The value of an answer without letters, by math-verify; None where it has none. No limits of its own."""
    parse, _, reading = _math_verify()
    for expression in parse(f"\\boxed{{{unwrapped(answer)}}}", **reading)[:1]:
        if getattr(expression, "is_number", False) and getattr(expression, "is_real", False):
            return float(expression)
    return None


def prepare() -> None:
    """Import math-verify and have it build its parser's tables."""
    thorough_grade(Problem("", "", r"\frac{1}{2}"), r"\boxed{0.5}")


@cache
def _math_verify() -> tuple[Any, Any, dict[str, Any]]:
    """math-verify's parse and verify, and how to read an answer: as LaTeX only, whole, or not at all."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # It warns that its limits are off.
    reading = {
        "extraction_config": [LatexExtractionConfig(boxed_match_priority=0)],
        "extraction_mode": "first_match",
        "fallback_mode": "no_fallback",
        "parsing_timeout": None,
    }
    return parse, verify, reading
