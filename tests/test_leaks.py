"""Guidance that gives the answer away is found, whatever the spelling; guidance that does not is left alone."""

import random
import runpy
import time
from fractions import Fraction
from pathlib import Path

import pytest

from guide_rl.demo.world import problems as demo_problems
from guide_rl.guidance.leaks import LeakCheck, quick_leak
from guide_rl.guidance.leaks.formulas import POINTS, same, value
from guide_rl.guidance.leaks.math_text import stated
from guide_rl.guidance.leaks.number_words import spelled_out, worded
from guide_rl.types import Problem

BENCHMARK = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks/leaks.py"))


def problem(answer, question="How many are there?"):
    return Problem(id="1", question=question, answer=answer)


@pytest.fixture(scope="module")
def check():
    with LeakCheck() as check:
        yield check


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("42", "The answer is 42."),
        ("42", r"so $x = 42$ holds"),
        ("42", r"\boxed{42}"),
        ("42", "**42**"),
        ("42", "it weighs 42kg"),
        ("42", r"it costs \$42"),
        ("42", "there are forty-two of them"),
        ("42", "compute 6 * 7"),
        ("42", r"$\frac{84}{2}$"),
        ("42", "\uff14\uff12"),
        ("42", "you get 4.2e1"),
        ("0.5", r"\frac12 of all"),
        ("0.5", "½ of all"),
        (r"\frac{1}{2}", "one half of all"),
        ("1/2", "50% of all"),
        ("50\\%", "0.5"),
        ("1/3", "about 0.333"),
        ("1234", "1,234"),
        ("1234", r"$1{,}234$"),
        ("1234", "1 234"),
        ("1234", r"$1.234 \times 10^3$"),
        ("-3", "it is negative three"),
        ("-3", "x = \N{MINUS SIGN}3"),
        ("n(n-3)/2", r"$\frac{n^2 - 3n}{2}$ diagonals"),
        ("2^(n-1)", r"$\frac{2^n}{2}$"),
        (r"\frac{\sqrt{3}}{3}", "1/sqrt(3)"),
        ("376 and 625", "they are 625 and 376"),
        ("x=6, y=5", "x = 6 and y = 5"),
        (r"\left(3, \frac{\pi}{2}\right)", r"the point $(3, \pi/2)$"),
        (r"90^\circ", "an angle of 90 degrees"),
        ("98 values", "98 of them work"),
        ("f(x)=0", "show that f(x) = 0"),
        ("Yes", "So the answer is yes."),
        ("London", "It is London, of course."),
        ("C", "The correct option is (C)."),
        ("C", r"$\boxed{C}$"),
        ("1", "there is only one."),
        (r"\log_2 7", r"$\frac{\ln 7}{\ln 2}$"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"the vector $\begin{pmatrix} 2/2 \\ 2 \end{pmatrix}$"),
        (
            r"\begin{pmatrix} 1 & 55 \\ 3 & 4 \end{pmatrix}",
            r"$\begin{pmatrix} 1 & \sum_{i=1}^{10} i \\ 3 & 4 \end{pmatrix}$",
        ),
        ("3/2", "three halves of it"),
        ("3/8", "three eighths of it"),
        ("4/9", "four ninths of it"),
        ("5/12", "five twelfths of it"),
        ("55", r"$\sum_{i=1}^{10} i$"),
        ("242", "two hundred and forty-two of them"),
        ("242", "there are 2 hundred 42"),
        ("3/8", "37.5 per cent"),
        ("3/8", "37.5 percent of all"),
        ("1/2", "fifty percent"),
        ("1500000", "about 1.5 million"),
        ("20000", "twenty thousand ways"),
        ("100", "it is 10 squared"),
        ("12", "a dozen"),
        ("-42", "minus forty-two"),
        ("3 and 5", "take three and then five"),
        ("B", "Pick B"),
        ("B", "Choose **B**, then check."),
        ("B", "B is right"),
        ("May", "It is in May."),
        ("May", "think of 'may'"),
        ("Will", "The answer is will."),
        ("3:4", "as 3 : 4"),
        ("3/4", "as 3 : 4"),
        ("3/4", "in the ratio 3 to 4"),
        ("3/2", "one and a half of them"),
        ("11/4", "two and three quarters"),
        ("7/12", "seven twelfths"),
        ("seven twelfths", "it is 7/12"),
        ("forty-two", "it is 42"),
        ("1/3", "a third of it"),
        ("1/3", r"$0.\overline{3}$"),
        (r"0.1\overline{6}", "1/6"),
        (r"2\sqrt{3}", "the square root of 12"),
        ("x*sqrt(3)", r"$\sqrt{3}x$"),
        ("24", "6 times 4"),
        ("24", "$6$ times four"),
        ("24", "the product of six and 4"),
        ("42", "half of 84"),
        ("42", "fifty percent of 84"),
        ("42", "twice 21"),
        ("5", r"n \geq 5"),
        (r"[2, \infty)", "all x >= 2"),
        (r"(2, \infty)", "$2 < x$"),
        (r"(-\infty, 2]", "x of at most 2"),
        (r"(-\infty, 1) \cup (3, \infty)", "x < 1 or x > 3"),
        ("(2, 5)", "2 < x < 5"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "it is [[1, 2], [3, 8/2]]"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "the vector (1, 2)"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        ("2^floor(n/2)", r"$2^{\lfloor n/2 \rfloor}$"),
        ("1/3", "about 0.334"),
        ("4", "Draw.\n1. Look.\n4. That is it."),
        ("4", "Draw.\n4. That is it."),
    ],
)
def test_the_answer_is_found_in_every_form(check, answer, text):
    assert check.find(problem(answer), f"Think first. {text}") is not None


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("4", "1. Draw it.\n2. Look at it.\n3. Count.\n4. Check."),
        ("3", "**Hint 1:** Draw.\n**Hint 2:** Look.\n**Hint 3:** Count."),
        ("2", "use x^2 + 3x"),
        ("2", "the 2nd term of a_2"),
        ("7", "there are 17 or 70 or 7.5"),
        ("4", "there are forty-four"),
        ("3", "work mod 3"),
        ("0", "for x > 0, solve x^2 - 3x = 0"),
        ("0", "evaluate it at x = 0"),
        ("Yes", "Say yes or no and why."),
        ("No", "There is no shortcut."),
        ("C", "Let C be the centre. A and B lie beside it."),
        ("1", "Look at one of them."),
        ("x^2+1", "factor x^2-1"),
        ("London", "Which city has the most bridges?"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"rotate $\begin{pmatrix} 2 \\ 2 \end{pmatrix}$"),
        ("5050", r"$\sum_{i=1}^{10} i$"),
        ("42", "there are one hundred and forty-two"),
        ("2", "the length squared"),
        ("May", "You may recall the order of months."),
        ("Will", "You will see."),
        ("same", "They have the same number."),
        ("B", "Choose B and C on the circle."),
        ("5", "for every n > 5"),
        ("1/3", "about 0.335"),
        ("1/3", "about 0.33"),
        ("1/2", "half the perimeter"),
        ("1/2", "integrate from 1 to 2"),
        ("1/3", "draw a third point"),
        ("3", "minus three"),
        ("2", "look twice"),
        ("42", "Step 6: 7 sides"),
        (r"[2, \infty)", "all x >= 3"),
        (r"(-\infty, \infty)", "all x >= 3"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "it is [[1, 2], [3, 5]]"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "the vector (1, 2)"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "the vector (1, 2, 3, 4)"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "it is [[1, 2, 3, 4]]"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "the vector (1, 2, 3)"),
    ],
)
def test_what_is_not_the_answer_is_left_alone(check, answer, text):
    assert check.find(problem(answer), text) is None


