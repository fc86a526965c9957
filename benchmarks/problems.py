"""Seconds, memory and accuracy of `guide problems` on made-up rows with planted duplicates.

    python benchmarks/problems.py --rows 100000 --out problems.json

The rows are invented sentences over 4,000 words of Zipf's frequencies, with numbers. Of them, 5 % are an earlier question
in another spelling (case, spaces, `$`), 5 % an earlier question edited (a word or two replaced, a label in front, a sentence
behind) with the same answer, 5 % an earlier question with other numbers and another answer (variants, which must stay), and
a few match one of 1,000 evaluation problems. The truth about an edited pair is its exact similarity.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARE = 0.05
"""Of the rows, for each of the three kinds of copies."""
EVALUATION, CONTAMINATED = 1000, 400
LABELS = ("Problem 7. ", "## Task B-1.3.\n\n", "12. (5 points) ", "Example 4: ")
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
    """Sentences of 15 to 100 words, one in eight a number."""
    drawn = rng.choices(words, cum_weights=weights, k=rng.randint(15, 100))
    return " ".join(str(rng.randint(2, 999)) if rng.random() < 0.125 else word for word in drawn) + "?"


def respelled(rng: random.Random, text: str) -> str:
    """The same question in another spelling."""
    return rng.choice([text.upper(), text.replace(" ", "  "), f"  {text}\n", text.replace(" ", " $ ", 1)])


def edited(rng: random.Random, text: str, words: list[str]) -> str:
    """The same question, edited a little."""
    parts = text.split(" ")
    for _ in range(rng.randint(0, 2)):
        parts[rng.randrange(len(parts))] = rng.choice(words)
    return rng.choice(["", *LABELS]) + " ".join(parts) + rng.choice(["", *TAILS])


def with_other_numbers(rng: random.Random, text: str) -> str:
    """The same template with other numbers."""
    return " ".join(str(rng.randint(1000, 9999)) if part.isdecimal() else part for part in text.split(" "))


def copied(kind: str, rng: random.Random, text: str, words: list[str]) -> str:
    """A copy of a question, of the kind exact, edited or variant."""
    if kind == "exact":
        return respelled(rng, text)
    return edited(rng, text, words) if kind == "edited" else with_other_numbers(rng, text)


def make(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Write rows.jsonl and evaluation.jsonl; returns the truth: what was planted, by line."""
    rng = random.Random(seed)
    words, weights = vocabulary(rng)
    evaluation = [question(rng, words, weights) for _ in range(EVALUATION)]
    rows: list[tuple[str, str]] = []
    truth: dict[str, Any] = {"exact": [], "edited": [], "variant": [], "contaminated": []}
    originals: list[int] = []
    for line in range(1, count + 1):
        draw = rng.random()
        answer = str(rng.randint(1000, 999_999))
        if draw < CONTAMINATED / count:
            index = rng.randrange(EVALUATION)
            rows.append((edited(rng, evaluation[index], words), answer))
            truth["contaminated"].append((line, index))
        elif originals and draw < 3 * SHARE:
            kind = ("exact", "edited", "variant")[int(draw / SHARE)]
            original = rng.choice(originals)
            text, old = rows[original - 1]
            copy = copied(kind, rng, text, words)
            same = kind == "variant" and copy == text  # It had no numbers.
            truth["exact" if same else kind].append((line, original))
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
    """Recall of what was planted (edited pairs at or above the threshold), and false alarms."""
    from guide_rl.cleaning import shingles, similarity

    found = {row["row"]: row for row in map(json.loads, (out / "rejected.jsonl").open())}
    texts = truth["rows"]

    def share(pairs: list[tuple[int, str, str]]) -> str:
        over = [line for line, a, b in pairs if similarity(shingles(a, 3), shingles(b, 3)) >= 0.7]
        return f"{sum(line in found for line in over)} of {len(over)}"

    exact = truth["exact"]
    planted = {line for kind in ("exact", "edited", "contaminated") for line, _ in truth[kind]}
    return {
        "exact copies found": f"{sum(line in found for line, _ in exact)} of {len(exact)}",
        "edited copies found": share([(line, texts[line - 1], texts[old - 1]) for line, old in truth["edited"]]),
        "evaluation copies found": share(
            [(line, texts[line - 1], truth["evaluation"][old]) for line, old in truth["contaminated"]]
        ),
        "variants rejected": f"{sum(line in found for line, _ in truth['variant'])} of {len(truth['variant'])}",
        "others rejected": len(set(found) - planted - {line for line, _ in truth["variant"]}),
        "rows not planted": len(texts) - len(planted) - len(truth["variant"]),
    }


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
