r"""The final answer in a model's text, and its plain spelling. Linear in the length of the text; nothing is evaluated.

The final answer is the last `\boxed{...}` or `<answer>...</answer>`, whichever ends last; of one inside the other, the
inner. A mark that is never closed is no answer.
"""

import re
from decimal import Decimal

from guide_rl.types import Grade

CORRECT = Grade(1.0, True, "correct")
WRONG = Grade(0.0, False, "wrong")
NO_ANSWER = Grade(0.0, False, "no answer")
TOO_LONG = Grade(0.0, False, "too long")

MAX_ANSWER = 2000
"""Characters of the longest answer that is compared, unless the reference answer itself is more than half as long."""

_BRACES = re.compile(r"\\{1,2}boxed\s?\{|\\.|[{}]", re.DOTALL)
_UNIT_OR_WORD = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm|it)|mbox)\s?\{([^{}]*)\}")
_RESPELLED = (
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\{,\}"), ","),
    (_UNIT_OR_WORD, r"\1"),
    (re.compile(r"^\\?\$"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])"), ""),
)
_MATH_MARKS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def final_answer(text: str) -> str | None:
    """The final answer in the text, stripped of surrounding white space, or None."""
    span = final_span(text)
    return None if span is None else text[slice(*span)].strip()


def final_span(text: str) -> tuple[int, int] | None:
    """Start and end of the final answer in the text, or None."""
    box, tag = _last_box(text), _last_tag(text)
    if box is None or (tag is not None and box[1] < tag[1]):
        outer, inner_span = tag, _last_box
    else:
        outer, inner_span = box, _last_tag
    if outer is None:
        return None
    inner = inner_span(text[slice(*outer)])
    return outer if inner is None else (outer[0] + inner[0], outer[0] + inner[1])


def answer_or_grade(text: str, reference: str) -> str | Grade:
    """The final answer, or the grade of a text that has none worth comparing with the reference answer."""
    answer = final_answer(text)
    if not answer:
        return NO_ANSWER
    return TOO_LONG if len(answer) > max(MAX_ANSWER, 2 * len(reference)) else answer


def unwrapped(answer: str) -> str:
    r"""The answer without the `$`, `\(` or `\[` around it and without a period at its end."""
    answer = answer.strip().removesuffix(".").rstrip()
    for start, end in _MATH_MARKS:
        inner = answer[len(start) : -len(end)]
        if answer.startswith(start) and answer.endswith(end) and start not in inner and end not in inner:
            return inner.strip().removesuffix(".").rstrip()
    return answer


def plain(answer: str) -> str:
    r"""One spelling for answers that differ in typography only.

    Drops math marks, a currency sign in front, a leading +, `\left` and `\right`, the separators of thousands and
    spaces that separate nothing; `\text{...}` becomes its content, `\dfrac` and `\tfrac` become `\frac`.
    """
    answer = unwrapped(answer)
    for pattern, replacement in _RESPELLED:
        answer = pattern.sub(replacement, answer)
    answer = answer.strip().removeprefix("+")
    return answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer


def plain_number(answer: str) -> Decimal | None:
    """The value of a plain integer or decimal in ASCII digits, exactly; None for everything else."""
    return Decimal(answer) if _NUMBER.fullmatch(answer) else None


def _last_box(text: str) -> tuple[int, int] | None:
    r"""Start and end of the content of the closed `\boxed{` that begins last."""
    first = text.find("\\boxed")
    if first < 0:
        return None
    last = None
    open_braces: list[int | None] = []
    for match in _BRACES.finditer(text, first):
        mark = match.group()
        if mark == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None and (last is None or start > last[0]):
                last = start, match.start()
        elif mark[-1] == "{" and mark != "\\{":
            open_braces.append(None if mark == "{" else match.end())
    return last


def _last_tag(text: str) -> tuple[int, int] | None:
    """Start and end of the content of the last closed `<answer>`."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else (start + len("<answer>"), end)
