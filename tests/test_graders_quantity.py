r"""Which numbers with units are the same within a tolerance."""

import math
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guide_rl import graders
from guide_rl.graders import quantity
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.graders.units import unit_of
from guide_rl.types import Grade, Problem

RIGHT = [  # (reference, answer)
    ("9.8 m/s^2", "9.8 m/s^2"),
    ("9.8 m/s^2", "980 cm/s^2"),
    ("9.8 m/s^2", "9.8"),
    ("9.8 m/s^2", r"9.8 \text{ m/s}^2"),
    ("9.8 m/s^2", r"9.8\ \mathrm{m/s^2}"),
    ("9.8 m/s^2", r"9.8 \mathrm{~m} \mathrm{~s}^{-2}"),
    ("9.8 m/s^2", r"9.8 \frac{\text{m}}{\text{s}^2}"),
    ("9.8 m/s^2", "$9.8$ m/s$^2$"),
    ("9.8 m/s^2", "g = 9.81 m/s\u00b2"),
    ("9.8 m/s^2", r"\approx 9.8 m s^{-2}"),
    ("9.8 m/s^2", "9.8 meters per second squared"),
    ("9.8 m/s^2", "9.8 N/kg"),
    ("9.8 m/s^2", r"\text{9.8 m/s}^2"),
    ("-9.8 m/s^2", "\u22129.8 m/s^2"),
    ("1500 J", "1.5 kJ"),
    ("1500 J", "1.5e3"),
    ("1500 J", "1.5E3 J"),
    ("1500 J", r"1.5 \times 10^{3}"),
    ("1500 J", r"1.5 \times 10^3 \text{ J}"),
    ("1500 J", r"1.5\cdot10^{3}\,\mathrm{J}"),
    ("1500 J", "1.5 x 10^3 N m"),
    ("1500 J", "1.5*10**3 joules"),
    ("1500 J", "1.5\u00d710\u00b3 J"),
    ("1500 J", "1,500 J"),
    ("1500 J", "1{,}500 J"),
    ("1500 J", r"1\,500 J"),
    ("1500 J", "1.5e10 erg"),
    ("1.5e-3 A", r"1.5 \times 10^{-3} A"),
    ("1.5e-3 A", "1.5 mA"),
    ("1.5e-3 A", r"1500 \mu A"),
    ("1e6 Hz", "10^6 Hz"),
    ("1e6 Hz", r"10^{6} \text{ s}^{-1}"),
    ("0.5 m", "1/2 m"),
    ("0.5 m", r"\frac{1}{2} \text{ m}"),
    ("0.5 m", r"\frac{1}{2}"),
    ("500 g", "1/2 kg"),
    ("5 kg", "5 Kg"),
    ("5 kg", "5 kgs"),
    ("27 degC", "27 \u2103"),
    ("27 degC", "27 \u00baC"),
    ("27 degC", r"300.15\,\mathrm{K}"),
    ("5 m/s^2", "5 ms^-2"),
    ("5 km/s", r"5 \text{ kms}^{-1}"),
    ("5 mL", "5 cc"),
    ("5 eV", "5 electron volts"),
    ("5 m", r"5\ \si{m}"),
    ("5 m", r"\SI{5}{m}"),
    ("5e-7 m", "5\u00d710\u207b\u2077 m"),
    ("1000", "1.0E+03"),
    ("1000", "1\u202f000"),
    ("0.5 m", ".5 m"),
    ("0.5 m", "50 centimeters"),
    ("0.5 m", "5 dm."),
    ("25%", "25%"),
    ("25%", r"25\%"),
    ("25%", "0.25"),
    ("25%", "25"),
    ("25%", "25 percent"),
    ("25%", "1/4"),
    ("0.25", "25%"),
    ("25", r"25\%"),
    ("25 degC", "298.15 K"),
    ("25 degC", r"25^\circ \text{C}"),
    ("25 degC", "25 \u00b0C"),
    ("25 degC", "77 \u00b0F"),
    ("25 degC", "77 degrees Fahrenheit"),
    ("300 K", "26.85 degrees Celsius"),
    ("90 deg", r"90^{\circ}"),
    ("90 deg", "1.5708 rad"),
    ("90 deg", "90 degrees"),
    ("8.314 J/(mol K)", "8.314 J/mol K"),
    ("8.314 J/(mol K)", r"8.314 \text{ J/mol}\cdot\text{K}"),
    ("8.314 J/(mol K)", r"8.314 \text{ J} \text{ mol}^{-1} \text{ K}^{-1}"),
    ("8.314 J/(mol K)", r"8.314\,\frac{\text{J}}{\text{mol}\cdot\text{K}}"),
    ("8.314 J/(mol K)", "1.987 cal/(mol K)"),
    ("36 km/h", "10 m/s"),
    ("36 km/h", "36 kilometers per hour"),
    ("1 atm", "101325 Pa"),
    ("1 atm", "760 mmHg"),
    ("1 atm", "101.3 kPa"),
    ("4.7 kohm", r"4.7 \text{ k}\Omega"),
    ("4.7 kohm", r"4700~\Omega"),
    ("2 L", "2000 cm^3"),
    ("2 L", "2000 cubic centimeters"),
    ("13.6 eV", "2.179e-18 J"),
    ("2.7 g/cm^3", "2700 kg/m^3"),
    ("1 ly", "9.46e15 m"),
    ("550 nm", r"5.5 \times 10^{-7} m"),
    ("550 nm", r"5500 \AA"),
    ("3 min", "180 s"),
    ("100 cm^2", "0.01 square meters"),
    ("4.5e33", r"4.5 \times 10^{33} \text{ erg/s}"),
    ("42", "42 m"),
    ("5 Hz", "5/s"),
    (r"\boxed{9.8 m/s^2}", "980 cm/s^2"),
    ("0", "0"),
    ("0 m", "0 cm"),
    (r"$9.8$ m/s$^2$", "9.8 m/s^2"),
    ("x^2+1", "1+x^2"),
    (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
]

EVALUATED = [
    ("6.2832 s", r"2\pi"),
    ("6.2832 s", r"2\pi \text{ s}"),
    ("6.2832 s", r"2\pi~s"),
    ("1.4142 m", r"\sqrt{2} \text{ m}"),
    ("1.4142 m", r"100\sqrt{2} \text{ cm}"),
    ("1.4142 m", r"\sqrt{2} m"),
    ("1.5708", r"\frac{\pi}{2}"),
    ("90 deg", r"\frac{\pi}{2} \text{ rad}"),
    ("2.5 m", r"2\frac{1}{2} m"),
    ("5 m", "(5) m"),
    ("7.389 s", "e^2"),
    ("42", r"42 \text{ apples}"),
]

WRONG = [  # (reference, answer, verdict)
    ("9.8 m/s^2", "9.8 cm/s^2", "wrong"),
    ("9.8 m/s^2", "980", "wrong"),
    ("9.8 m/s^2", "-9.8 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.6 m/s^2", "wrong"),
    ("9.8 m/s^2", "10 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8 m/s", "wrong unit"),
    ("9.8 m/s^2", "9.8 s^2/m", "wrong unit"),
    ("9.8 m/s^2", "9.8 kg", "wrong unit"),
    ("9.8 m/s^2", "9.8%", "wrong unit"),
    ("9.8 m/s^2", "9.8 apples per s^2", "wrong"),
    ("9.8 m/s^2", "9.8 apples", "wrong"),
    ("9.8 m/s^2", r"9.8 \text{ furlongs}", "wrong"),
    ("6.2832 s", r"2\pi \text{ m}", "wrong unit"),
    ("6.2832 s", r"2\pi \text{ cows}", "wrong"),
    ("1.4142 m", r"\sqrt{2} \text{ cm}", "wrong"),
    ("7.389 s", r"e^3", "wrong"),
    ("9.8 m/s^2", "9.8 or 10 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8, 10", "wrong"),
    ("9.8 m/s^2", "9.8-10 m/s^2", "not evaluated"),
    ("9.8 m/s^2", "> 9.8 m/s^2", "wrong"),
    ("9.8 m/s^2", ">= 9.8", "wrong"),
    ("9.8 m/s^2", r"\le 9.8", "wrong"),
    ("9.8 m/s^2", "9,8 m/s^2", "wrong"),
    ("9.8 m/s^2", "about ten", "wrong"),
    ("9.8 m/s^2", "nan", "wrong"),
    ("9.8 m/s^2", "inf", "wrong"),
    ("9.8 m/s^2", r"\infty", "wrong"),
    ("9.8 m/s^2", "1e999 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8e999", "wrong"),
    ("9.8 m/s^2", "\u0669.8 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8\u200b m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8 \x00", "wrong"),
    ("9.8 m/s^2", "9.8 __import__('os')", "wrong"),
    ("9.8 m/s^2", "9.8.1 m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8 9.8", "wrong"),
    ("9.8 m/s^2", "m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8 (m/s^2", "wrong"),
    ("9.8 m/s^2", "9.8 = 10", "wrong"),
    ("9.8 m/s^2", "4.9 + 4.9 m/s^2", "not evaluated"),
    ("9.8 m/s^2", r"2 \times 4.9", "not evaluated"),
    ("37 m", "74/2 m", "not evaluated"),
    ("37 m", r"\frac{74}{2}", "not evaluated"),
    ("37 m", "10/0", "wrong"),
    ("1500 J", "1.5 J", "wrong"),
    ("1500 J", "1.5 kW", "wrong unit"),
    ("1500 J", "1.5 KJ", "wrong"),
    ("1500 J", "15,00 J", "wrong"),
    ("1500 J", "1,50 0 J", "wrong"),
    ("1500 J", r"1.5 \times 10^{-3} J", "wrong"),
    ("1500 J", r"1.5 \times 10^{4} J", "wrong"),
    ("1500 J", "1.5e3 MJ", "wrong"),
    ("1500 J", r"1.5 \times 103", "not evaluated"),
    ("0.5 m", "1/3 m", "wrong"),
    ("0.5 m", "1/2/3 m", "not evaluated"),
    ("0.5 m", "0.5 mm", "wrong"),
    ("0.5 m", "0.5 Mm", "wrong"),
    ("5 MPa", "5 mPa", "wrong"),
    ("5 mW", "5 MW", "wrong"),
    ("5 m", "5 M", "wrong unit"),
    ("5 m", "5 min", "wrong unit"),
    ("5 s", "5 S", "wrong unit"),
    ("5 T", "5 t", "wrong unit"),
    ("5 ms", "5 ms^-1", "wrong unit"),
    ("300 K", "27", "wrong"),
    ("300 K", "300 \u00b0C", "wrong"),
    ("1000", "103", "wrong"),
    ("1000", "10^2", "wrong"),
    ("1000", "10^-3", "wrong"),
    ("1000", "1.000", "wrong"),
    ("1000", "1,00", "wrong"),
    ("1.5", "1,5", "wrong"),
    ("-5", "5", "wrong"),
    ("5", r"\pm 5", "wrong"),
    ("5", r"5 \pm 100", "wrong"),
    ("5", "[4, 6]", "wrong"),
    ("5 m", "5 m or 6 m", "wrong"),
    ("5 m", "5 m 6 cm", "wrong"),
    ("5", "5i", "wrong"),
    ("5", "5!", "wrong"),
    ("5", "5'", "wrong"),
    ("5", "5_0", "wrong"),
    ("5 ft", '5"', "wrong"),
    ("25%", "2.5", "wrong"),
    ("25%", "0.25%", "wrong"),
    ("25%", "25 m", "wrong unit"),
    ("0.25", "2.5%", "wrong"),
    ("25 degC", "25 K", "wrong"),
    ("25 degC", "298 degC", "wrong"),
    ("25 degC", "25 degF", "wrong"),
    ("25 degC", "298.15", "wrong"),
    ("25 degC", "25.5 degC", "wrong"),
    ("25 degC", "25 C", "wrong unit"),
    ("90 deg", "90 rad", "wrong"),
    ("90 deg", "9 degrees", "wrong"),
    ("8.314 J/(mol K)", "8.314 J K/mol", "wrong unit"),
    ("36 km/h", "36 m/s", "wrong"),
    ("36 km/h", "36 km h", "wrong unit"),
    ("2 L", "2 m^3", "wrong"),
    ("2 L", "2 dm^2", "wrong unit"),
    ("100 cm^2", "1 m^2", "wrong"),
    ("100 cm^2", "100 cm", "wrong unit"),
    ("42", "43", "wrong"),
    ("42000", "42 km", "wrong"),
    ("42", "21 + 21", "not evaluated"),
    ("42", r"\sqrt{2}", "wrong"),
    ("42", r"\frac{1}{2", "no answer"),
    ("0", "0.001", "wrong"),
    ("0 m", "1e-9 m", "wrong"),
    ("x^2+1", "x^2-1", "wrong"),
]

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def _problem(answer: str, **metadata: Any) -> Problem:
    return Problem("p", "q", answer, grader="quantity", metadata=metadata)


def _verdict(answer: str, given: str, **metadata: Any) -> str:
    problem = _problem(answer, **metadata)
    graders.check(problem)
    grade = graders.resolve("quantity")(problem, rf"so \boxed{{{given}}}")
    assert grade.reward == float(grade.correct)
    assert grade.correct == (grade.verdict == "correct")
    return grade.verdict


@pytest.mark.parametrize(("reference", "answer"), RIGHT + EVALUATED)
def test_the_same_quantity_is_correct_in_any_unit_and_spelling(reference: str, answer: str) -> None:
    assert _verdict(reference, answer) == "correct"


@pytest.mark.parametrize(("reference", "answer", "verdict"), WRONG)
def test_another_quantity_is_wrong_and_the_verdict_says_why(reference: str, answer: str, verdict: str) -> None:
    assert _verdict(reference, answer) == verdict


@pytest.mark.parametrize(("reference", "answer"), RIGHT[:-2])
def test_numbers_in_digits_need_no_worker(reference: str, answer: str) -> None:
    assert graders.quick_grade(_problem(reference), rf"\boxed{{{answer}}}") == Grade(1.0, True, "correct")


TOLERANCES = [  # (reference, metadata, nearest right answers, nearest wrong ones)
    ("100 m", {}, ("99 m", "101 m"), ("98.99 m", "101.01 m")),
    ("100 m", {"relative_tolerance": 0.05}, ("95", "10500 cm"), ("94.9", "10501 cm")),
    ("100 m", {"relative_tolerance": "0.05"}, ("95", "105"), ("94.9", "105.1")),
    ("100 m", {"relative_tolerance": 0}, ("100", "0.1 km"), ("100.0001", "99.9999")),
    ("100 m", {"absolute_tolerance": 2}, ("98", "10200 cm"), ("97.9", "10201 cm")),
    ("100 m", {"absolute_tolerance": 0}, ("100",), ("100.0001",)),
    ("100 m", {"relative_tolerance": 0.05, "absolute_tolerance": 2}, ("95", "105"), ("94.9",)),
    ("10 m", {"relative_tolerance": 0.05, "absolute_tolerance": 2}, ("8", "12"), ("7.9",)),
    ("-100 m", {}, ("-99", "-101"), ("-98.9", "100")),
    ("0 m", {"absolute_tolerance": 0.1}, ("0.1", "-10 cm"), ("0.11",)),
    ("25 degC", {"absolute_tolerance": 1}, ("26", "299.15 K"), ("26.1", "299.25 K")),
    ("1e-20 J", {}, ("1.01e-20",), ("1.02e-20", "0")),
    ("0.1", {"relative_tolerance": 0.1}, ("0.11", "0.09"), ("0.1101",)),
]


@pytest.mark.parametrize(("reference", "metadata", "near", "far"), TOLERANCES)
def test_the_tolerance_ends_where_it_says(
    reference: str, metadata: Mapping[str, Any], near: tuple[str, ...], far: tuple[str, ...]
) -> None:
    assert {_verdict(reference, answer, **metadata) for answer in near} == {"correct"}
    assert {_verdict(reference, answer, **metadata) for answer in far} == {"wrong"}


def test_the_unit_may_stand_in_the_metadata() -> None:
    for answer, verdict in [("9.8", "correct"), ("980 cm/s^2", "correct"), ("9.8 kg", "wrong unit"), ("980", "wrong")]:
        assert _verdict("9.8", answer, unit="m/s^2") == verdict
    assert _verdict("980 cm/s^2", "9.8", unit="m/s^2") == "wrong"
    assert _verdict("980 cm/s^2", "980", unit="m/s^2") == "correct"
    assert _verdict("9.8 m", "980 cm", unit="") == "correct"
    assert _verdict("9.8", "9.8 kg", unit="") == _verdict("9.8", "9.8 kg") == "correct"


def test_a_number_of_unit_one_takes_ratios_only() -> None:
    assert _verdict("0.25", "25%", unit="1") == "correct"
    assert _verdict("25", "25%", unit="1") == "wrong"
    assert _verdict("0.25", "0.25 m", unit="1") == "wrong unit"


@pytest.mark.parametrize(
    ("answer", "metadata", "message"),
    [
        ("5", {"unit": "furlong"}, "does not know the unit 'furlong'"),
        ("5", {"unit": 3}, "does not know the unit 3"),
        ("5 m", {"unit": "s"}, "the answer '5 m' is not in the unit 's'"),
        ("5", {"relative_tolerance": -0.1}, "relative_tolerance is -0.1; use a number from 0 on"),
        ("5", {"relative_tolerance": "1%"}, "relative_tolerance is '1%'"),
        ("5", {"absolute_tolerance": math.nan}, "absolute_tolerance is nan"),
        ("5", {"absolute_tolerance": math.inf}, "absolute_tolerance is inf"),
        ("5", {"absolute_tolerance": [1]}, r"absolute_tolerance is \[1\]"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(answer: str, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(GraderSetupError, match=f"problem 'p': grader quantity.*{message}"):
        graders.check(_problem(answer, **metadata))


UNITS = [
    "m",
    "km",
    "g/cm^3",
    "m s^-2",
    "J/(mol K)",
    "kWh",
    "%",
    "degC",
    "degF",
    "K",
    "ohm",
    "mmHg",
    "ft lbf",
    "eV",
    "V/Hz^{1/2}",
]
_NUMBERS = st.floats(-1e12, 1e12).filter(lambda number: number == 0 or abs(number) > 1e-12)


@SETTINGS
@given(_NUMBERS, st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_converting_a_quantity_changes_nothing_and_units_of_another_dimension_are_wrong(
    number: float, name: str, other: str
) -> None:
    one, two = unit_of(name), unit_of(other)
    assert one is not None
    assert two is not None
    if one.powers != two.powers:
        assert _verdict(f"{number} {name}", f"{number} {other}", absolute_tolerance=1e99) == "wrong unit"
        return
    converted = (number * one.factor + one.zero - two.zero) / two.factor
    around = 1e-9 * (abs(number) + abs(one.zero / one.factor) + abs(two.zero / one.factor))
    assert _verdict(f"{number} {name}", f"{converted} {other}", absolute_tolerance=around) == "correct"


@SETTINGS
@given(_NUMBERS, st.sampled_from(UNITS))
def test_every_spelling_of_a_number_is_that_number(number: float, unit: str) -> None:
    mantissa, exponent = f"{number:.15e}".split("e")
    spellings = [f"{number!r}", f"{mantissa} \\times 10^{{{int(exponent)}}}", f"{mantissa}x10^{int(exponent)}"]
    if abs(number) >= 1e-3:
        spellings += [f"{number:,.14f}"]
    for spelling in spellings:
        assert _verdict(f"{number!r} {unit}", f"{spelling} {unit}", relative_tolerance=1e-9) == "correct"


@SETTINGS
@given(st.floats(0.1, 1e6), st.floats(0.001, 0.5), st.floats(-1, 1))
def test_what_is_within_the_relative_tolerance_is_correct_and_nothing_else(
    number: float, tolerance: float, off: float
) -> None:
    near = number * (1 + tolerance * off * 0.999)
    far = number * (1 + tolerance * math.copysign(1.001 + abs(off), off))
    assert _verdict(f"{number} m", f"{near} m", relative_tolerance=tolerance) == "correct"
    assert _verdict(f"{number} m", f"{far} m", relative_tolerance=tolerance) == "wrong"


@SETTINGS
@given(st.text(st.sampled_from("0123456789.,-+/^* ex{}()\\%kmsJ=\u00b0\u00b2\u00b5") | st.characters(), max_size=60))
def test_the_quick_decision_never_raises(text: str) -> None:
    for reference in ("9.8 m/s^2", "25%", "0"):
        for hostile in (text, rf"\boxed{{{text}}}", rf"\boxed{{9.8{text}}}"):
            graders.quick_grade(_problem(reference), hostile)
    unit_of(text)


@pytest.mark.parametrize(
    "answer",
    [
        *("9" * 2000, "9." + "9" * 1990, "1," * 900, "1 " * 900, "9.8" + " m" * 900, "9.8 " + "(" * 1900, "= " * 900),
        *(
            "9.8 " + "\\frac{" * 300,
            "9.8e" + "9" * 1900,
            "9.8 " + "m^9" * 600,
            "9.8 " + "\\text" * 300,
            "\\approx" * 280,
        ),
        *("x" * 1999, " " * 10**6 + "9", "\\boxed{" * 10**5, "9.8 m" * 10**5, "1" + " 000" * 490, "-" * 1900),
    ],
    ids=lambda answer: f"{answer[:12]!r}",
)
def test_endless_answers_are_read_at_once(answer: str) -> None:
    started = time.process_time()
    grade = graders.quick_grade(_problem("9.8 m/s^2"), rf"\boxed{{{answer}}}")
    assert time.process_time() - started < 0.5
    assert grade is None or not grade.correct


@pytest.mark.parametrize("text", ["", "9.8 m/s^2", r"\boxed{}", r"\boxed{9.8", "<answer> </answer>"])
def test_a_text_without_a_final_answer_is_wrong(text: str) -> None:
    assert graders.resolve("quantity")(_problem("9.8 m/s^2"), text).verdict == "no answer"


def test_the_last_final_answer_counts() -> None:
    problem = _problem("9.8 m/s^2")
    assert graders.resolve("quantity")(problem, r"\boxed{10} no, \boxed{980 cm/s^2}").correct
    assert not graders.resolve("quantity")(problem, r"\boxed{9.8} no, <answer>10 m/s^2</answer>").correct


NO_UNITS = [
    "",
    "apples",
    "mm m^",
    "m/",
    "/m",
    "m//s",
    "(m",
    "m)",
    "m^99",
    "m^2^2",
    "2 m",
    "m 2",
    "m^x",
    "mkm",
    "kkg",
    "KJ",
    "\u200bm",
]


@pytest.mark.parametrize("text", [*NO_UNITS, "m" * 101, "__import__", "m;s", "m,s", "m^1.7", "10", "1.", "m-s"])
def test_what_is_no_unit_is_none(text: str) -> None:
    assert unit_of(text) is None


def test_units_have_the_values_of_the_standards() -> None:
    expected = {
        "N": 1.0, "kPa": 1e3, "mmHg": 101325 / 760, "in": 0.0254, "mph": 0.44704, "L": 1e-3, "kWh": 3.6e6, "t": 1e3,
        "min": 60.0, "h": 3600.0, "cd": 1.0, "mol": 1.0, "Pa": 1.0, "deg": math.pi / 180, "rpm": math.pi / 30, "M": 1e3,
        "lb": 0.45359237, "psi": 6894.757293168, "hp": 745.69987158, "knot": 1852 / 3600, "mi": 1609.344, "G": 1e-4,
        "cal": 4.184, "kat": 1.0, "amu": 1.66053906660e-27, "degF": 5 / 9, "ppm": 1e-6, "dyn": 1e-5, "erg": 1e-7, "P": 0.1,
        "yr": 31557600.0, "Ci": 3.7e10, "pc": 648000 / math.pi * 149597870700, "Gy": 1.0, "GHz": 1e9, "hPa": 100.0,
        "mg": 1e-6, "ms": 1e-3, "ft": 0.3048, "ha": 1e4, "lbf": 0.45359237 * 9.80665, "ml": 1e-6, "dL": 1e-4, "um": 1e-6,
        "\u00b5m": 1e-6, "PeV": 160.2176634e-6, "mM": 1.0, "atm": 101325.0, "oz": 0.028349523125, "yd": 0.9144,
    }  # fmt: skip
    for name, factor in expected.items():
        unit = unit_of(name)
        assert unit is not None, name
        assert math.isclose(unit.factor, factor, rel_tol=1e-9), name


def test_a_quantity_is_evaluated_in_a_worker_only() -> None:
    for answer in (r"2\pi", r"\sqrt{2} m", r"9^{9^{9}}"):
        assert graders.quick_grade(_problem("5 m"), rf"\boxed{{{answer}}}") is None
    assert graders.quick_grade(_problem("x^2+1"), r"\boxed{x^2+1}") == Grade(1.0, True, "correct")
    left_to_do = graders.thorough_grader("quantity")(_problem("37 m"), r"\boxed{74/2}")
    assert left_to_do == Grade(0.0, False, "not evaluated")
    assert quantity.DEFAULT_TOLERANCE == 0.01
