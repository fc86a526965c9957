"""How long a large report takes to open and to search: `python benchmarks/page.py`.

Made-up runs: 2,000 problems in 4 runs of 400 steps with 40 metrics, 50,000 rollouts of about 1 KB, one in five guided, with
ratios. The page is opened from a file in headless Chromium, in a new browser each time; medians of five:
seconds until the list of problems shows, until all texts are unpacked, milliseconds from a typed search to the new list.
"""

import argparse
import math
import random
import shutil
import tempfile
import time
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from guide_rl.analysis.page import LONG, SHORT, write_page

RUNS, STEPS, PROBLEMS, ROLLOUTS, CHARACTERS = 4, 400, 2000, 50_000, 1000
METRICS = [
    *(f"accuracy/{name}" for name in ("plain", "guided", "all")),
    *(f"guidance/{name}" for name in ("triggered", "rescued", "rescued_share", "reliance")),
    *(f"groups/{name}" for name in ("solved", "uniform_before", "uniform_after")),
    *(f"evaluation/pass@{k}" for k in (1, 2, 4, 8, 16)),
    *(f"grades/{name}" for name in ("correct", "wrong", "truncated", "ungradable", "empty", "timeout")),
    *(f"ratio/{name}" for name in ("mean", "p90", "effective_sample_size")),
    *(
        "entropy",
        "entropy/guided",
        "length",
        "length/guided",
        "mismatch/mean",
        "mismatch/max",
        "total/rollouts",
        "total/tokens",
    ),
    *("truncated", "rollouts", "tokens", "loss", "grad_norm", "clip_fraction", "kl", "learning_rate"),
]
SEARCHES = ("word1234 ", "e", "not in any text", "word7 word8 word")
SHOWN = "#rows [role=option]"
READ = "body[data-texts=read]"
SEARCH = """async (words) => {
  const field = document.getElementById("search");
  const start = performance.now();
  field.value = words;
  field.dispatchEvent(new Event("input"));
  document.getElementById("rows").getBoundingClientRect();
  return performance.now() - start;
}"""
SCROLL = """async () => {
  const rows = document.getElementById("rows");
  const frames = [];
  let last = await new Promise(requestAnimationFrame);
  for (let i = 1; i <= 60; i++) {
    rows.scrollTop = i * 900;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
  }
  return Math.max(...frames);
}"""


def made_up(rng: random.Random, problems: int = PROBLEMS, rollouts: int = ROLLOUTS) -> dict[str, Any]:
    """The data of a page."""
    words = [f"word{n}" if n % 3 else "".join(rng.choices("abcdefghijklmnop", k=n % 7 + 2)) for n in range(4000)]
    weights = [1 / (n + 1) for n in range(len(words))]

    def text(characters: int) -> str:
        return " ".join(rng.choices(words, weights=weights, k=characters // 6))

    per_problem = rollouts // problems
    columns: dict[str, list[Any]] = {name: [] for name in ROW}
    for problem in range(problems):
        steps = sorted(rng.sample(range(STEPS), 3))
        skill = rng.random() ** 3
        for index in range(per_problem):
            step = steps[index * 3 // per_problem]
            guided = index % 5 == 4
            body = text(CHARACTERS) + " ≈ 1" * (
                index % 3 == 0
            )  # beyond Latin-1: the browser keeps two bytes a character
            pieces = [f" {word}" for word in body.split(" ")] if guided else None
            correct = rng.random() < skill + 0.3 * guided
            ratios = [float(f"{math.exp(rng.gauss(-0.3, 1.2)):.3g}") for _ in pieces] if pieces else None
            verdict = "correct" if correct else "wrong"
            row = (
                problem,
                step,
                "",
                index,
                int(guided),
                0,
                float(correct),
                rng.gauss(0, 1),
                int(correct),
                verdict,
                "stop",
                250,
            )
            for name, value in zip(ROW, (*row, body, ratios, pieces), strict=True):
                columns[name].append(value)
    curve = {"x": list(range(STEPS)), "y": []}
    runs = [
        {
            "name": f"run {n}",
            "kind": "train",
            "recipe": "steps: 400\n",
            "metrics": {
                key: {**curve, "y": [math.tanh(x / 150) + rng.gauss(0, 0.05) for x in range(STEPS)]} for key in METRICS
            },
        }
        for n in range(RUNS)
    ]
    rows = [
        {
            "run": n % RUNS,
            "set": "train" if n % 5 else "held-out",
            "id": f"problem-{n}",
            "question": text(200),
            "answer": str(n),
            "guidance": text(300),
            "stratum": "hard" if n % 2 else "easy",
        }
        for n in range(problems)
    ]
    return {
        "title": "A large report",
        "made": "2026-01-01 12:00",
        "summary": ["Made-up numbers."],
        "notes": [],
        "tables": [],
        "figures": [],
        "runs": runs,
        "metric_help": {},
        "problems": rows,
        "rollouts": columns,
    }


ROW = (*SHORT, *chain(*LONG.values()))
"""The columns of rollouts."""


def opened(playwright: Any, chromium: str, page_path: Path) -> dict[str, float]:
    """Seconds and milliseconds of one opening in a new browser."""
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    start = time.perf_counter()
    page.goto(page_path.as_uri() + "#view=rollouts", wait_until="commit")
    page.wait_for_selector(SHOWN)
    shown = time.perf_counter() - start
    page.wait_for_selector(READ)
    read = time.perf_counter() - start
    searches = {f"search {words!r}, ms": page.evaluate(SEARCH, words) for words in SEARCHES}
    page.evaluate(SEARCH, "")
    frame = page.evaluate(SCROLL)
    browser.close()
    return {"list shown, s": shown, "all texts read, s": read, **searches, "longest frame of scrolling, ms": frame}


def main() -> None:
    """Print sizes and medians."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where to leave the page")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    data = made_up(random.Random(0))
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder) / "index.html"
        start = time.perf_counter()
        write_page(path, data)
        print(f"written in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        with sync_playwright() as playwright:
            turns = [opened(playwright, chromium, path.resolve()) for _ in range(arguments.times)]
    for name in turns[0]:
        values = [turn[name] for turn in turns]
        print(f"{name}: {median(values):.2f} (from {min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
