r"""What the math grader holds to be the same answer."""

import pytest

from guide_rl.graders import check, math_answer, resolve
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Problem

MATRIX = r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"

SAME = [  # (reference, answer)
    ("5", "5.0"),
    ("0.5", ".50"),
    ("1234", r"1{,}234"),
    (r"\frac{1}{2}", "0.5"),
    ("0.5", r"\frac12"),
    ("1/2", r"\dfrac{1}{2}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{2}", r"\frac{2}{4}"),
    (r"1\frac{1}{2}", "1.5"),
    ("3.5", r"3\frac{1}{2}"),
    ("5", "x = 5"),
    ("x=5", "5"),
    ("2x+1", "y=2x+1"),
    ("5", r"5 \text{ cm}"),
    (r"24 \mathrm{~cm}^2", "24"),
    ("90", r"90^\circ"),
    ("50", r"50\%"),
    (r"50\%", "0.5"),
    ("5", r"\$5"),
    ("5", "(5)"),
    ("1000", "10^{3}"),
    ("1500", r"1.5 \times 10^3"),
    ("120", "5!"),
    ("10", r"\binom{5}{2}"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    ("x^2-1", "(x-1)(x+1)"),
    ("2*x+1", "1+2x"),
    ("1+2i", "2i+1"),
    ("(1,2)", r"\left(1, 2\right)"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1,2", "2, 1"),
    (r"\pm 2", "-2, 2"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 2) \cup (3, \infty)"),
    ("x<3", "3>x"),
    (r"x \ge 2", r"[2,\infty)"),
    (MATRIX, MATRIX.replace("pmatrix", "bmatrix")),
    (r"\text{Monday}", "monday"),
    ("A", r"\text{(A)}"),
    ("3:4", r"\frac{3}{4}"),
    (r"\boxed{5}", "5"),
]

DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("3", "3.0000001"),
    ("0.333", "0.3333"),
    (r"\frac{1}{3}", "0.333"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    ("x = 5", "y = 5"),
    ("5", "5 or 6"),
    ("5", "6, 5"),
    ("5", "the answer is 5"),
    ("5", r"\frac{}{} or $5$"),
    ("(1,2)", "[1,2]"),
    ("[1,2]", "[1,2)"),
    ("(1,2)", "(2,1)"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("x^2-1", "(x-1)(x+2)"),
    (MATRIX, MATRIX.replace("4", "5")),
    (r"\infty", r"-\infty"),
    ("5", r"\infty"),
    ("5", "nan"),
    ("5", "inf"),
    ("A", "B"),
    ("listen", "silent"),
    ("even", "odd"),
    ("5", "five"),
    ("5", "\u0665"),
    ("5", "\uff15"),
    ("5", "5\u200b"),
    ("5", "5\x00"),
    ("12", "\u202e21\u202c"),
    ("21", "\u202e21\u202c"),
    ("5", "__import__('os')"),
]

LEFT_TO_DO = [
    ("95", "37+58"),
    ("95", "37 + 58"),
    ("2021", "2023-2"),
    ("12", r"3 \times 4"),
    ("12", r"3\cdot4"),
    ("12", "(3)*(4)"),
    ("5", "10/2"),
    ("37", r"\frac{74}{2}"),
    ("0.5", "0.2+0.3"),
]


def _grade(reference: str, answer: str) -> str:
    problem = Problem("p", "q", reference)
    grade = resolve("math")(problem, rf"so \boxed{{{answer}}}")
    assert grade.reward == float(grade.correct)
    assert grade.correct == (grade.verdict == "correct")
    return grade.verdict


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_answers_that_mean_the_same_are_correct(reference: str, answer: str) -> None:
    assert _grade(reference, answer) == "correct"


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_answers_that_mean_something_else_are_wrong(reference: str, answer: str) -> None:
    assert _grade(reference, answer) == "wrong"


@pytest.mark.parametrize(("reference", "answer"), LEFT_TO_DO)
def test_repeating_the_question_is_not_answering_it(reference: str, answer: str) -> None:
    assert _grade(reference, answer) == "not evaluated"


def test_plain_numbers_and_equal_spellings_need_no_algebra() -> None:
    for reference, answer in [("5", "6"), ("5", "5.0"), (r"\frac12", r"\frac12"), ("95", "37+58"), ("yes", "yes")]:
        assert math_answer.quick_grade(Problem("p", "q", reference), rf"\boxed{{{answer}}}") is not None
    assert math_answer.quick_grade(Problem("p", "q", r"\frac12"), r"\boxed{0.5}") is None


@pytest.mark.parametrize("text", ["", "   ", "5", r"\boxed{}", r"\boxed{ }", "<answer></answer>"])
def test_a_text_without_an_answer_is_wrong(text: str) -> None:
    for name in ("math", "exact"):
        assert resolve(name)(Problem("p", "q", "5"), text).verdict == "no answer"


@pytest.mark.parametrize(
    "answer", ["1" * 10**6, "1," * 10**5, r"\frac{1}{" * 5000 + "1" + "}" * 5000, "{" * 3000 + "}" * 3000]
)
def test_endless_answers_are_wrong_unread(answer: str) -> None:
    assert _grade("5", answer) == "too long"


def test_a_long_reference_answer_can_be_given() -> None:
    assert _grade("1" * 5000, "1" * 5000) == "correct"


def test_exact_compares_the_spelling_only() -> None:
    problem = Problem("p", "q", r"\frac{1}{2}")
    verdicts = [resolve("exact")(problem, rf"\boxed{{{answer}}}").verdict for answer in (r"$\dfrac{1}{2}$", "0.5")]
    assert verdicts == ["correct", "wrong"]


def test_an_unknown_grader_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(GraderSetupError, match=r"unknown grader 'maths'; use one of .*exact, math, .*reasoning_gym.*, or"):
        check(Problem("p", "q", "5", grader="maths"))
