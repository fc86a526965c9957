"""The demo end to end: small in every test run, at full size over three seeds in the slow tier."""

import json
import sys
from pathlib import Path

import pytest

from guide_rl.demo.compare import METHODS, at_tokens, run_demo

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
