"""The demo end to end: small in every test run, at full size over three seeds in the slow tier."""

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from guide_rl.config import TrainRecipe
from guide_rl.demo import compare
from guide_rl.demo.compare import METHODS, at_tokens, run_demo
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.run_folder import RunFolder

ROOT = Path(__file__).parent.parent


def test_equal_tokens_takes_the_last_evaluation_within_the_limit():
    rows = [
        {"step": 0, "evaluation/pass@1": 0.1},
        {"step": 10, "total/tokens": 50, "total/rollouts": 8},
        {"step": 10, "evaluation/pass@1": 0.2},
        {"step": 20, "total/tokens": 120, "total/rollouts": 16},
        {"step": 20, "evaluation/pass@1": 0.9},
    ]
    assert at_tokens(rows, 100)["evaluation/pass@1"] == 0.2
    assert at_tokens(rows, 120) == {**rows[-1], "total/tokens": 120, "total/rollouts": 16}
    assert at_tokens(rows, 10)["evaluation/pass@1"] == 0.1


def start_runs(out, methods, *, seed=0, rollouts=5120):
    """What a demo leaves that was killed when it had started these methods."""
    compare.world.write(out / "problems", seed)
    jobs = compare.demo_jobs(rollouts)
    for method in methods:
        overrides = compare._overrides(out, method, jobs[method], seed)
        RunFolder.create(out / method, write_recipe(read_recipe(TrainRecipe, compare.RECIPE, overrides)))


def write_metrics(out, tokens_of_a_step):
    """Runs that were evaluated before training and after each of two steps of 8 rollouts."""
    for method, tokens in tokens_of_a_step.items():
        (out / method).mkdir()
        shares = {"evaluation/pass@1/easy": 0.5, "evaluation/pass@1/hard": 0.25, "evaluation/pass@1": 0.375}
        rows = [{"step": 0, **shares}]
        for step in (1, 2):
            rows.append({"step": step, "total/rollouts": 8 * step, "total/tokens": tokens * step, "accuracy/plain": 1})
            rows.append({"step": step, **shares})
        RunFolder(out / method).append("metrics.jsonl", rows)


def lines_of(table):
    """A table as a terminal of 80 columns shows it."""
    console = Console(width=80, file=StringIO())
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("other", [{"seed": 1}, {"rollouts": 640}, {"base": Path("models/other")}])
def test_other_settings_in_the_same_folder_are_refused_before_anything_is_written(tmp_path, other):
    start_runs(tmp_path, ["grpo"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="use another --out"):
        run_demo(tmp_path, **({"seed": 0, "rollouts": 5120} | other))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.e2e
@pytest.mark.parametrize("started", [[], ["grpo"], list(METHODS)])
def test_the_same_settings_continue_however_far_the_demo_was(tmp_path, monkeypatch, started):
    monkeypatch.chdir(tmp_path)
    start_runs(Path("demo"), started)
    compare.check_settings(Path("demo"), compare.demo_jobs(5120), seed=0)


def test_the_tokens_table_says_what_a_method_without_an_evaluation_in_time_shows(tmp_path):
    write_metrics(tmp_path, dict.fromkeys(METHODS, 100) | {"guide_grpo": 300})
    lines = lines_of(compare.tokens_table(tmp_path))
    assert lines[0] == "Held-out problems within 200 tokens"
    assert any(line.split()[-2:] == ["0", "0"] for line in lines if "Guide-GRPO (paper)" in line)
    assert "0 rollouts: not evaluated within them after training began," in " ".join(lines)


def test_the_tokens_table_has_no_such_note_when_all_were_evaluated(tmp_path):
    write_metrics(tmp_path, dict.fromkeys(METHODS, 100) | {"guide_grpo": 200})
    lines = lines_of(compare.tokens_table(tmp_path))
    assert "0 rollouts" not in " ".join(lines)
    assert any(line.split()[-2:] == ["8", "200"] for line in lines if "Guide-GRPO (paper)" in line)


def test_the_rollouts_table_promises_no_more_than_a_minimum_and_fits_80_columns():
    result = {"pass@1": {"easy": 1.0, "hard": 1.0}, "pass@16": {"easy": 1.0, "hard": 1.0}}
    methods = {"base": result} | dict.fromkeys(METHODS, result | {"rollouts": 105_211, "tokens": 9_888_777})
    lines = lines_of(compare.rollouts_table({"methods": methods, "seed": 0, "rollouts": 105_120}))
    assert lines[0] == "Held-out problems after at least 105,120 rollouts (seed 0)"
    assert all(any(label in line and line.count("%") == 4 for line in lines) for label in compare.LABELS.values())


def test_the_live_table_has_one_line_a_method_on_80_columns(tmp_path):
    write_metrics(tmp_path, dict.fromkeys(METHODS, 4_888_777))
    lines = lines_of(compare._progress_table(tmp_path, [*METHODS, "waiting"]))
    labels = [compare.LABELS[method] for method in METHODS]
    assert [line.split("  ")[0].strip() for line in lines if "9,777,554" in line] == labels
    assert len(lines) == len(lines_of(compare._progress_table(tmp_path, []))) + len(METHODS) + 1


@pytest.mark.e2e
def test_a_small_demo_trains_every_method_and_leaves_table_curves_and_summary(tmp_path, capsys):
    summary = run_demo(tmp_path / "demo", seed=0, rollouts=256)
    assert summary == json.loads((tmp_path / "demo/summary.json").read_text())
    assert list(summary["methods"]) == ["base", *METHODS]
    base = summary["methods"]["base"]
    assert base["pass@1"]["hard"] < 0.05
    assert base["pass@16"]["hard"] < 0.5
    assert base["pass@1"]["easy"] > 0.3
    for method in METHODS:
        result = summary["methods"][method]
        assert 256 <= result["rollouts"] < 512
        assert result["steps"] >= 1
        assert set(result["pass@16"]) == {"all", "easy", "hard"}
    assert (tmp_path / "demo/curves.png").stat().st_size > 10_000
    assert "Guide-GRPO (paper)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_better_guide_setting_beats_grpo_by_ten_points_in_each_of_three_seeds(tmp_path):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from demo_seeds import compare_seeds, margin

    results = compare_seeds(tmp_path, [1, 2, 3], rollouts=5120)
    assert all(margin(results, seed) >= 10 for seed in (1, 2, 3))
