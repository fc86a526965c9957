r"""What the math grader holds to be the same answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


AT_A_GLANCE = [  # (reference, answer, right)
    (r"\frac{1}{2}", "0.5", True),
    (r"\frac{1}{2}", "2/4", True),
    (r"\frac{1}{2}", r"\frac{-1}{2}", False),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", True),
    (r"\frac{2}{3}", r"\frac23", True),
    (r"\frac{2}{3}", r"\frac{3}{2}", False),
    (r"\frac{2}{3}", "2", False),
    ("0.5", r"\frac12", True),
    ("(1,2)", "(1, 2.0)", True),
    ("(1,2)", "(2,1)", False),
    ("(1,2)", "(1,2,3)", False),
    ("[1,2)", r"\left[\frac{2}{2}, 2\right)", True),
    (r"\{1,2\}", r"\{2,1,1\}", True),
    (r"\{1,2\}", r"\{1,3\}", False),
    (r"\frac{1}{2}", r"50\%", True),
    (r"12.5\%", "0.125", True),
    (r"50\%", r"\frac{50}{100} %", False),
    ("5", r"500\%", True),
    ("5", r"50\%", False),
    (r"50\%", "50%", True),
    (r"50\%", "0.5%", False),
]
LEFT_TO_MATH_VERIFY = [
    (r"\frac{1}{3}", "0.3333"),
    (r"\frac{1}{0}", "1/2"),
    (r"\frac{1}{2}", r"\frac{1/2}"),
    (r"\frac{1}{2}", r"49.99\%"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "1,2"),
    ("(1,2)", "(1,x)"),
    (r"\frac{1}{2}", "1" * 61),
]


@pytest.mark.parametrize(("reference", "answer", "right"), AT_A_GLANCE)
def test_fractions_and_lists_of_them_are_compared_as_math_verify_does(reference: str, answer: str, right: bool) -> None:
    problem, text = Problem("p", "q", reference), rf"\boxed{{{answer}}}"
    grade = math_answer.quick_grade(problem, text)
    assert grade is not None
    assert grade.correct == right
    assert math_answer.thorough_grade(problem, text).correct == right


@pytest.mark.parametrize(("reference", "answer"), LEFT_TO_MATH_VERIFY)
def test_what_is_no_fraction_or_nearly_the_same_is_left_to_math_verify(reference: str, answer: str) -> None:
    assert math_answer.quick_grade(Problem("p", "q", reference), rf"\boxed{{{answer}}}") is None


RATIONALS = st.one_of(
    st.integers(-9, 9).map(str),
    st.tuples(st.integers(-9, 9), st.integers(1, 9)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.integers(-99, 99).map(lambda number: f"{number / 10}"),
)
BRACKETS = st.sampled_from(["%s", "(%s)", r"\{%s\}"])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(BRACKETS, st.lists(RATIONALS, min_size=1, max_size=3), st.lists(RATIONALS, min_size=1, max_size=3))
def test_the_quick_decision_is_math_verifys_but_for_what_is_left_to_do(
    brackets: str, one: list[str], other: list[str]
) -> None:
    if brackets != r"\{%s\}" and len(one) == 1:
        brackets, other = "%s", other[:1]
    for answer in (other, one[::-1]):
        problem, text = Problem("p", "q", brackets % ", ".join(one)), rf"\boxed{{{brackets % ', '.join(answer)}}}"
        grade = math_answer.quick_grade(problem, text)
        if grade not in (None, math_answer.NOT_EVALUATED):
            assert grade.correct == math_answer.thorough_grade(problem, text).correct, (problem.answer, text)


def test_plain_numbers_and_equal_spellings_need_no_algebra() -> None:
    for reference, answer in [("5", "6"), ("5", "5.0"), (r"\frac12", r"\frac12"), ("95", "37+58"), ("yes", "yes")]:
        assert math_answer.quick_grade(Problem("p", "q", reference), rf"\boxed{{{answer}}}") is not None
    assert math_answer.quick_grade(Problem("p", "q", r"\sqrt{4}"), r"\boxed{2}") is None


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
    with pytest.raises(
        GraderSetupError, match=r"unknown grader 'maths'; use one of .*exact, math, .*reasoning_gym.*, or"
    ):
        check(Problem("p", "q", "5", grader="maths"))
