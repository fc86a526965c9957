# ruff: noqa: SIM905
r"""A small reader of formulas in plain text or LaTeX: tokens -> a value at a point. Nothing is evaluated as code.

It knows numbers, letters, + - * / ^ ! %, brackets, fractions, roots, binomials and elementary functions. Two formulas
are taken for equal when they have the same values at a few points: exactly for rationals, to 9 digits otherwise.
Everything is bounded, so it is safe on hostile text: long formulas and huge powers have no value.
"""

import math
import re
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

Number = Fraction | float
Point = int
"""Which values the letters take: 0 and 1 are whole numbers, 2 is not."""
POINTS: tuple[Point, ...] = (0, 1, 2)

TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+(?![A-Za-z]))?|\.[0-9]+)
    |(?P<name>\\[A-Za-z]+|[A-Za-z]+)
    |(?P<sign>[-+*/^!%(){}\[\]|,_'])
    )""",
    re.VERBOSE,
)
FUNCTIONS: dict[str, Callable[[Any], float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "ln": math.log,
    "log": math.log,
    "exp": math.exp,
    "floor": math.floor,
    "abs": abs,
}
"""Functions of one number by name."""
CONSTANTS = {"pi": math.pi, "e": math.e}
GREEK = frozenset("alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi omega".split())
_CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|"}
_LONGEST, _DEEPEST, _LARGEST_BITS = 300, 30, 20_000


class Unreadable(ValueError):
    """No formula that this reader knows, or one that is too large."""


def same(first: str, second: str) -> bool | None:
    """Whether two formulas have the same values; None where one of them cannot be read."""
    agreed = 0
    for point in POINTS:
        try:
            one, other = value(first, point), value(second, point)
        except Unreadable:
            return None
        except (ArithmeticError, ValueError):  # Not defined at this point.
            continue
        if not close(one, other):
            return False
        agreed += 1
    return True if agreed >= 2 else None


def close(first: Number, second: Number) -> bool:
    """Whether two values are the same: exactly for fractions, to 9 digits where one is rounded."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    try:
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:
        return False


@lru_cache(maxsize=4096)
def value(formula: str, point: Point = 0) -> Number:
    """The formula's value with letters at a point; Unreadable, or ArithmeticError and ValueError where it has none."""
    tokens = _tokens(formula)
    reader = _Reader(tokens, point)
    result = reader.sum(0)
    if reader.at < len(tokens):
        raise Unreadable(formula)
    return result


def letters(formula: str) -> frozenset[str]:
    """The letters (and Greek names) that stand for numbers in a formula."""
    names = (match["name"].lstrip("\\") for match in TOKEN.finditer(formula) if match["name"])
    return frozenset(
        letter
        for name in names
        if name not in FUNCTIONS and name not in CONSTANTS
        for letter in ([name] if name in GREEK else name if len(name) <= 3 else ())
    )


def _tokens(formula: str) -> list[str]:
    """The formula in tokens, runs of letters cut into letters."""
    if len(formula) > _LONGEST:
        raise Unreadable("too long")
    tokens: list[str] = []
    at = 0
    formula = formula.strip()
    while at < len(formula):
        match = TOKEN.match(formula, at)
        if match is None:
            raise Unreadable(formula)
        at = match.end()
        text = match[0].strip()
        known = text.lstrip("\\") in {*FUNCTIONS, "sqrt", "pi"} or text.startswith("\\")
        tokens += [text] if match["number"] or match["sign"] or known else list(text)
    return tokens


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tokens: Sequence[str], point: Point) -> None:
        self.tokens, self.point, self.at = tokens, point, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{wanted or 'more'} expected")
        self.at += 1
        return token

    def sum(self, depth: int) -> Number:
        if depth > _DEEPEST:
            raise Unreadable("too deep")
        total = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product(depth)
            total = _bounded(total + term if sign == "+" else total - term)
        return total

    def product(self, depth: int) -> Number:
        total = self.signed(depth)
        while (token := self.peek()) and token not in "+-)}]|,":
            if token in "*/":
                self.take()
            factor = self.signed(depth)
            total = _bounded(total / factor if token == "/" else total * factor)
        return total

    def signed(self, depth: int) -> Number:
        if depth > _DEEPEST:
            raise Unreadable("too deep")
        if self.peek() in ("+", "-"):
            return -self.signed(depth + 1) if self.take() == "-" else self.signed(depth + 1)
        base = self.marked(depth)
        if self.peek() == "^":
            self.take()
            return _power(base, self.signed(depth + 1))
        return base

    def marked(self, depth: int) -> Number:
        whole = self.peek()
        result = self.primary(depth + 1)
        if whole.isdigit() and self.tokens[self.at : self.at + 1] == ["\\frac"]:  # 2\frac{1}{3} is a mixed number.
            ahead = self.tokens[self.at + 1 : self.at + 7]
            if len(ahead) == 6 and ahead[1].isdigit() and ahead[4].isdigit() and ahead[0] == ahead[3] == "{":
                result = result + self.primary(depth + 1)
        while self.peek() in ("!", "%"):
            result = _factorial(result) if self.take() == "!" else result / 100
        return result

    def primary(self, depth: int) -> Number:
        token = self.take()
        name = token.lstrip("\\")
        if token[0].isdigit() or token[0] == ".":
            return _literal(token)
        if token in _CLOSING:
            inside = self.sum(depth)
            self.take(_CLOSING[token])
            return max(inside, -inside) if token == "|" else inside
        if name == "frac":
            above, below = self.argument(depth), self.argument(depth)
            return _bounded(above / below)
        if name == "binom" or (token == "C" and self._two_arguments()):
            return _binomial(*(self._pair(depth) if token == "C" else (self.argument(depth), self.argument(depth))))
        if name == "sqrt":
            degree: Number = Fraction(2)
            if self.peek() == "[":
                self.take()
                degree = self.sum(depth)
                self.take("]")
            return _power(self.argument(depth), 1 / degree)
        if name == "log" and self.peek() == "_":
            self.take()
            base = math.log(self.argument(depth))
            return math.log(self.argument(depth)) / base
        if name in FUNCTIONS:
            return float(FUNCTIONS[name](self.argument(depth)))
        if name in CONSTANTS:
            return CONSTANTS[name]
        if (len(name) == 1 and name.isalpha()) or name in GREEK:
            return _at(name + self._subscript(), self.point)
        raise Unreadable(token)

    def argument(self, depth: int) -> Number:
        """What a command or a function is applied to: a bracket, or the next token alone."""
        token = self.peek()
        if token in _CLOSING or not token.isdigit() or len(token) == 1:
            return self.primary(depth + 1)
        # \frac12 is a half.
        tokens = list(self.tokens)
        tokens[self.at : self.at + 1] = list(token)
        self.tokens = tokens
        return self.primary(depth + 1)

    def _subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        if self.peek() != "{":
            return "_" + self.take()
        end = self.tokens.index("}", self.at) if "}" in self.tokens[self.at :] else len(self.tokens)
        text = "".join(self.tokens[self.at + 1 : end])
        self.at = end + 1
        return "_" + text

    def _two_arguments(self) -> bool:
        """Whether `(a, b)` follows: the C of C(10, 5)."""
        depth = 0
        for token in self.tokens[self.at :]:
            depth += (token in "({[") - (token in ")}]")
            if token == "," and depth == 1:
                return True
            if depth <= 0:
                return False
        return False

    def _pair(self, depth: int) -> tuple[Number, Number]:
        self.take("(")
        first = self.sum(depth)
        self.take(",")
        second = self.sum(depth)
        self.take(")")
        return first, second


