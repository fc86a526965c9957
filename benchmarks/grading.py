"""What grading costs.

    python benchmarks/grading.py math --rollouts 10000 --out math.json

`math`: rollouts of made-up problems whose answers are spread as in MATH (whole numbers, fractions, roots, expressions, sets,
words), each about 1,500 characters of reasoning with a final answer: half of them spell it as the reference does, the others
otherwise, or are wrong, or have none. They are graded by the pool of `guide train` and by plain math-verify in one process
(parse the reference, parse the text, verify: its defaults), in turns of 500, so that both see the same machine.

    python benchmarks/grading.py code --rollouts 1000

`code`: trivial right programs, each in a fresh process in the sandbox: functions against three asserts (two processes a
grading) and programs with one input (one process), over 10 problems and over as many problems as gradings.
"""

import argparse
import json
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from guide_rl.graders.answer_text import final_answer
from guide_rl.graders.pool import GraderPool
from guide_rl.types import Problem, Rollout

TURN = 500
REASONING = (
    "We first write down what is given. Let $x$ be the number that is asked for; then $2x + 3 = 17 - y$, so that "
    "$x = \\frac{14 - y}{2}$. Now we look at the second condition, $y^2 - 4y + 3 = 0$, whose roots are $1$ and $3$. "
) * 7
Spellings = tuple[str, list[str], list[str]]
"""A reference answer, other spellings of it, and wrong answers."""


def whole(rng: random.Random) -> Spellings:
    """A whole number."""
    n = rng.choice([rng.randint(0, 20), rng.randint(21, 400), rng.randint(1000, 20000)])
    return str(n), [f"{n}.0", f"{n:,}", f"{n}.", f"x = {n}", f"{n} \\text{{ cm}}"], [str(n + 1), str(n * 2), f"{n}.5"]


def decimal(rng: random.Random) -> Spellings:
    """A decimal number of two places."""
    n = rng.randint(1, 999)
    return f"{n / 100:.2f}", [f"\\frac{{{n}}}{{100}}", f"\\${n / 100:.2f}"], [f"{n / 10:.1f}", f"{n / 100 + 1:.2f}"]


def fraction(rng: random.Random) -> Spellings:
    """A fraction in lowest terms or not."""
    a, b = rng.randint(1, 40), rng.choice([3, 7, 9, 11, 13])
    a += a % b == 0
    return (
        f"\\frac{{{a}}}{{{b}}}",
        [f"{a}/{b}", f"\\dfrac{{{a}}}{{{b}}}", f"\\frac{{{2 * a}}}{{{2 * b}}}"],
        [f"\\frac{{{a}}}{{{b + 1}}}", f"\\frac{{{b}}}{{{a}}}", str(a), f"{a / b:.3f}"],
    )


def root(rng: random.Random) -> Spellings:
    """A number times a square root."""
    a, b = rng.randint(2, 9), rng.choice([2, 3, 5, 7])
    return (
        f"{a}\\sqrt{{{b}}}",
        [f"\\sqrt{{{a * a * b}}}", f"{a} \\sqrt{{{b}}}", f"{a}\\cdot\\sqrt{{{b}}}"],
        [f"{a + 1}\\sqrt{{{b}}}", f"\\sqrt{{{a * b}}}", str(a * b)],
    )


def angle(rng: random.Random) -> Spellings:
    """A multiple of pi."""
    a, b = rng.choice([1, 2, 5, 7]), rng.choice([3, 4, 6])
    return (
        f"\\frac{{{a}\\pi}}{{{b}}}",
        [f"{a}\\pi/{b}", f"\\frac{{{a}}}{{{b}}}\\pi"],
        [f"\\frac{{{b}\\pi}}{{{a}}}", "\\pi"],
    )


def polynomial(rng: random.Random) -> Spellings:
    """A quadratic polynomial."""
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return (
        f"x^2+{a + b}x+{a * b}",
        [f"(x+{a})(x+{b})", f"{a * b} + {a + b}x + x^2", f"x^{{2}} + {a + b} x + {a * b}"],
        [f"x^2+{a + b + 1}x+{a * b}", f"(x-{a})(x+{b})"],
    )


def several(rng: random.Random) -> Spellings:
    """A tuple, a set, an interval or a list."""
    a, b = rng.sample(range(-9, 10), 2)
    return rng.choice(
        [
            (f"({a}, {b})", [f"({a},{b})", f"\\left({a}, {b}\\right)"], [f"({b}, {a})", f"({a}, {b + 1})"]),
            (f"\\{{{a}, {b}\\}}", [f"\\{{{b}, {a}\\}}"], [f"\\{{{a}, {b + 1}\\}}"]),
            (f"[{min(a, b)}, {max(a, b)})", [f"[{min(a, b)},{max(a, b)})"], [f"({min(a, b)}, {max(a, b)})"]),
            (f"{a}, {b}", [f"{b}, {a}", f"{a},{b}"], [f"{a}, {b + 1}", str(a)]),
        ]
    )


