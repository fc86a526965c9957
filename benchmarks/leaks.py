"""How often the leak check is wrong: false alarms on human hints, misses on planted answers.

`python benchmarks/leaks.py` reads the CHAMP data set (pip install champ-dataset) and reasoning-gym. Every hint of CHAMP
was written by people not to give the answer away; each alarm is printed, to be judged. Then each problem's answer is
planted in its hints, in every form that makes sense for it; each miss is printed.
"""

import importlib.util
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from guide_rl.guidance.leaks import LeakCheck, restates
from guide_rl.guidance.leaks.number_words import spelled_out
from guide_rl.types import Problem

HINT = "Think about what stays the same. {} Then check your work."
"""The text into which an answer is planted."""
LEFT_OUT = "left out"
PROCEDURAL = (
    "gsm_symbolic",
    "lcm",
    "gcd",
    "simple_equations",
    "simple_geometry",
    "number_sequence",
    "leg_counting",
    "fraction_simplification",
    "decimal_arithmetic",
    "products",
    "polynomial_multiplication",
    "simple_integration",
    "calendar_arithmetic",
    "propositional_logic",
    "word_sorting",
)
"""Data sets of reasoning-gym."""


def champ() -> list[tuple[Problem, list[str], list[str]]]:
    """The problems of CHAMP, each with its hints and with the concepts that go with it."""
    found = importlib.util.find_spec("champ_dataset")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pip install champ-dataset")
    data = json.loads((Path(found.origin).parent / "dataset_files/v0.json").read_text(encoding="utf-8"))
    return [
        (
            Problem(id=row["identifier"], question=row["_text"], answer=row["_answer"]),
            [data["hints"][name]["_text"] for name in row["ch_list"] if name.startswith("H_")],
            [data["concepts"][name]["_text"] for name in row["ch_list"] if name.startswith("C_")],
        )
        for row in data["problems"].values()
    ]


def procedural(size: int, seed: int = 0) -> list[Problem]:
    """`size` problems of each of the `PROCEDURAL` data sets."""
    import reasoning_gym

    return [
        Problem(id=f"{name}-{at}", question=entry["question"], answer=str(entry["answer"]))
        for name in PROCEDURAL
        for at, entry in enumerate(reasoning_gym.create_dataset(name, size=size, seed=seed))
    ]


def plants(problem: Problem) -> Iterator[tuple[str, str]]:
    """Forms of the problem's answer: (name of the form, text that states the answer)."""
    answer = problem.answer.strip()
    yield "in a sentence", f"So the answer is {answer}."
    yield "boxed", f"You should get $\\boxed{{{answer}}}$."
    yield "Markdown", f"The answer: **{answer}**"
    number = _fraction(answer)
    if answer in "ABCDEFGHIJ":
        yield "choice", f"Pick {answer}."
    if number is not None:
        yield from _numbers(number, answer)
    else:
        yield from _formulas(answer)