def _at(name: str, point: Point) -> Number:
    """The value of a letter at a point; distinct letters have distinct values, nearly surely."""
    spread = zlib.crc32(f"{name} {point}".encode())
    return Fraction(spread % 23 + 2) if point < 2 else 1.1 + spread % 9973 / 5000


def _literal(text: str) -> Number:
    """A number as it is written."""
    digits, _, exponent = text.replace(",", "").lower().partition("e")
    if len(digits) > 500 or (exponent and abs(int(exponent[:5])) > 300):
        raise Unreadable(text)
    number = Fraction(int(digits) if digits.isdecimal() else digits)
    return number * Fraction(10) ** int(exponent) if exponent else number


def _power(base: Number, exponent: Number) -> Number:
    """base ** exponent, exactly where both are small enough."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            if _bits(base) * abs(exponent.numerator) > _LARGEST_BITS:
                raise Unreadable("too large")
            return Fraction(base**exponent.numerator)
        if base >= 0 and exponent == Fraction(1, 2):
            roots = math.isqrt(base.numerator), math.isqrt(base.denominator)
            if (roots[0] ** 2, roots[1] ** 2) == (base.numerator, base.denominator):
                return Fraction(*roots)
    return _real(float(base) ** float(exponent))


def _factorial(number: Number) -> Number:
    """number!, by the gamma function where it is not whole."""
    if isinstance(number, Fraction) and number.denominator == 1 and 0 <= number <= 200:
        return Fraction(math.factorial(int(number)))
    return math.gamma(float(number) + 1)


def _binomial(above: Number, below: Number) -> Number:
    """The binomial coefficient."""
    if isinstance(above, Fraction) and isinstance(below, Fraction) and above.denominator == below.denominator == 1:
        if 0 <= below <= above <= 1000:
            return Fraction(math.comb(int(above), int(below)))
        raise ArithmeticError("outside of Pascal's triangle")
    return _factorial(above) / (_factorial(below) * _factorial(above - below))


def _real(number: complex) -> float:
    """A finite real number, or ArithmeticError."""
    if isinstance(number, complex) or not math.isfinite(number):
        raise ArithmeticError("no real number")
    return number


def _bounded(number: Number) -> Number:
    """The number, a rounded one where it is a fraction of many digits."""
    return float(number) if isinstance(number, Fraction) and _bits(number) > _LARGEST_BITS else number


def _bits(number: Fraction) -> int:
    """Bits of numerator and denominator."""
    return number.numerator.bit_length() + number.denominator.bit_length()


def balanced(tokens: Sequence[str]) -> list[list[str]]:
    """Tokens cut at the brackets that have no partner."""
    open_at: list[int] = []
    lone: set[int] = set()
    for at, token in enumerate(tokens):
        if token in ("(", "{", "["):
            open_at.append(at)
        elif token in (")", "}", "]"):
            if open_at:
                open_at.pop()
            else:
                lone.add(at)
    cuts = [-1, *sorted(lone | set(open_at)), len(tokens)]
    return [list(tokens[start + 1 : end]) for start, end in pairwise(cuts) if end > start + 1]