@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        ("A cake is cut in 8 parts; how many are left?", "8", "Start from the 8 parts."),
        ("Three apples", "3", "Start from 3."),
        ("Is 0.5 a root? Give the root.", r"\frac{1}{2}", r"Try $\frac{1}{2}$."),
        ("Simplify x(x+1).", "x^2+x", "You start from x(x+1)."),
        ("Calculate 47*36.", "1692", "Split it: 47*30 + 47*6."),
        ("Transpose [[1, 2], [2, 1]].", r"\begin{pmatrix} 1 & 2 \\ 2 & 1 \end{pmatrix}", "Mirror [[1, 2], [4/2, 1]]."),
    ],
)
def test_what_the_question_states_is_no_leak(check, question, answer, text):
    assert check.find(problem(answer, question), text) is None


def test_a_result_is_a_leak_where_the_question_states_the_calculation_only(check):
    assert check.find(problem("1692", "Calculate 47*36."), "47*30 + 47*6 = 1692") == "1692"
    assert check.find(problem("x^2+x", "Simplify x(x+1)."), "You get x + x^2.") is not None


def test_false_alarms_on_human_hints_stay_rare(check):
    pytest.importorskip("natsort")
    pytest.importorskip("champ_dataset")
    rows = [(row[0], hint) for row in BENCHMARK["champ"]() for hint in row[1]]
    assert len(rows) == 456
    assert len(BENCHMARK["false_alarms"](check, rows)) <= 6


