r"""The `quantity` grader: a number with a unit, within a tolerance; 980 cm/s^2 is 9.8 m/s^2.

The reference is the problem's answer, with its unit behind it or in the metadata's `unit` ("1" for plain numbers). The
metadata's `relative_tolerance` and `absolute_tolerance` (in the reference's unit) say how near is near enough, the wider where
there are both; where there is neither, DEFAULT_TOLERANCE is the relative one.

An answer without a unit is taken to be in the reference's, or in none where that is a ratio (percent, degrees). Where the
reference has no unit, that of the answer is ignored, as by the `math` grader, or applied where it is a ratio. What is left to
compute (37+58) is no answer, as there. Other numbers (2\pi, \sqrt{2}) are evaluated through math-verify, in a worker.
A reference that is no number (a formula) is left to `math` altogether.
"""

import math
import re
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from guide_rl.graders import math_answer
from guide_rl.graders.answer_text import CORRECT, WRONG, answer_or_grade, final_answer, plain, unwrapped
from guide_rl.graders.math_answer import NOT_EVALUATED
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.graders.units import Unit, raised, unit_of
from guide_rl.types import Grade, Problem

WRONG_UNIT = Grade(0.0, False, "wrong unit")

TOLERANCES = ("relative_tolerance", "absolute_tolerance")
DEFAULT_TOLERANCE = 0.01
_ROUNDING = 1e-12
"""What a conversion of units may change, relative to the reference."""
_CUTS = 40
"""Places in an answer at which its unit is looked for."""