def words(rng: random.Random) -> Spellings:
    """A word or two."""
    right, wrong = rng.sample(["Monday", "even", "parallel", "no solution", "ellipse", "Evelyn"], 2)
    return f"\\text{{{right}}}", [right, right.lower()], [f"\\text{{{wrong}}}", "3"]


KINDS: dict[Callable[[random.Random], Spellings], int] = {
    whole: 62,
    fraction: 13,
    polynomial: 6,
    several: 6,
    root: 5,
    decimal: 4,
    angle: 2,
    words: 2,
}
"""Kinds of answers, with the shares that they have among MATH's, in percent."""


def math_rollouts(count: int, seed: int = 0) -> Iterator[tuple[Problem, Rollout]]:
    """Problems with one rollout each."""
    rng = random.Random(seed)
    for at in range(count):
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        reference, others, wrong = kind(rng)
        draw = rng.random()
        answer = reference if draw < 0.5 else rng.choice(others if draw < 0.65 else wrong)
        text = REASONING + (f"The answer is $\\boxed{{{answer}}}$." if draw < 0.97 else "I do not know.")
        yield Problem(str(at), "q", reference), Rollout(str(at), 0, False, (), (), (), text, "eos", 0.0)


def plain_math_verify(problem: Problem, text: str) -> bool:
    """As math-verify's own examples use it."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${problem.answer}$"), parse(text)))


def measure_math(count: int, workers: int) -> dict[str, object]:
    """Seconds of both, over the same rollouts in turns."""
    rollouts = list(math_rollouts(count))
    plain_math_verify(rollouts[0][0], rollouts[0][1].text)
    seconds: Counter[str] = Counter()
    quick = 0
    apart: Counter[str] = Counter()
    with GraderPool(workers) as pool:
        pool.check(rollouts[0][0])
        pool.warm_up()
        for start in range(0, count, TURN):
            turn = rollouts[start : start + TURN]
            started = time.perf_counter()
            pending = [pool.submit(problem, rollout) for problem, rollout in turn]
            seconds["submitting, in the pool's process"] += time.perf_counter() - started
            ours = [grade.result().correct for grade in pending]
            seconds["guide-rl, pool"] += time.perf_counter() - started
            quick += sum(not hasattr(grade, "cancel") for grade in pending)
            started = time.perf_counter()
            theirs = [plain_math_verify(problem, rollout.text) for problem, rollout in turn]
            seconds["math-verify, one process"] += time.perf_counter() - started
            for (problem, rollout), one, other in zip(turn, ours, theirs, strict=True):
                if one != other:
                    answer = final_answer(rollout.text)
                    apart[f"{problem.answer} | {answer} | {'correct' if one else 'wrong'} here"] += 1
        verdicts = dict(pool.counts)
    workers_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return {
        "rollouts": count,
        "workers": workers,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "processor seconds of the workers, start included": round(workers_s, 2),
        "decided at a glance": quick,
        "verdicts that differ": sum(apart.values()),
        "such as (reference | answer)": dict(apart.most_common(8)),
        "verdicts": verdicts,
    }


def code_problem(number: int, by_output: bool) -> tuple[Problem, str]:
    """A problem of its own, and right code."""
    cases = [(n, n + number) for n in range(3)]
    if by_output:
        tests: object = [{"input": f"{n}\n", "output": f"{wanted}\n"} for n, wanted in cases[:1]]
        return Problem(
            str(number), "q", "", grader="unit_tests", metadata={"tests": tests}
        ), f"print(int(input()) + {number})"
    tests = "".join(f"    assert candidate({n}) == {wanted}\n" for n, wanted in cases)
    metadata = {"tests": f"def check(candidate):\n{tests}", "entry_point": "add"}
    return Problem(str(number), "q", "", grader="unit_tests", metadata=metadata), f"def add(n): return n + {number}"


def measure_code(count: int, workers: int) -> dict[str, object]:
    """Gradings a second of trivial code, over few problems and over as many as there are gradings."""
    a_second = {}
    with GraderPool(workers) as pool:
        for by_output in (False, True):
            for distinct in (10, count):
                pairs = [code_problem(at % distinct, by_output) for at in range(count)]
                pool.check(pairs[0][0])
                pool.warm_up()
                rollouts = [(p, Rollout(p.id, 0, False, (), (), (), code, "eos", 0.0)) for p, code in pairs]
                started = time.perf_counter()
                pending = [pool.submit(problem, rollout) for problem, rollout in rollouts]
                right = sum(grade.result().correct for grade in pending)
                took = time.perf_counter() - started
                assert right == count, f"{count - right} right programs were graded as wrong"
                a_second[f"{'one program' if by_output else 'three asserts'}, {distinct} problems"] = round(
                    count / took, 1
                )
    return {"gradings": count, "workers": workers, "gradings a second": a_second, "load before": os.getloadavg()[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["math", "code"])
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    measure = {"math": measure_math, "code": measure_code}[arguments.part]
    result = measure(arguments.rollouts, arguments.workers)
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