def test_planted_answers_are_found(check):
    pytest.importorskip("natsort")
    pytest.importorskip("champ_dataset")
    everything = [row[0] for row in BENCHMARK["champ"]()] + BENCHMARK["procedural"](5, seed=1)
    planted, missed, lines = BENCHMARK["misses"](random.Random(1).sample(everything, 120), check)
    assert planted.total() > 700
    assert missed.total() <= planted.total() / 200, lines


def test_the_demos_guidance_gives_nothing_away(check):
    hard = demo_problems("train", easy=1, hard=300, seed=3)[1:]
    assert not [row.id for row in hard if check.find(row, row.guidance)]
    assert check.find(hard[0], f"split {hard[0].answer}") == hard[0].answer


def test_numbers_in_words_are_read_back():
    draw = random.Random(0).randrange
    numbers = [draw(2, 10**digits + 2) for digits in range(1, 9) for _ in range(100)]
    for number in map(Fraction, numbers):
        assert [formula for _, _, formula in worded(next(spelled_out(number)))] == [str(number)]


def test_verdicts_are_kept(tmp_path):
    row = problem("42")
    with LeakCheck(tmp_path / "leaks.sqlite") as first:
        assert first.find(row, "6 * 7") == "6*7"
        assert first.find(row, "nothing") is None
    with LeakCheck(tmp_path / "leaks.sqlite") as second:
        second._look = None  # not called
        assert second.find(row, "6 * 7") == "6*7"
        assert second.find(row, "nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "9^9^9^9^9^9",
        "(" * 5000,
        "{" * 9000 + "1",
        "$" * 10001,
        "1" * 19000,
        "1/" * 9000 + "1",
        "a_" * 9000,
        "\\boxed{" * 2500,
        "\\frac" * 3000,
        "-" * 15000 + "42",
        "((((" + "1+" * 6000,
        "9!!!!!!!!!",
        "10^{10^{10}}!",
        "1e999999999",
        "\x00\ud800",
        "\\begin{matrix}" * 1400,
        "(" * 4000 + ")" * 4000,
        "\\(" * 4000,
        "\u00b2" * 8000,
        "hundred " * 3000,
        "The answer is" + " " * 8000,
    ],
)
def test_hostile_text_is_read_in_no_time(text):
    def seconds(fresh: str) -> tuple[float, float]:
        started = time.process_time()
        for answer in ("41", "Yes", "C"):
            quick_leak("What is it?", answer, fresh)
        as_text = time.process_time() - started
        quick_leak(fresh, "x^2+1", "x^2 + 1")
        quick_leak("What is it?", fresh, "x^2 + 1")
        return as_text, time.process_time() - started

    # One of three: other programs slow even processor time. Each is another text, so nothing is remembered.
    assert any(as_text < 0.3 and whole < 2 for as_text, whole in (seconds(f"{text} {n}") for n in range(3)))


def test_verdicts_of_other_rules_are_not_used(tmp_path, monkeypatch):
    row = problem("42")
    with LeakCheck(tmp_path / "leaks.sqlite") as check:
        check._look = lambda *_: "by other rules"
        with monkeypatch.context() as other:
            other.setattr("guide_rl.guidance.leaks._rules", lambda: b"other rules")
            assert check.find(row, "nothing") == "by other rules"
    with LeakCheck(tmp_path / "leaks.sqlite") as check:
        assert check.find(row, "nothing") is None


def test_few_formulas_of_a_text_go_to_math_verify():
    with LeakCheck() as check:
        compared = []
        check._same_by_math_verify = lambda *pair: compared.append(pair)
        assert check.find(problem("7"), " ; ".join(rf"$\sum_{{i=1}}^{{{k}}} i$" for k in range(20, 50))) is None
    assert len(compared) == 12


