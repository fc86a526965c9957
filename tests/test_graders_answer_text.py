r"""Which answer a text gives, and how spellings of it are made one."""

import time

import pytest

from guide_rl.graders.answer_text import final_answer, plain

EXTRACTED = {
    r"so \boxed{5}": "5",
    r"\boxed{4}, no: \boxed{5}.": "5",
    r"\boxed{5} and \boxed{6": "5",
    r"\boxed{\frac{1}{\sqrt{2}}}": r"\frac{1}{\sqrt{2}}",
    r"\boxed{\{1,2\}}": r"\{1,2\}",
    r"\boxed{\left\{ 1 \right.}": r"\left\{ 1 \right.",
    r"\boxed{\boxed{5}}": "5",
    r"\boxed {5}": "5",
    r"\boxed{4} \\boxed{5}": "5",
    r"} } \boxed{5} {": "5",
    r"\boxed{}": "",
    "\\boxed{ 5\n}": "5",
    "<answer> 5 </answer>": "5",
    "<answer>4</answer> <answer>5</answer>": "5",
    "<answer>5</answer> <answer>6": "5",
    "<answer>4<answer>5</answer>": "5",
    r"<answer>so \boxed{5}</answer>": "5",
    r"\boxed{<answer>5</answer>}": "5",
    r"<think>\boxed{4}</think><answer>5</answer>": "5",
    r"<answer>4</answer> rather \boxed{5}": "5",
    "5": None,
    "": None,
    "boxed{5}": None,
    r"\boxed{5": None,
    r"\boxed5": None,
    "<answer>5": None,
    "</answer>5<answer>": None,
    "\\boxed{\ud800}": "\ud800",
}

SPELLED_ALIKE = [
    ("5", "$5$", r"\(5\)", r"\[5\]", "$$5$$", "5.", "+5", r"\$5", r"\text{5}", " 5 ", r"\mathbf{5}", "$5.$"),
    ("1234", "1,234", "1{,}234", r"\$1,234"),
    ("1234567.5", "1,234,567.5"),
    (r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac{1} {2}"),
    ("(1,2)", r"\left( 1, 2 \right)", r"(1,\,2)"),
    ("5 cm", r"5\text{ cm}", r"5~\mathrm{cm}"),
]

SPELLED_APART = [
    ("1 2", "12"),
    ("1,2", "12"),
    ("1,23", "123"),
    ("12,34,567", "1234567"),
    ("(1,234)", "(1234)"),
    ("-5", "5"),
    ("a b", "ab"),
    (r"\leftarrow", "arrow"),
    ("$5$ and $6$", "5$ and $6"),
    ("\u0665", "5"),
    ("5\u200b", "5"),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED.items())
def test_the_final_answer_is_the_last_closed_mark(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize("spellings", SPELLED_ALIKE)
def test_typography_makes_no_difference(spellings: tuple[str, ...]) -> None:
    assert {plain(spelling) for spelling in spellings} == {spellings[0]}


@pytest.mark.parametrize(("one", "other"), SPELLED_APART)
def test_meaning_makes_a_difference(one: str, other: str) -> None:
    assert plain(one) != plain(other)


@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{" + "{" * 10**6,
        "\\boxed{" * 150_000,
        "\\boxed{" * 100_000 + "}" * 100_000,
        "\\boxed{<answer>" * 40_000 + "</answer>}" * 40_000,
        "<answer>" * 120_000,
        "<answer>" * 60_000 + "</answer>" * 60_000,
        "\\boxed" + "\\" * 10**6,
        "\\boxed" + " " * 10**6,
    ],
    ids=lambda text: f"{text[:16]!r}",
)
def test_finding_the_answer_takes_time_linear_in_the_text(hostile: str) -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        final_answer(text)
        return time.process_time() - started

    assert seconds(hostile) < 2.0
