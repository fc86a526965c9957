"""Seconds, memory and accuracy of `guide problems` on made-up rows with planted duplicates.

    python benchmarks/problems.py --rows 100000 --out problems.json

The rows are invented sentences over 4,000 words of Zipf's frequencies, with numbers, commas and formulas. Of them, 5 % are an
earlier question in another spelling (case, spaces, `$`, LaTeX delimiters and commands, punctuation), 5 % an earlier question
edited (a word or two replaced, a label in front, a sentence behind), both with the same answer, 5 % an earlier question with
other numbers and another answer (variants, which must stay). 100 rows of each kind come from 1,000 evaluation problems:
edited, with an instruction behind, in other LaTeX, with other punctuation, with other numbers. The truth about an edited pair
is its exact similarity or overlap; of the others all are counted.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARE = 0.05
"""Of the rows, for each of COPIES."""
EVALUATION, CONTAMINATED = 1000, 100
"""Evaluation problems, and rows of each of FROM_EVALUATION (about)."""
COPIES = ("respelled", "edited", "variant")
FROM_EVALUATION = ("edited", "instruction", "latex", "punctuation", "variant")
EVALUATED = "evaluation, {}"
LABELS = ("Problem 7. ", "## Task B-1.3.\n\n", "12. (5 points) ", "Example 4: ")
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."
LATEX = (
    ("\\dfrac", "\\frac"),
    ("\\leq", "\\le"),
    (" $", " \\("),
    ("$ ", "\\) "),
    ("$,", "\\),"),
    ("(x", "\\left(x"),
    ("1)", "1\\right)"),
)
TAILS = (" Find the answer.", " Give your answer as a whole number.", " (Tournament, round 2)")


def vocabulary(rng: random.Random) -> tuple[list[str], list[float]]:
    """Words of 2 to 9 letters, and their cumulated weights."""
    words = ["".join(rng.choices("abcdefghijklmnoprstuvy", k=rng.randint(2, 9))) for _ in range(4000)]
    weights, total = [], 0.0
    for rank in range(1, len(words) + 1):
        total += 1 / rank
        weights.append(total)
    return words, weights


def question(rng: random.Random, words: list[str], weights: list[float]) -> str:
    """15 to 100 words; one in eight is a number, one in twenty a formula, one in ten has a comma."""
    parts = []
    for word in rng.choices(words, cum_weights=weights, k=rng.randint(15, 100)):
        draw, number = rng.random(), rng.randint(2, 999)
        if draw < 0.05:
            word = rf"$(x + 1) \leq \dfrac{{{number}}}{{{word}}}$"
        parts.append((str(number) if draw > 0.875 else word) + ("," if rng.random() < 0.1 else ""))
    return " ".join(parts) + " so?"


def in_other_latex(text: str) -> str:
    """The same question with other delimiters and commands."""
    for ours, theirs in LATEX:
        text = text.replace(ours, theirs)
    return text


def with_other_punctuation(text: str) -> str:
    """The same question without commas, and with a colon for the question mark."""
    return text.replace(",", "").replace("?", ":")


def respelled(rng: random.Random, text: str) -> str:
    """The same question in another spelling."""
    ways = [text.upper(), text.replace(" ", "  "), f"  {text}\n", in_other_latex(text), with_other_punctuation(text)]
    return rng.choice(ways)


def edited(rng: random.Random, text: str, words: list[str]) -> str:
    """The same question, edited a little."""
    parts = text.split(" ")
    for _ in range(rng.randint(0, 2)):
        parts[rng.randrange(len(parts))] = rng.choice(words)
    return rng.choice(["", *LABELS]) + " ".join(parts) + rng.choice(["", *TAILS])


def with_other_numbers(rng: random.Random, text: str) -> str:
    """The same template with other numbers."""
    return re.sub("[0-9]{2,}", lambda _: str(rng.randint(1000, 9999)), text)


def copied(kind: str, rng: random.Random, text: str, words: list[str]) -> str:
    """A copy of a question, of one of the kinds below."""
    return {
        "respelled": lambda: respelled(rng, text),
        "edited": lambda: edited(rng, text, words),
        "variant": lambda: with_other_numbers(rng, text),
        "instruction": lambda: text + INSTRUCTION,
        "latex": lambda: in_other_latex(text),
        "punctuation": lambda: with_other_punctuation(text),
    }[kind]()


def make(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Write rows.jsonl and evaluation.jsonl; returns the truth: what was planted, by line."""
    rng = random.Random(seed)
    words, weights = vocabulary(rng)
    evaluation = [question(rng, words, weights) for _ in range(EVALUATION)]
    rows: list[tuple[str, str]] = []
    truth: dict[str, Any] = {kind: [] for kind in (*COPIES, *map(EVALUATED.format, FROM_EVALUATION))}
    contaminated = len(FROM_EVALUATION) * CONTAMINATED / count
    originals: list[int] = []
    for line in range(1, count + 1):
        draw = rng.random()
        answer = str(rng.randint(1000, 999_999))
        if draw < contaminated:
            index, kind = rng.randrange(EVALUATION), FROM_EVALUATION[int(draw / contaminated * len(FROM_EVALUATION))]
            rows.append((copied(kind, rng, evaluation[index], words), answer))
            truth[EVALUATED.format(kind)].append((line, index))
        elif originals and draw < contaminated + 3 * SHARE:
            kind = COPIES[int((draw - contaminated) / SHARE)]
            original = rng.choice(originals)
            text, old = rows[original - 1]
            copy = copied(kind, rng, text, words)
            same = kind == "variant" and copy == text  # It had no numbers.
            truth["respelled" if same else kind].append((line, original))
            rows.append((copy, answer if kind == "variant" and not same else old))
        else:
            originals.append(line)
            rows.append((question(rng, words, weights), answer))
    solution = "Because of this and that, the number is what it is. " * 12
    with (folder / "rows.jsonl").open("w") as file:
        for text, answer in rows:
            file.write(json.dumps({"problem": text, "solution": f"{solution}\\boxed{{{answer}}}"}) + "\n")
    with (folder / "evaluation.jsonl").open("w") as file:
        for text in evaluation:
            file.write(json.dumps({"question": text, "answer": "1"}) + "\n")
    truth["rows"] = [text for text, _ in rows]
    truth["evaluation"] = evaluation
    return truth