@pytest.mark.e2e
def test_a_comparison_without_end_counts_as_different():
    with LeakCheck() as check:
        assert check.find(problem(r"\log_2 7"), r"$\frac{9^{9^{9^9}}}{\log_{2} \sin 4}$ it is") is None


def test_a_text_too_long_to_read_is_refused(check):
    assert "not read" in check.find(problem("41"), "word " * 5000)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("C(10, 5)", "252", True),
        (r"2\frac{1}{3}", "7/3", True),
        ("2^997", "2^998/2", True),
        ("n!/(2n)", "(n-1)!/2", True),
        ("1/2+1/3", r"\frac{5}{6}", True),
        ("-2^2", "4", False),
        ("x^2+y^2", "x^2-y^2", False),
        ("9^9^9^9", "3", None),
        ("2^6000", "2^6001/2", True),
        ("2^30000", "2^30001/2", None),
        ("sqrt(ONCE)", "sqrt(ONCE)", None),
        ("\\unknown{3}", "3", None),
    ],
)
def test_formulas_are_compared_by_value(first, second, verdict):
    # Agreement at one point says nothing: this root is real at one of them only.
    low, high = sorted(value("n", point) for point in POINTS)[1:]
    first, second = (text.replace("ONCE", f"n - {(float(low) + float(high)) / 2}") for text in (first, second))
    assert same(first, second) is verdict


def test_fractions_of_many_digits_are_rounded():
    assert value("((3^6000+1)/3^6000)*((5^4000+1)/5^4000)") == 1.0
    with pytest.raises(OverflowError):
        value("3^5000*3^5000*3^5000")


def test_brackets_around_all_of_a_formula_are_left_out():
    assert [formula.spelled for formula in stated("{((x+1))} ; ((x)(y)) ; (x)(y)")] == ["x+1", "(x)(y)", "(x)(y)"]


def test_numbers_within_formulas_are_not_stated():
    assert [formula.spelled for formula in stated(r"If $x^2 + 3 = 12$, take 5, or (6, 7)")] == [
        "x^2+3",
        "12",
        "5",
        "(6,7)",
        "6",
        "7",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "So C is correct.",
        "Choose C.",
        "**C** is right.",
        "It must be C",
        "Answer: C",
        "correct choice: C",
        "the correct option would be C",
        r"\textbf{C}",
        "The answer is C.",
        "(C)",
    ],
)
def test_a_letter_is_found_however_it_is_picked(text):
    assert quick_leak("Which one?\nA) 1\nB) 2\nC) 3\nD) 4", "C", text).leak is not None


@pytest.mark.parametrize(
    "text", ["Compare A, B and C.", "Let C be a circle.", "Look at the units of each choice.", "Write f(x) + C"]
)
def test_a_letter_that_is_only_named_is_no_leak(text):
    assert quick_leak("Which one?\nA) 1\nB) 2\nC) 3\nD) 4", "C", text).leak is None


@pytest.mark.parametrize(
    "text", ["It is 2\u200b4.", "It is 2\u00ad4.", "It is \ufeff24.", "It is \u0662\u0664.", "It is \uff12\uff14."]
)
def test_characters_that_hide_a_number_hide_nothing(text):
    with LeakCheck() as check:
        assert check.find(Problem("p", "What is it?", "24"), text) is not None


@pytest.mark.parametrize("damage", [b"x" * 5000, None])
def test_damaged_verdicts_are_worked_out_again(tmp_path, damage):
    path, problem = tmp_path / "leaks.sqlite", Problem("p", "What is it?", "24")
    with LeakCheck(path) as check:
        assert check.find(problem, "It is 24.") is not None
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    for _ in range(2):
        with LeakCheck(path) as check:
            assert check.find(problem, "It is 24.") is not None


@pytest.mark.e2e
def test_long_hostile_texts_take_little_time():
    started = time.process_time()
    with LeakCheck() as check:
        for text in ("(" * 3990 + ")" * 3990, r"\(" * 3990, r"\[" * 3990, r"\frac{" * 1300, "9^" * 3900):
            check.find(Problem("p", "What is it?", "24"), text)
    assert time.process_time() - started < 20, "a guard against hanging, not a measure"