_SPACES = ((re.compile(r"\{,\}"), ","), (re.compile(r"\\!|\$"), ""), (re.compile(r"\\[,;: ]|~|\s+"), " "))
_MACROS = (
    (re.compile(r"\\(?:SI|qty)\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"\1 \2"),
    (re.compile(r"\\(?:si|unit)\s?\{([^{}]*)\}"), r"\1"),
)
"""Of siunitx."""
_NO_NUMBER = re.compile(r"['\"_\u2032\u2033]")
"""What math-verify reads over: 5' and 5_0 are not 5."""
_IN_FRONT = re.compile(r"^\\text(?:bf|it|rm)?\s?\{([^{}]*)\}|^\\math(?:bf|rm|it|sf)\s?\{([^{}]*)\}")
_EQUALS = re.compile(r"=|\\(?:approx|simeq|sim)(?![A-Za-z])|\u2248|^\s*(?:about|approximately|approx\.?|roughly)\b")
_UNEQUAL = re.compile(r"[<>\u2264\u2265\u2260!]|\\(?:[lg]eq?|neq?|[lg]t)(?![A-Za-z])")
_DIGITS = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)(?![0-9])(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"10\s?(?:\^|\*\*)\s?[{(]{0,2}([+-]?[0-9]{1,3})[)}]{0,2}"
_NUMBER = re.compile(
    r"\s*([+-]?)\s?(?:"
    r"\\[dt]?frac\s?\{([0-9]+(?:\.[0-9]+)?)\}\s?\{([0-9]+(?:\.[0-9]+)?)\}|([0-9]+)\s?/\s?([0-9]+)"
    rf"|{_POWER}|({_DIGITS})(?:[eE]([+-]?[0-9]{{1,3}})(?![0-9])|\s?(?:\*|x|\\times|\\cdot|\u00d7|\u00b7)\s?{_POWER})?"
    r")(?![0-9.,]|\s?\^(?!\s?\{?\s?\\(?:circ|degree)))"
)
_CUT = re.compile(r" |\\(?=[A-Za-z%])|(?<=[0-9)}])(?=[A-Za-z\u00b5\u03bc\u03a9\u00b0%^])")
_COMMAND = re.compile(r"\\[A-Za-z]+|(?<![A-Za-z])e(?![A-Za-z])")
_LETTERS = re.compile(r"[^\W\d_]")


class Quantity(NamedTuple):
    """A number and its unit."""

    number: float
    unit: Unit | None
    """None where nothing is said of one."""


def check(problem: Problem) -> None:
    """Raise GraderSetupError where the metadata's unit or tolerance cannot be used."""
    unit = problem.metadata.get("unit")
    if unit is not None and (not isinstance(unit, str) or (unit.strip() and unit_of(unit.strip()) is None)):
        raise GraderSetupError(
            f"grader quantity does not know the unit {unit!r:.40}; write it in SI units (kg m/s^2, km/h, degC, %), or leave "
            "it out and units are ignored"
        )
    for name in TOLERANCES:
        given = problem.metadata.get(name, 0)
        if not isinstance(given, int | float | str) or not 0 <= _float(given) < math.inf:
            raise GraderSetupError(f"grader quantity: {name} is {given!r:.40}; use a number from 0 on")
    own = _read(problem.answer)
    if isinstance(own, Quantity) and own.unit and isinstance(unit, str):
        said = unit_of(unit.strip())
        if said and said.powers != own.unit.powers:
            raise GraderSetupError(
                f"grader quantity: the answer {problem.answer!r:.40} is not in the unit {unit!r:.40}"
            )


def prepare() -> None:
    """Import math-verify."""
    math_answer.prepare()


def quick_grade(problem: Problem, text: str) -> Grade | None:
    """The grade where the answer is a number in digits with a unit that is known, else None."""
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade):
        return answer
    reference = _reference(problem.answer, problem.metadata.get("unit"))
    if reference is None:
        return math_answer.quick_grade(problem, text)
    given = _read(answer)
    return given if given is None or isinstance(given, Grade) else _compare(problem, given, reference)


def thorough_grade(problem: Problem, text: str) -> Grade:
    """What the quick decision leaves open, with the number evaluated by math-verify. No limits of its own."""
    if (grade := quick_grade(problem, text)) is not None:
        return grade
    reference = _reference(problem.answer, problem.metadata.get("unit"))
    if reference is None:
        return math_answer.thorough_grade(problem, text)
    answer = answer_or_grade(text, problem.answer)
    if isinstance(answer, Grade) or _UNEQUAL.search(answer):
        return WRONG
    for number, unit in _parts(_value_part(answer)):
        if _NO_NUMBER.search(number):
            continue
        if reference.unit is not None and _LETTERS.search(_COMMAND.sub("", number)):
            continue
        if math_answer.left_to_do(plain(number), whole=False):
            return NOT_EVALUATED
        if (value := math_answer.value_of(number)) is not None and math.isfinite(value):
            return _compare(problem, Quantity(value, unit), reference)
    return WRONG


def _compare(problem: Problem, given: Quantity, reference: Quantity) -> Grade:
    """Whether two quantities agree within the problem's tolerance."""
    values = _in_unit(given, reference.unit)
    relative, absolute = (problem.metadata.get(name) for name in TOLERANCES)
    if relative is None and absolute is None:
        relative = DEFAULT_TOLERANCE
    size = abs(reference.number)
    allowed = max(_float(relative or 0) * size, _float(absolute or 0)) + _ROUNDING * size
    if not values:
        return WRONG_UNIT
    return CORRECT if any(abs(value - reference.number) <= allowed for value in values) else WRONG


def _in_unit(given: Quantity, unit: Unit | None) -> list[float]:
    """The numbers that a quantity may be in a unit; none where it cannot be in it."""
    number = given.number
    if given.unit is None:
        return [number, number / unit.factor] if unit and unit.is_ratio else [number]
    if unit is None:
        return [number, number * given.unit.factor] if given.unit.is_ratio else [number]
    if given.unit.powers != unit.powers:
        return []
    return [(number * given.unit.factor + given.unit.zero - unit.zero) / unit.factor]


@lru_cache(maxsize=4096)
def _reference(answer: str, unit: object) -> Quantity | None:
    """The reference quantity; None where the answer is no number."""
    read = _read(final_answer(answer) or answer)
    if not isinstance(read, Quantity):
        return None
    return Quantity(read.number, read.unit or (unit_of(unit.strip()) if isinstance(unit, str) else None))


def _read(answer: str) -> Quantity | Grade | None:
    """The quantity that an answer spells in digits; a Grade where it is left to do, None where it is something else."""
    if _UNEQUAL.search(answer):
        return None
    answer = _value_part(answer)
    found = _NUMBER.match(answer)
    if found is None:
        return None
    rest = answer[found.end() :].strip()
    unit = unit_of(f"1{rest}" if rest.startswith("/") else rest) if rest else None
    if rest and unit is None:
        return None
    sign, *fraction, power, digits, exponent, times = found.groups()
    top, bottom = fraction[:2] if fraction[0] else fraction[2:]
    if top:
        if float(bottom) == 0:
            return None
        number = float(top) / float(bottom)
        if number.is_integer():
            return NOT_EVALUATED
    else:
        number = _float(re.sub("[, ]", "", digits or "1") + f"e{power or exponent or times or 0}")
    return Quantity(-number if sign == "-" else number, unit) if math.isfinite(number) else None


def _value_part(answer: str) -> str:
    """The answer after its last equals sign, in one spelling of spaces and signs."""
    answer = raised(_EQUALS.split(unwrapped(answer).replace("\u2212", "-"))[-1])
    for pattern, replacement in (*_MACROS, *_SPACES):
        answer = pattern.sub(replacement, answer)
    return _IN_FRONT.sub(r"\1\2", answer.strip())


def _parts(answer: str) -> list[tuple[str, Unit | None]]:
    """The ways to cut an answer into a number and a unit, then all of it without one."""
    cuts = [found.start() for found in islice(_CUT.finditer(answer), _CUTS)]
    units = [(answer[:cut], unit_of(answer[cut:])) for cut in cuts if cut]
    return [(number, unit) for number, unit in units if unit is not None] + [(answer, None)]


def _float(text: str | float) -> float:
    """A number, also from text; not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