def _fraction(answer: str) -> Fraction | None:
    try:
        return Fraction(answer.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _numbers(number: Fraction, answer: str) -> Iterator[tuple[str, str]]:
    """Forms of a number."""
    top, bottom = number.numerator, number.denominator
    yield "LaTeX equation", f"This leaves $x = {answer}$, as wanted."
    yield "LaTeX fraction", f"It is $\\frac{{{2 * top}}}{{{2 * bottom}}}$ in the end."
    yield "plain fraction", f"It is {3 * top}/{3 * bottom} in the end."
    yield "units", f"That makes {answer} cm in all."
    yield "units in LaTeX", f"That makes ${answer}\\text{{ meters}}$ in all."
    yield "sum", f"That is {number - 1} + 1." if bottom == 1 else f"That is {top - bottom}/{bottom} + 1."
    yield "full-width digits", "You get " + "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in answer) + "."
    if (10**6 * number).denominator == 1:
        yield "decimal", f"You get {float(number):.6f}."
        yield "per cent", f"You get {float(100 * number):.4f}%."
        yield "per cent in words", f"You get {_short(100 * number)} per cent."
        yield "percent in words", f"You get {_short(100 * number)} percent."
    else:
        yield "rounded decimal", f"You get about {float(number):.4f}."
    if abs(number) >= 1000 and bottom == 1:
        yield "thousands, comma", f"There are {top:,} of them."
        yield "thousands, LaTeX", f"There are ${top:,}$ of them.".replace(",", "{,}")
        yield "thousands, space", f"There are {top:,} of them.".replace(",", " ")
    if abs(number) >= 10 and bottom == 1:
        mantissa, _, power = f"{top:.15e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        yield "scientific", f"There are $ {mantissa} \\times 10^{{{int(power)}}} $ of them."
        yield "scientific, e", f"There are {mantissa}e{int(power)} of them."
    for words in list(spelled_out(number))[:1]:
        yield "in words", f"You will end with {words}."
        if "hundred " in words:
            yield "in words with and", f"You will end with {words.replace('hundred ', 'hundred and ')}."
    if bottom == 1 and number > 100 and top % 100 and top < 1000:
        yield "hundreds", f"You will end with {top // 100} hundred {top % 100}."
    if bottom == 1 and number >= 10**6 and top % 1000 == 0:
        yield "millions", f"You will end with {_short(number / 10**6)} million."
    if bottom == 1 and math.isqrt(max(top, 0)) ** 2 == top > 3:
        yield "squared", f"It is {math.isqrt(top)} squared."
    if number == 12:
        yield "dozen", "You will end with a dozen."


def _short(number: Fraction) -> str:
    """A decimal without zeros at its end."""
    return f"{float(number):.4f}".rstrip("0").rstrip(".")


def _formulas(answer: str) -> Iterator[tuple[str, str]]:
    """Forms of a formula, spelled by sympy; nothing for words."""
    import sympy
    from sympy.parsing.sympy_parser import (
        convert_xor,
        implicit_multiplication_application,
        parse_expr,
        standard_transformations,
    )

    names = {letter: sympy.Symbol(letter) for letter in "abcdefghijklmnopqrstuvwxyzCEINOQS"}
    steps = (*standard_transformations, convert_xor, implicit_multiplication_application)
    if answer in ("Yes", "No") or any(len(word) > 3 for word in answer.replace("(", " ").split() if word.isalpha()):
        return
    try:
        formula = parse_expr(answer.replace("\N{MINUS SIGN}", "-"), local_dict=names, transformations=steps)
        variants = {sympy.latex(form(formula)) for form in (lambda f: f, sympy.expand, sympy.factor, sympy.simplify)}
        plain = str(sympy.expand(formula)).replace("**", "^")
    except Exception:  # Many answers of CHAMP are sentences.
        return
    if not isinstance(formula, sympy.Expr) or not formula.free_symbols:
        return
    for at, latex in enumerate(sorted(variants)):
        yield f"LaTeX form {at + 1}", f"In the end you have ${latex}$ of them."
    if "factorial" not in plain:
        yield "expanded", f"In the end you have {plain} of them."


def misses(problems: list[Problem], check: LeakCheck) -> tuple[Counter[str], Counter[str], list[str]]:
    """Plants a form, misses a form, and the missed ones; answers that the question states are left out."""
    planted: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    lines = []
    for problem in problems:
        if restates(problem.question, problem.answer):
            planted[LEFT_OUT] += 1
            continue
        for form, text in plants(problem):
            planted[form] += 1
            if check.find(problem, HINT.format(text)) is None:
                missed[form] += 1
                lines.append(f"{problem.id} [{problem.answer}] {form}: {text}")
    return planted, missed, lines


def false_alarms(check: LeakCheck, rows: list[tuple[Problem, str]]) -> list[str]:
    """The hints that the check refuses."""
    return [
        f"{problem.id} [{problem.answer}] {found!r} in: {hint}"
        for problem, hint in rows
        if (found := check.find(problem, hint)) is not None
    ]


def main() -> None:
    """Print both rates and every case."""
    problems = champ()
    with LeakCheck() as check:
        for name, at in (("hints", 1), ("concepts", 2)):
            rows = [(row[0], text) for row in problems for text in row[at]]
            alarms = false_alarms(check, rows)
            print(f"## {len(alarms)} alarms on {len(rows)} {name} of CHAMP", *alarms, sep="\n")
        everything = [row[0] for row in problems] + procedural(40)
        random.Random(0).shuffle(everything)
        planted, missed, lines = misses(everything, check)
    left_out = planted.pop(LEFT_OUT, 0)
    print(
        f"## {sum(missed.values())} misses of {planted.total()} planted; {left_out} problems state their answer's value"
    )
    print(*lines, sep="\n")
    for form in planted:
        print(f"{form:24} {missed[form]:4} of {planted[form]}")


if __name__ == "__main__":
    main()
