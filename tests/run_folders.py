"""Run folders as `guide train` and `guide evaluate` leave them, made without training or sampling anything."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Solved = Callable[[int, int, bool], bool]
"""(problem, rollout, greedy) -> whether it is correct."""


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_run(path: Path, *, steps: int = 4, problems: int = 3, k: int = 2, reward: float = 0.5) -> Path:
    """A training run; problem 0 is solved, 1 rescued by guidance at every step, the others never solved."""
    write_lines(
        path / "metrics.jsonl",
        [
            {"step": step, "reward": reward, "accuracy/plain": reward / 2, "entropy": 1.0 / step, "length": 10.0 + step}
            for step in range(1, steps + 1)
        ],
    )
    known = [("train", i) for i in range(problems)] + [("held-out", i) for i in range(problems)]
    write_lines(path / "problems.jsonl", [problem(name, i) for name, i in known])
    rows = []
    for step in range(1, steps + 1):
        for i in range(problems):
            rows += [rollout(i, n, correct=i == 0) | {"step": step, "advantage": None} for n in range(k)]
            if i == 1:
                guided = {"step": step, "guided": True, "advantage": 1.0, "ratios": [0.5, 2.0], "pieces": ["4", "2"]}
                rows += [rollout(i, n, correct=n == 0) | guided for n in range(k)]
    write_lines(path / "rollouts.jsonl", rows)
    write_lines(
        path / "held_out.jsonl",
        [
            rollout(i, n, correct=(i == 0 or (greedy and step == steps and i == 1)))
            | {"step": step, "temperature": 1.0 - greedy}
            for step in (0, steps)
            for greedy in (True, False)
            for i in range(problems)
            for n in range(1 if greedy else 4)
        ],
    )
    (path / "recipe.yaml").write_text(f"steps: {steps}\n")
    return path


def evaluation_run(
    path: Path,
    models: Mapping[str, Solved],
    *,
    benchmarks: Mapping[str, int],
    samples: int = 4,
    greedy_runs: int = 1,
    step: int | None = None,
    guided: Solved | None = None,
) -> Path:
    """An evaluation run of models on benchmarks (name -> problems)."""
    results, rollouts = [], []
    for model, solved in models.items():
        for benchmark, count in benchmarks.items():
            settings = [(True, False, solved, greedy_runs), (False, False, solved, samples)]
            settings += [(False, True, guided, samples)] if guided else []
            for greedy, with_guidance, rule, n in settings:
                for i in range(count):
                    correct = [rule(i, j, greedy) for j in range(n)]
                    about = {"model": model, "step": step, "benchmark": benchmark, "guided": with_guidance}
                    about["temperature"] = 1.0 - greedy
                    outcomes = {
                        "correct": sum(correct),
                        "wrong": n - sum(correct),
                        "truncated": 0,
                        "ungradable": 0,
                        "empty": 0,
                    }
                    line = about | {"problem_id": str(i), "stratum": "", "tokens": 2 * n}
                    results.append(line | {"correct": list(map(int, correct)), "outcomes": outcomes})
                    rollouts += [rollout(i, j, correct=c) | about for j, c in enumerate(correct)]
    write_lines(path / "results.jsonl", results)
    write_lines(path / "rollouts.jsonl", rollouts)
    write_lines(path / "problems.jsonl", [problem(name, i) for name, count in benchmarks.items() for i in range(count)])
    (path / "recipe.yaml").write_text("benchmarks: {}\n")
    return path


def problem(name: str, i: int) -> dict[str, Any]:
    return {
        "set": name,
        "id": str(i),
        "question": f"What is {i} + {i}?",
        "answer": str(2 * i),
        "guidance": f"double {i}",
    }


def rollout(i: int, index: int, *, correct: bool) -> dict[str, Any]:
    return {
        "problem_id": str(i),
        "stratum": "",
        "index": index,
        "guided": False,
        "reward": float(correct),
        "correct": correct,
        "verdict": "correct" if correct else "wrong",
        "finish": "eos",
        "tokens": 2,
        "text": "42",
    }
