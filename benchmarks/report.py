"""How long `guide report` takes: four training runs of 400 steps.

`python benchmarks/report.py` writes run folders of 16 problems x 8 rollouts a step (and as many guided ones of a quarter of the
problems, with their ratios), 600 characters a rollout, held-out evaluations every 16 steps, and makes a report of them.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, PROBLEMS, PER_STEP, K, CHARACTERS, RUNS = 400, 256, 16, 8, 600, 4


def write_run(path: Path, seed: int) -> int:
    """One run folder; returns its rollouts of training."""
    rng = np.random.default_rng(seed)
    path.mkdir()
    (path / "recipe.yaml").write_text(f"steps: {STEPS}\nseed: {seed}\n")
    words = ["alpha", "beta", "gamma", "so", "therefore", "x", "=", "12", "and"]
    text = " ".join(rng.choice(words, CHARACTERS // 5))[:CHARACTERS]
    count = 0
    with (path / "rollouts.jsonl").open("w") as rollouts, (path / "metrics.jsonl").open("w") as metrics:
        for step in range(1, STEPS + 1):
            row = {
                "step": step,
                **{f"group/{i}": float(rng.random()) for i in range(40)},
                "reward": float(rng.random()),
            }
            row |= {"accuracy/plain": float(rng.random()), "entropy": 1.0, "length": 100.0}
            metrics.write(json.dumps(row) + "\n")
            for i in range(PER_STEP):
                problem = (step * PER_STEP + i) % PROBLEMS
                for index in range(K * (2 if i % 4 == 0 else 1)):
                    guided, correct = index >= K, bool(rng.random() < 0.4)
                    line = line_of(problem, index % K, guided, correct, text[rng.integers(50) :]) | {"step": step}
                    if guided:
                        line |= {"ratios": [0.123] * 120, "pieces": [" word"] * 120}
                    rollouts.write(json.dumps(line) + "\n")
                    count += 1
    with (path / "held_out.jsonl").open("w") as held_out:
        for step in range(0, STEPS + 1, 16):
            for problem in range(PROBLEMS):
                for index, temperature in [(0, 0.0), *((i, 1.0) for i in range(4))]:
                    line = line_of(problem, index, False, bool(rng.random() < 0.3 + step / 1000), text)
                    held_out.write(json.dumps(line | {"step": step, "temperature": temperature}) + "\n")
    known = [(name, i) for name in ("train", "held-out") for i in range(PROBLEMS)]
    rows = (
        {"set": name, "id": str(i), "question": f"What is {i}?", "answer": str(i), "guidance": "x"} for name, i in known
    )
    (path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return count


def line_of(problem: int, index: int, guided: bool, correct: bool, text: str) -> dict[str, object]:
    """A rollout's line."""
    return {
        "problem_id": str(problem),
        "stratum": "",
        "index": index,
        "guided": guided,
        "reward": float(correct),
        "correct": correct,
        "verdict": "correct" if correct else "wrong",
        "finish": "eos",
        "tokens": 120,
        "text": text,
        "advantage": 0.5,
    }


def main() -> None:
    """Write the runs, report on them three times, print the median."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / f"run{i}" for i in range(RUNS)]
        rollouts = sum(write_run(path, i) for i, path in enumerate(runs))
        size = sum(file.stat().st_size for run in runs for file in run.iterdir())
        command = [sys.executable, "-m", "guide_rl.cli", "report", *map(str, runs), "--out", f"{folder}/report"]
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
        page = (Path(folder) / "report/index.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{RUNS} runs of {STEPS} steps, {rollouts:,} rollouts of training, {size / 2**20:.0f} MiB:")
    print(
        f"report in {statistics.median(seconds):.1f} s (median of 3), {peak:.0f} MiB at most, page of {page / 2**20:.1f} MiB"
    )


if __name__ == "__main__":
    main()
