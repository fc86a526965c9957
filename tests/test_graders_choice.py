r"""Which choice a text commits to."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guide_rl import graders
from guide_rl.graders import choice
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Problem

CHOICES = ["41", "42", r"$\frac{1}{2}$ of 90", "none of these"]
"""The right one is B."""

RIGHT = [
    "B",
    "b",
    "(B)",
    "B.",
    "B)",
    "**B**",
    "B) 42",
    "(B) 42",
    "B. 42",
    "B: 42",
    "42",
    "42.",
    "$42$",
    "42.0",
    r"\boxed{B}",
    r"\boxed{b}",
    r"\boxed{\text{B}}",
    r"\boxed{\textbf{(B)}}",
    r"\boxed{\mathrm{B}}",
    r"\boxed{(B)}",
    r"\boxed{B.}",
    r"\boxed{B) 42}",
    r"\boxed{B: 42}",
    r"\boxed{\text{(B) } 42}",
    r"\boxed{\textbf{(B)}\ 42}",
    r"\boxed{42}",
    r"\boxed{\text{Option B}}",
    r"\boxed{\text{the answer is B}}",
    r"$\boxed{B}$ is the one, since A is too small.",
    "<answer>B</answer>",
    "<answer> B) 42 </answer>",
    "<answer>42</answer>",
    "<answer>The correct answer is (B).</answer>",
    "<answer>Option B: 42</answer>",
    "<answer>6*7 is 42, so the answer is B.</answer>",
    "the answer is (B)",
    "The answer is B.",
    "The answer is b.",
    "The answer is: B",
    "So the correct answer is **B**.",
    "The correct option is (B) 42.",
    "the answer is option B",
    "The answer is $\\textbf{(B)}\\ 42$.",
    "The answer is 42.",
    "The answer is 42, because 6*7 = 42.",
    "The answer is (B) because (A) is too small.",
    "The answer is B, since A) is too small.",
    "The answer is B. Option A forgets to add one.",
    "Answer: B.",
    "Answer: B",
    "**Answer:** B",
    "**Answer: B**",
    "Answer: (B) 42",
    "Final answer: B",
    "### Answer\n\n(B)",
    "Correct choice: B",
    "Therefore, option B is correct.",
    "(B) is the correct answer.",
    "The answer is option b.",
    "The answer is (B) a nice one.",
    "The answer is B: a nice one.",
    r"\boxed{B) a nice one}",
    "I choose B.",
    "6*7 is 42.\n\nB",
    "6*7 is 42.\nB) 42\nThat is it.",
    "The answer is A. No, wait: the answer is B.",
    "The answer is B. Yes, the answer is not A.",
    r"\boxed{A} is wrong, so \boxed{B}",
    r"\boxed{A}? No. The answer is B.",
    r"The answer is A. Check: it is 42, so \boxed{B}",
    "A) 41\nB) 42\nC) 45\nThe answer is (B)",
    "<think>The answer is A</think>\nAnswer: B",
    "*B*",
    "Answer: *B*",
    "Option B",
    'The answer is "B".',
    "The answer is \u201cB\u201d.",
    r"\boxed{\mathsf{B}}",
    r"\boxed{42 (B)}",
    "The answer is 42 (B).",
    "So, B is the answer.",
    "The correct letter is B.",
    "The answer is therefore B.",
    "The answer is clearly (B).",
    "I'd go with B.",
    "I will go with (B).",
    "6*7 is 42. Therefore, (B).",
    "6*7 is 42, hence B.",
    "The answer is A... no, B",
    "The answer is A? No, B.",
    "The answer is A. Actually it is B.",
    "The answer is A. Wait, no: B",
    "The answer is B. A is too small.",
    "I do not think that the answer is A. The answer is B.",
    "The answer is B. I doubt that the answer is A.",
    "The reason is not clear, but the answer is B.",
    "A is not correct. B is correct.",
    "A is correct? No. B is correct.",
    "A is correct for n = 1 only. B is correct.",
    "A is wrong. B is correct. C is wrong.",
    "B is correct and A is wrong.",
    "B is correct. B is the answer.",
    r"\boxed{B} and A is wrong.",
    r"\boxed{B}. And A is too small.",
    r"\boxed{42}, so \boxed{B}",
    r"\boxed{B} and \boxed{B}",
    r"\boxed{41}. No, \boxed{B}",
    "The answer is B.\nOr, in words: 6*7 is 42.",
    "The answer is A.\nWait, the answer is B.",
    "The answer is A.\nI forgot to add one.\nThe answer is B.",
    "The answer is B.\n\nThe answer is B.",
    "Answer: B\nA, C and D are too small.",
]

WRONG = {
    "A": "wrong",
    "C": "wrong",
    "41": "wrong",
    r"\boxed{A}": "wrong",
    r"\boxed{43}": "wrong",
    r"\boxed{E}": "wrong",
    r"\boxed{BB}": "wrong",
    r"\boxed{ABCD}": "wrong",
    r"\boxed{B^2}": "wrong",
    r"\boxed{not B}": "wrong",
    r"\boxed{B-}": "wrong",
    r"\boxed{\frac{1}{2}\text{ of } 90}": "wrong",
    r"\boxed{\dfrac12 of 90}": "wrong",
    r"\boxed{B}, rather \boxed{A}": "wrong",
    r"\boxed{B}. No: the answer is (C)": "wrong",
    "<answer>D</answer>": "wrong",
    "<answer>None of these</answer>": "wrong",
    "<answer>I do not know</answer>": "wrong",
    "The answer is D.": "wrong",
    "The answer is A because B is too large.": "wrong",
    "The answer is B. No, it is not. The answer is C.": "wrong",
    "Answer: C) 1": "wrong",
    "Answer: none of these": "wrong",
    "Option D is correct.": "wrong",
    r"\boxed{A, B}": "several answers",
    r"\boxed{A or B}": "several answers",
    r"\boxed{B or C}": "several answers",
    r"\boxed{B, C}": "several answers",
    r"\boxed{B C}": "several answers",
    r"\boxed{(B)(C)}": "several answers",
    r"\boxed{B \text{ and } C}": "several answers",
    r"\boxed{A B C D}": "several answers",
    r"\boxed{A, B, C, D}": "several answers",
    r"\boxed{B) 41}": "several answers",
    r"\boxed{A) 42}": "several answers",
    r"\boxed{A) 41, B) 42}": "several answers",
    r"\boxed{B) 42 C) 45}": "several answers",
    r"\boxed{\text{(B) or (C)}}": "several answers",
    "<answer>A B C D</answer>": "several answers",
    "<answer>B/C</answer>": "wrong",
    "The answer is B or C.": "several answers",
    "The answer is (b) or (c).": "several answers",
    "The answer is A) 41, B) 42, C) 45, D) none of these": "several answers",
    "The answer is B) 41, which is a prime.": "several answers",
    "B) 41": "several answers",
    "B\n\\boxed{}": "no answer",
    "\\boxed{}\nB": "no answer",
    "E": "no answer",
    "Answer: A B C D": "several answers",
    "Answer: A, B, C, D": "several answers",
    "Answer: B & D": "several answers",
    "The answer is B. 41": "several answers",
    "The answer is B) 41.": "several answers",
    "A B C D": "no answer",
    "A, B, C, D": "no answer",
    "A\nB\nC\nD": "several answers",
    "(A)\n(B)\n(C)\n(D)": "several answers",
    "A) 41\nB) 42\nC) $\\frac{1}{2}$ of 90\nD) none of these": "several answers",
    "41\n42": "several answers",
    "B) 42\nC)": "several answers",
    "The answer is B... no, C": "wrong",
    "The answer is B? No, C.": "wrong",
    "The answer is B. Actually it is C.": "wrong",
    r"\boxed{B?}": "wrong",
    r"\boxed{\text{B is wrong}}": "wrong",
    r"The answer is C. So \boxed{B} is wrong": "no answer",
    "<answer>B</answer> is not right": "no answer",
    "Answer: B \u2260": "no answer",
    "Answer: B (wrong)": "no answer",
    "B is correct? No.": "no answer",
    "It is not the case that the answer is B": "no answer",
    "I don't think that the answer is B.": "no answer",
    "The answer is B or maybe C": "several answers",
    "The answer is B or perhaps C": "several answers",
    "The answer is B, possibly C": "several answers",
    "The answer is 42, 41": "several answers",
    "The answer is 41 or 42": "several answers",
    "The answer is 42 (A).": "several answers",
    r"\boxed{42, 41}": "several answers",
    r"\boxed{42 (C)}": "several answers",
    r"\boxed{\text{B, maybe A}}": "several answers",
    r"\boxed{B \lor C}": "several answers",
    r"\boxed{B \cup C}": "several answers",
    r"\boxed{B \quad C}": "several answers",
    r"\boxed{B\,C}": "several answers",
    r"\boxed{B..D}": "several answers",
    "Option A\nOption B": "several answers",
    r"\boxed{C} or \boxed{B}": "several answers",
    r"\boxed{B} or \boxed{C}": "several answers",
    r"$\boxed{A}$, $\boxed{B}$": "several answers",
    r"\boxed{A}\boxed{B}": "several answers",
    r"\boxed{A}, \boxed{C} or maybe \boxed{B}": "several answers",
    "<answer>C</answer>\n<answer>B</answer>": "several answers",
    "<answer>C</answer> or <answer>B</answer>": "several answers",
    r"<answer>\boxed{C}</answer> or <answer>\boxed{B}</answer>": "several answers",
    r"\boxed{B} or C": "several answers",
    r"\boxed{B}. Or C.": "several answers",
    "<answer>B</answer> or maybe (C).": "several answers",
    "A is correct. B is correct.": "several answers",
    "B is correct. C is also correct.": "several answers",
    "B is correct and so is C": "several answers",
    "B is right, as is C.": "several answers",
    "B is correct and C is correct": "several answers",
    "B is correct, and C too.": "several answers",
    "Option A is correct. So is B.": "several answers",
    "The answer is C, or the answer is B.": "several answers",
    "The answer is A. The answer is B.": "several answers",
    "The answer is B. Or C.": "several answers",
    "The answer is B.\nOr C.": "several answers",
    "Answer: B\nor C": "several answers",
    "Answer: B\n\nor maybe (C)": "several answers",
    "Answer: A\nAnswer: B": "several answers",
    "B\nor C": "several answers",
    "": "no answer",
    " \n\t": "no answer",
    r"\boxed{}": "no answer",
    "<answer> </answer>": "no answer",
    "ABCD": "no answer",
    "I do not know.": "no answer",
    "B is a nice letter": "no answer",
    "The answer is not B.": "no answer",
    "The answer is not clear to me.": "no answer",
    "The answer is A positive number.": "no answer",
    "the answer is a number": "no answer",
    "A train leaves at noon.": "no answer",
    "Not all of B and C are correct.": "no answer",
    "Which option is it? B is correct only if 6*7 is 42.": "no answer",
    r"so \boxed{B": "no answer",
    "\uff22": "no answer",
    "B\u200b": "no answer",
    "\\boxed{" + "B" * 5000 + "}": "too long",
}

HOSTILE = [
    "\\boxed{" * 150_000,
    "\\boxed{" + "B " * 900 + "}",
    "\\boxed{" + "option " * 280 + "B}",
    "the answer is " * 70_000,
    "The answer is B or " * 50_000,
    "answer: " * 120_000,
    "answer" + " " * 10**6,
    "answer:" + "\n" * 10**6,
    "B\n" * 500_000,
    "B " * 500_000,
    "(" * 10**6,
    "**" * 500_000,
    "$" * 10**6,
    "{" * 10**6,
    "\\text " * 150_000,
    "A) " * 300_000,
    "B) is " * 200_000,
    "a " * 19_000 + "the answer is " + " " * 1000,
    "the " * 250_000,
    "and or " * 150_000,
    "answer: B" + " and or" * 3000,
    "answer: B" + " maybe" * 3000,
    "answer: " + "41, " * 30_000,
    "not that " * 110_000,
    "doubt " * 150_000 + "that the answer is B",
    "so B " * 200_000,
    "no, " * 250_000,
    "'B" * 300_000,
    "\\boxed{B}" + "}$ " * 300_000,
    "\\boxed{A}" * 100_000,
    "\\boxed{A} or " * 80_000 + "\\boxed{B}",
    "<answer>A</answer>" * 50_000,
    "A is correct. " * 70_000,
    "B is correct" + " and" * 250_000,
    "\\boxed{B}" + " or" * 300_000,
    "B is correct" + " so is" * 150_000,
    "\x00" * 10**6,
    "\ud800" * 1000,
]

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def _problem(choices: list[str] = CHOICES, answer: str = "B") -> Problem:
    return Problem("p", "q", answer, grader="choice", metadata={"choices": choices})


def _grade(text: str, choices: list[str] = CHOICES, answer: str = "B") -> str:
    grade = graders.quick_grade(_problem(choices, answer), text)
    assert grade is not None
    assert grade.reward == float(grade.correct)
    assert grade.correct == (grade.verdict == "correct")
    return grade.verdict


@pytest.mark.parametrize("text", RIGHT)
def test_a_commitment_to_the_right_choice_is_correct(text: str) -> None:
    assert _grade(text) == "correct"


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_for_one_choice_is_wrong_for_the_others(text: str) -> None:
    assert {_grade(text, answer=other) for other in "ACD"} == {"wrong"}


@pytest.mark.parametrize(("text", "verdict"), WRONG.items(), ids=lambda text: f"{text[:30]!r}")
def test_any_other_text_is_wrong_and_the_verdict_says_why(text: str, verdict: str) -> None:
    assert _grade(text) == verdict


OTHER_CHOICES = [  # (choices, right letter, text, verdict)
    (["B", "A"], "A", r"\boxed{A}", "correct"),
    (["B", "A"], "A", r"\boxed{A) B}", "correct"),
    (["B", "A"], "A", r"\boxed{B}", "wrong"),
    (["x^2", "Both A and C", "x^3"], "B", r"\boxed{\text{Both A and C}}", "correct"),
    (["x^2", "Both A and C", "x^3"], "B", "The answer is both A and C.", "correct"),
    (["x", "A and C only", "y"], "B", r"\boxed{\text{A and C only}}", "correct"),
    (["x", "A and C only", "y"], "A", "x", "correct"),
    (["a" * 3000, "b" * 3000], "B", "<answer>" + "b" * 3000 + "</answer>", "correct"),
    (["a" * 3000, "b" * 3000], "B", "b" * 3000, "correct"),
    (["Na", "NA", "na"], "B", r"\boxed{NA}", "correct"),
    (["Na", "NA", "na"], "B", r"\boxed{Na}", "wrong"),
    (["Na", "NA", "na"], "B", r"\boxed{nA}", "several answers"),
    (["5", "5.0"], "B", r"\boxed{5.0}", "correct"),
    (["1,000", "10000"], "A", r"\boxed{1000}", "correct"),
    ([r"$\frac{1}{23}$", r"$\frac{12}{3}$"], "A", r"\boxed{\frac{12}{3}}", "wrong"),
    (["$10^{-4}$ eV", "$10^{-11}$ eV"], "A", r"\boxed{10^{-4} \text{ eV}}", "correct"),
    (["Paris", "Nice, France", "Rome"], "B", "The answer is Nice, France.", "correct"),
    (["Paris", "Nice, France", "Rome"], "A", r"\boxed{A) Nice, France}", "several answers"),
    (["Paris", "Nice, France", "Rome"], "A", "The answer is Paris, or Rome.", "several answers"),
    (["vitamin A", "vitamin B"], "B", r"\boxed{B: vitamin B}", "correct"),
    (["vitamin A", "vitamin B"], "B", r"\boxed{\text{vitamin A}}", "wrong"),
    (["cats", "dogs"], "B", r"\boxed{B dogs}", "correct"),
    (["yes", "no"], "B", "No", "correct"),
    (["yes", "no"], "B", "yes\nno", "several answers"),
    ([str(n) for n in range(10)], "J", r"\boxed{J}", "correct"),
    ([str(n) for n in range(10)], "J", r"\boxed{9}", "correct"),
    ([str(n) for n in range(10)], "I", "The answer is I.", "correct"),
]


@pytest.mark.parametrize(("choices", "answer", "text", "verdict"), OTHER_CHOICES)
def test_letters_go_before_texts_and_texts_are_compared_but_for_typography(
    choices: list[str], answer: str, text: str, verdict: str
) -> None:
    assert _grade(text, choices, answer) == verdict


TEMPLATES = [
    r"\boxed{%s}",
    "<answer>%s</answer>",
    "Therefore the answer is (%s).",
    "Answer: %s",
    "%s",
    r"\boxed{\text{(%s)}}",
]
_TEXTS = st.lists(st.integers(0, 10**6).map(str), min_size=2, max_size=26, unique=True)


@SETTINGS
@given(_TEXTS, st.data())
def test_every_letter_and_every_text_commits_to_its_own_choice(choices: list[str], data: st.DataObject) -> None:
    at, right = (data.draw(st.integers(0, len(choices) - 1)) for _ in range(2))
    said = data.draw(st.sampled_from([choice.LETTERS[at], f"{choice.LETTERS[at]}) {choices[at]}"]))
    template = data.draw(st.sampled_from(TEMPLATES[:2] + TEMPLATES[3:5]))
    wanted = "correct" if at == right else "wrong"
    assert _grade(template % said, choices, choice.LETTERS[right]) == wanted
    assert _grade(template % choices[at], choices, choice.LETTERS[right]) == wanted


@SETTINGS
@given(_TEXTS, st.data())
def test_naming_two_choices_is_never_correct(choices: list[str], data: st.DataObject) -> None:
    one, other = data.draw(
        st.lists(st.sampled_from(choice.LETTERS[: len(choices)]), min_size=2, max_size=2, unique=True)
    )
    joint = data.draw(st.sampled_from([", ", " or ", " and ", " & ", " ", "/", "; ", "|", ""]))
    template = data.draw(st.sampled_from(TEMPLATES))
    for right in (one, other):
        assert _grade(template % f"{one}{joint}{other}", choices, right) != "correct"


@SETTINGS
@given(st.text(st.sampled_from("ABCD ab()[]{}.,:\\$*\n/42") | st.characters(), max_size=200), st.sampled_from("ABCD"))
def test_at_most_one_letter_is_right_for_any_text(text: str, extra: str) -> None:
    for hostile in (text, rf"\boxed{{{text}}}", f"the answer is {text}", f"{text}\n{extra}"):
        assert sum(_grade(hostile, answer=letter) == "correct" for letter in "ABCD") <= 1


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:20]!r}")
def test_huge_texts_are_graded_in_the_calling_process_without_holding_it_up(text: str) -> None:
    started = time.process_time()
    _grade(text)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("answer", "metadata", "message"),
    [
        ("B", {}, "needs metadata with choices"),
        ("B", {"choices": "AB"}, "needs metadata with choices"),
        ("B", {"choices": ["1"]}, "needs metadata with choices"),
        ("B", {"choices": ["1", 2]}, "needs metadata with choices"),
        ("B", {"choices": ["1", "2", 3]}, "needs metadata with choices"),
        ("B", {"choices": ["1", " "]}, "needs metadata with choices"),
        ("B", {"choices": [str(n) for n in range(27)]}, "2 to 26 texts"),
        ("B", {"choices": ["1", "2", " 1"]}, "choices has '1' twice"),
        ("C", {"choices": ["1", "2"]}, "'C', not a letter from A to B"),
        ("b", {"choices": ["1", "2"]}, "'b', not a letter"),
        ("AB", {"choices": ["1", "2"]}, "'AB', not a letter"),
    ],
)
def test_a_problem_without_choices_or_with_another_answer_is_refused(
    answer: str, metadata: dict[str, object], message: str
) -> None:
    with pytest.raises(GraderSetupError, match=f"problem 'p': .*{message}"):
        graders.check(Problem("p", "q", answer, grader="choice", metadata=metadata))


def test_a_problem_with_its_choices_is_accepted() -> None:
    graders.check(_problem())
    assert graders.resolve("choice")(_problem(), r"\boxed{B}").correct
