r"""Units of measurement: `cm/s^2` -> a factor and powers of the SI's base units.

The SI, its prefixes, and what textbooks use beside it. Not pint: what models write is hostile, and all that is asked of a
unit here is a product of powers, without pint's expressions and types of numbers. Angles are numbers (rad is 1), so rpm and
Hz are both powers of s. A product binds tighter than a slash, as people write: `J/mol K` is `J/(mol K)`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from operator import add, mul

BASE = ("m", "kg", "s", "A", "K", "mol", "cd")
"""The units whose powers are a dimension."""


@dataclass(frozen=True)
class Unit:
    """What a number in this unit means: `number * factor + zero` in base units."""

    factor: float
    powers: tuple[Fraction, ...] = (Fraction(0),) * len(BASE)
    """Of the base units."""
    zero: float = 0.0
    """Not 0 for temperatures in degrees, which do not begin at 0 K."""

    @property
    def is_ratio(self) -> bool:
        """Whether it is a plain number, such as a percent or a degree."""
        return not any(self.powers)

    def __mul__(self, other: "Unit") -> "Unit":
        return Unit(self.factor * other.factor, tuple(map(add, self.powers, other.powers)))

    def __pow__(self, power: Fraction) -> "Unit":
        return Unit(self.factor ** float(power), tuple(each * power for each in self.powers))


_WITH_PREFIXES = """
g = 1e-3 kg; Hz = 1 1/s; N = 1 kg m/s^2; Pa = 1 N/m^2; J = 1 N m; W = 1 J/s; C = 1 A s; V = 1 W/A; F = 1 C/V; ohm = 1 V/A
S = 1 A/V; Wb = 1 V s; T = 1 Wb/m^2; H = 1 Wb/A; lm = 1 cd; lx = 1 lm/m^2; Bq = 1 1/s; Gy = 1 J/kg; Sv = 1 J/kg; kat = 1 mol/s
L = 1e-3 m^3; rad = 1 1; eV = 1.602176634e-19 J; bar = 1e5 Pa; cal = 4.184 J; Wh = 3600 J; M = 1e3 mol/m^3; Ci = 3.7e10 Bq
Da = 1.6605390666e-27 kg; pc = 3.0856775814913673e16 m; P = 0.1 Pa s; torr = 133.32236842105263 Pa
"""
_WITHOUT = """
% = 1e-2 1; ppm = 1e-6 1; ppb = 1e-9 1; sr = 1 1; deg = 0.017453292519943295 1; rev = 6.283185307179586 1; min = 60 s
h = 60 min; d = 24 h; week = 7 d; yr = 365.25 d; rpm = 1 rev/min
cc = 1e-6 m^3; t = 1e3 kg; u = 1 Da; ha = 1e4 m^2; angstrom = 1e-10 m; G = 1e-4 T
au = 149597870700 m; ly = 9460730472580800 m; atm = 101325 Pa; mmHg = 1 torr; dyn = 1e-5 N; erg = 1e-7 J; in = 0.0254 m
ft = 12 in; yd = 3 ft; mi = 1760 yd; lb = 0.45359237 kg; oz = 0.0625 lb; lbf = 4.4482216152605 N; psi = 6894.757293168361 Pa
mph = 1 mi/h; hp = 745.6998715822702 W; knot = 0.5144444444444445 m/s; degC = 1 K; degF = 0.5555555555555556 K
"""
_ZEROS = {"degC": 273.15, "degF": 459.67 / 1.8}
"""Zero in K of a temperature that stands alone; in a product these are differences."""
_NAMES = """
m meter metre; g gram gramme; s second sec; A ampere amp; K kelvin; mol mole; cd candela; Hz hertz; N newton; Pa pascal
J joule; W watt; C coulomb; V volt; F farad; ohm \u03a9 \u2126; S siemens; Wb weber; T tesla; H henry; lm lumen; lx lux
Bq becquerel; Gy gray; Sv sievert; kat katal; L liter litre l; rad radian; eV electronvolt; cal calorie; M molar; Ci curie
Da dalton; pc parsec; P poise; torr Torr; % percent; sr steradian; deg degree \u00b0; rev revolution turn; min minute
h hour hr hrs; d day; yr year yrs; t tonne; u amu; ha hectare; angstrom \u00c5 \u212b; G gauss; au AU; ly lightyear
atm atmosphere; dyn dyne; in inch inches; ft foot feet; yd yard; mi mile; lb pound lbs; oz ounce; hp horsepower
degC celsius; degF fahrenheit; kg Kg kgs
"""
"""Other names of units; words may be in the plural and in capitals."""
_SYMBOLS = {"f": -15, "p": -12, "n": -9, "u": -6, "\u00b5": -6, "\u03bc": -6, "m": -3, "c": -2, "d": -1, "h": 2}
_SYMBOLS |= {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_WORDS = {"": 0, "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "hecto": 2}
_WORDS |= {"kilo": 3, "mega": 6, "giga": 9, "tera": 12}
"""Prefixes of symbols and of words, as powers of ten."""

_LONGEST, _HIGHEST = 100, 12
"""Characters of a unit, and the highest power in one."""
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-")
_SMALL = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_RESPELLED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile("\u2103"), "degC"),
    (re.compile("\u2109"), "degF"),
    (re.compile("\u00ba"), "\u00b0"),
    (re.compile(r"\^?\s?\{?\s?\\(?:circ|degree)(?![A-Za-z])\s?\}?"), " \u00b0"),
    (re.compile(r"\^\s?\{\s?([^{}]*?)\s?\}"), r"^(\1)"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\$"), ""),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z])|\\[,;:! ]|[~*\u00b7\u22c5\u00d7]|(?<=[a-zA-Z])\.(?=[a-zA-Z])"), " "),
    (re.compile(r"\\mu(?![A-Za-z])\s?"), "u"),
    (re.compile(r"\\Omega(?![A-Za-z])"), "ohm"),
    (re.compile(r"\\AA(?![A-Za-z])"), "angstrom"),
    (re.compile(r"\\(?=%)"), ""),
    (re.compile(r"\\(?:text|math)(?:bf|rm|it|sf|up)?\s?\{([^{}]*)\}|\\mbox\s?\{([^{}]*)\}"), r"\1\2"),
    (re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"[{}]"), " "),
    (
        re.compile(r"(?:\u00b0|\bdeg(?:rees?)?)\s?(C|F)(?:elsius|ahrenheit)?\b", re.I),
        lambda found: f"deg{found[1].upper()}",
    ),
    (re.compile(r"\b(?:square|sq\.?) ([A-Za-z]+)"), r"\1^2"),
    (re.compile(r"\bcubic ([A-Za-z]+)"), r"\1^3"),
    (re.compile(r" squared\b"), "^2"),
    (re.compile(r" cubed\b"), "^3"),
    (re.compile(r"\blight[ -]year"), "lightyear"),
    (re.compile(r"\belectron[ -]volt"), "electronvolt"),
    (re.compile(r"\b([kcm]?m)s(?=\s?\^\s?\(?\s?-)"), r"\1 s"),  # ms^-2 is the metre's, never the millisecond's.
    (re.compile(r"\bper\b"), "/"),
]
"""One spelling for what people and LaTeX write."""
_NUMBER = r"[+-]?[0-9]{1,2}(?:/[0-9]|\.5)?"
_POWER = rf"(?:\s?\^\s?(?:\(\s?({_NUMBER})\s?\)|({_NUMBER}))|([+-]?[0-9])|)(?![0-9.,^])"
_TOKEN = re.compile(
    rf"\s*(?:([A-Za-z\u00b5\u03bc\u03a9\u2126\u00c5\u212b]+|[%\u00b0)]|1(?![0-9.,])){_POWER}|([/(]))\s*"
)


def raised(text: str) -> str:
    """The text with `^2` for each small raised number."""
    return _SMALL.sub(lambda found: f"^{found[0].translate(_RAISED)}", text)


@lru_cache(maxsize=4096)
def unit_of(text: str) -> Unit | None:
    """The unit that a text spells, in plain text or LaTeX; None where it is none. "1" is the unit of plain numbers."""
    if len(text) > _LONGEST:
        return None
    text = raised(text)
    for pattern, replacement in _RESPELLED:
        text = pattern.sub(replacement, text)
    try:
        return _quotient(_tokens(text.strip()))
    except (ValueError, ArithmeticError):
        return None


def _tokens(text: str) -> list[tuple[str, Fraction]]:
    """Units and signs, each with its power; a number of them in reverse order, to be popped."""
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError("no unit")
        name, *powers, sign = found.groups()
        power = Fraction(next(filter(None, powers), 1))
        if abs(power) > _HIGHEST:
            raise ValueError("no power that a unit has")
        tokens.append((name or sign, power))
        at = found.end()
    return tokens[::-1]


def _quotient(tokens: list[tuple[str, Fraction]], *, inner: bool = False) -> Unit:
    """Products divided by each other, up to the end or the closing parenthesis; takes the tokens away."""
    unit = _product(tokens)
    while tokens and tokens[-1][0] == "/":
        tokens.pop()
        unit *= _product(tokens) ** Fraction(-1)
    if bool(tokens) != inner:
        raise ValueError("a parenthesis without its partner")
    return unit


def _product(tokens: list[tuple[str, Fraction]]) -> Unit:
    """One or more units, each to its power; one alone keeps its zero."""
    units = []
    while tokens and tokens[-1][0] not in "/)":
        name, power = tokens.pop()
        if name == "(":
            unit = _quotient(tokens, inner=True)
            power = tokens.pop()[1]
        else:
            unit = _named(name)
        units.append(unit if power == 1 else unit**power)
    if not units:
        raise ValueError("nothing where a unit should be")
    return reduce(mul, units)


def _named(name: str) -> Unit:
    """The unit of that name, maybe with a prefix or in the plural; ValueError where there is none."""
    if name in _UNITS:
        return _UNITS[name]
    for prefix, power in _SYMBOLS.items():
        if name.startswith(prefix) and name[len(prefix) :] in _PREFIXABLE:
            return Unit(10.0**power) * _UNITS[name[len(prefix) :]]
    word = name.lower()
    for prefix, power in _WORDS.items():
        rest = word.removeprefix(prefix)
        for spelled in (rest, rest.removesuffix("s")):
            if spelled in _WORD_UNITS:
                unit = _UNITS[_WORD_UNITS[spelled]]
                return Unit(10.0**power) * unit if prefix else unit
    raise ValueError("no such unit")


def _define(table: str) -> list[str]:
    """Add the units of a table to `_UNITS`, each by those before it; their names."""
    names = []
    for line in table.replace("\n", ";").strip(";").split(";"):
        name, _, meaning = line.partition(" = ")
        factor, _, unit = meaning.partition(" ")
        _UNITS[name.strip()] = Unit(float(factor)) * _quotient(_tokens(unit))
        names.append(name.strip())
    return names


_UNITS = {name: Unit(1.0, tuple(Fraction(name == other) for other in BASE)) for name in BASE} | {"1": Unit(1.0)}
_PREFIXABLE = {*BASE} - {"kg"}
_WORD_UNITS: dict[str, str] = {}
_PREFIXABLE |= {*_define(_WITH_PREFIXES)}
_define(_WITHOUT)
for _symbol, *_names in (line.split() for line in _NAMES.replace("\n", ";").strip(";").split(";")):
    for _other in (_symbol, *_names):
        if len(_other) > 2:
            _WORD_UNITS.setdefault(_other.lower(), _symbol)
        else:
            _UNITS[_other] = _UNITS[_symbol]
            _PREFIXABLE |= {_other} if _symbol in _PREFIXABLE else set()
for _symbol, _zero in _ZEROS.items():
    _UNITS[_symbol] = replace(_UNITS[_symbol], zero=_zero)