def recipe(folder: Path) -> Path:
    """The recipe over those files."""
    path = folder / "recipe.yaml"
    path.write_text(
        f"sources: {{rows: {{path: {folder}/rows.jsonl, columns: "
        "{question: problem, answer: [solution, last_boxed], solution: solution}}}\n"
        f"against: [{folder}/evaluation.jsonl]\nout: {folder}/out\nsplits: {{held_out: 500, train: 1}}\n"
    )
    return path


def accuracy(out: Path, truth: dict[str, Any]) -> dict[str, Any]:
    """How many of each kind were rejected (of edited pairs those at or above the threshold)."""
    from guide_rl.problems.cleaning import overlap, shingles, similarity

    found = {row["row"]: row for row in map(json.loads, (out / "rejected.jsonl").open())}
    texts = truth["rows"]

    def rejected(lines: list[int]) -> str:
        return f"{sum(line in found for line in lines)} of {len(lines)}"

    sets = {
        "edited": lambda line, old: similarity(shingles(texts[old - 1], 3), shingles(texts[line - 1], 3)),
        "evaluation, edited": lambda line, old: overlap(
            shingles(truth["evaluation"][old], 3), shingles(texts[line - 1], 3)
        ),
    }
    figures: dict[str, Any] = {}
    planted: set[int] = set()
    for kind in (*COPIES, *map(EVALUATED.format, FROM_EVALUATION)):
        pairs = truth[kind]
        planted |= {line for line, _ in pairs}
        over = [line for line, old in pairs if kind not in sets or sets[kind](line, old) >= 0.7]
        figures[f"{kind}: rejected"] = rejected(over)
    return {**figures, "others: rejected": rejected([line for line in range(1, len(texts) + 1) if line not in planted])}


def main() -> None:
    """Make the rows, time `guide problems` in a process of its own, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="also measure prompts with this tokenizer")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make(folder, options.rows, options.seed)
        command = [sys.executable, "-m", "guide_rl.cli", "problems", str(recipe(folder))]
        command += [f"model={options.model}"] if options.model else []
        started = time.monotonic()
        subprocess.run(command, check=True)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = {
            "rows": options.rows,
            "seconds": round(time.monotonic() - started, 1),
            "processor seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak memory, MiB": round(usage.ru_maxrss / 1024),
            **accuracy(folder / "out", truth),
        }
    for key, value in figures.items():
        print(f"{key}: {value}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
