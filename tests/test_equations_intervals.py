"""Confidence intervals: against enumeration of all resamples, coverage, pairing, averages, and the paper's table 4."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guide_rl.equations.intervals import (
    bootstrap,
    paired_bootstrap,
    paper_greedy_half_width,
    paper_macro_half_width,
    paper_pass_at_k_half_width,
)


def all_resamples(values) -> np.ndarray:
    """The mean of each of the P**P equally likely resamples."""
    return np.array([sum(drawn) / len(values) for drawn in itertools.product(values, repeat=len(values))])


def test_interval_is_that_of_all_resamples_enumerated():
    values = [0.0, 0.11, 0.35, 0.52, 1.0, 1.0]
    interval = bootstrap(values, resamples=40_000)
    assert interval.mean == pytest.approx(sum(values) / 6, abs=1e-15)
    low, high = np.quantile(all_resamples(values), [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_interval_of_a_macro_average_is_that_of_all_resamples_within_each_benchmark():
    small, large = [0.0, 1.0, 1.0], [0.1, 0.4, 0.0, 0.9]
    interval = bootstrap([small, large], average="macro", resamples=40_000)
    assert interval.mean == pytest.approx((2 / 3 + 1.4 / 4) / 2, abs=1e-15)
    low, high = np.quantile(np.add.outer(all_resamples(small), all_resamples(large)) / 2, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_micro_average_pools_the_problems():
    small, large = [0.0, 1.0, 1.0], [0.1, 0.4, 0.0, 0.9]
    assert bootstrap([small, large], average="micro") == bootstrap(small + large)
    assert bootstrap([small, large], average="micro").mean == pytest.approx(3.4 / 7, abs=1e-15)


def test_benchmarks_are_drawn_independently_of_each_other():
    values = np.arange(40) / 40
    alone, both = bootstrap(values), bootstrap([values, values])
    assert (both.high - both.low) * math.sqrt(2) == pytest.approx(alone.high - alone.low, rel=0.05)


def test_one_benchmark_is_its_own_average():
    values = np.array([0.0, 1.0, 0.25, 0.5])
    assert bootstrap(values) == bootstrap([values], average="macro") == bootstrap([values], average="micro")


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_paired_difference_is_the_bootstrap_of_the_differences(average):
    rng = np.random.default_rng(0)
    first, second = [rng.integers(0, 17, n) / 16 for n in (30, 83)], [rng.integers(0, 17, n) / 16 for n in (30, 83)]
    difference = paired_bootstrap(first, second, average=average, seed=3)
    plain = bootstrap([a - b for a, b in zip(first, second, strict=True)], average=average, seed=3)
    assert (difference.mean, difference.low, difference.high) == (plain.mean, plain.low, plain.high)


def test_share_not_positive_is_that_of_all_resamples_with_ties():
    values, baseline = [0.6, 0.8, 0.2, 0.4, 1.0, 0.2], [0.4, 1.0, 0.4, 0.2, 0.8, 0.0]  # +-0.2, up to rounding
    signs = [1, -1, -1, 1, 1, 1]
    exact = (all_resamples(signs) <= 0).mean()
    assert (all_resamples(signs) == 0).mean() > 0.1
    assert paired_bootstrap(values, baseline, resamples=40_000).share_not_positive == pytest.approx(exact, abs=0.01)


def test_share_not_positive_of_equal_runs_is_1_and_of_a_run_that_is_ahead_everywhere_0():
    values = np.arange(10) / 10
    assert paired_bootstrap(values, values).share_not_positive == 1
    assert paired_bootstrap(values + 0.1, values).share_not_positive == 0


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(0)
    difficulty = rng.beta(0.4, 0.4, 300)
    before, after = rng.binomial(16, difficulty) / 16, rng.binomial(16, np.minimum(1, difficulty + 0.05)) / 16
    paired, alone = paired_bootstrap(after, before), bootstrap(after)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


@pytest.mark.parametrize("problems", [60, 200])
def test_95_of_100_bootstrap_intervals_hold_the_true_mean(problems):
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(400):  # a benchmark: problems of any difficulty, 16 rollouts each; the true mean is 1/3
        values = rng.binomial(16, rng.beta(0.5, 1.0, problems)) / 16
        interval = bootstrap(values, resamples=500, seed=seed)
        held += interval.low <= 1 / 3 <= interval.high
    assert 0.92 <= held / 400 <= 0.97


def test_seed_decides_the_interval_and_chunks_do_not(monkeypatch):
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    whole = bootstrap([values, values[:9]], resamples=1_000, seed=1)
    monkeypatch.setattr("guide_rl.equations.intervals.CHUNK", 7 * values.size)
    chunked = bootstrap([values, values[:9]], resamples=1_000, seed=1)
    assert vars(chunked) == pytest.approx(vars(whole), rel=0, abs=1e-14)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_interval_lies_between_the_extremes_and_equal_values_have_none(values):
    interval = bootstrap(values, resamples=50)
    slack = 1e-12 * max(map(abs, values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    same = bootstrap([values[0]] * 7, resamples=50)
    assert same.low == pytest.approx(values[0]) == same.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([]), "at least one problem"),
        (lambda: bootstrap([[0.5], []]), "at least one problem"),
        (lambda: bootstrap([0.5, math.nan]), "one finite number a problem"),
        (lambda: bootstrap(np.zeros((2, 3, 4))), "one finite number a problem"),
        (lambda: bootstrap([0.5], resamples=0), "resamples must be at least 1"),
        (lambda: bootstrap([0.5], average="mean"), "average must be macro or micro"),
        (lambda: paired_bootstrap([[0.5], [0.1, 0.2]], [[0.5], [0.1]]), r"values has \[1, 2\] and baseline \[1, 1\]"),
        (lambda: paper_pass_at_k_half_width(93.6, 500, 16), "divide percentages by 100"),
        (lambda: paper_pass_at_k_half_width(0.5, 0, 16), "at least 1"),
        (lambda: paper_greedy_half_width([]), "at least one run"),
        (lambda: paper_macro_half_width([]), "at least one benchmark"),
    ],
)
def test_bad_values_are_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Table 4 of the paper, column Guide-GRPO: problems, problems solved at pass@16, half width of pass@16, of greedy pass@1
TABLE_4 = {
    "MATH500": (500, 468, 0.54, 0.10),
    "GSM8K": (1319, 1289, 0.20, 0.12),
    "MINERVA": (272, 129, 1.48, 0.14),
    "OLYMPIAD": (675, 436, 0.90, 0.22),
    "AMC": (83, 70, 1.95, 0.88),
    "AIME 24": (30, 17, 4.43, 1.31),
    "AIME 25": (30, 14, 4.46, 0.00),
}


def test_a_bound_at_which_differences_cancel_is_exactly_0():
    """The 2.5th percentile is 0: a bound of 4e-17 would call the first run ahead."""
    differences = np.array([0.6, 0.1, 0.3, -0.6, 0.4, 0.3, 0.3, 0.3, 0.4])
    assert paired_bootstrap(differences, np.zeros(9)).low == 0


def test_pass_at_16_half_widths_are_those_of_table_4():
    widths = [100 * paper_pass_at_k_half_width(solved / n, n, 16) for n, solved, _, _ in TABLE_4.values()]
    assert [round(width, 2) for width in widths] == [width for _, _, width, _ in TABLE_4.values()]
    assert round(paper_macro_half_width(widths), 2) == 2.00
    n, solved = (sum(row[i] for row in TABLE_4.values()) for i in (0, 1))
    assert round(100 * solved / n, 2) == 83.29
    assert round(100 * paper_pass_at_k_half_width(solved / n, n, 16), 2) == 0.34


def test_greedy_half_widths_are_those_of_table_4():
    assert round(paper_greedy_half_width([82.6, 82.6, 82.6, 82.8, 82.8]), 2) == 0.10  # MATH500, mean 82.68
    assert round(paper_greedy_half_width([30.0, 30.0, 30.0, 30.0, 100 / 3]), 2) == 1.31  # AIME 24, mean 30.67
    assert round(paper_macro_half_width([width for _, _, _, width in TABLE_4.values()]), 2) == 0.40


def test_greedy_half_width_of_deterministic_runs_is_exactly_0():
    assert paper_greedy_half_width([0.1] * 5) == paper_greedy_half_width(np.array([82.68])) == 0


@given(st.floats(0.01, 0.99), st.integers(1, 10_000), st.integers(1, 64))
def test_paper_half_width_is_sqrt_k_times_narrower_than_the_binomial_one(p, problems, k):
    binomial = 1.96 * math.sqrt(p * (1 - p) / problems)
    assert binomial / paper_pass_at_k_half_width(p, problems, k) == pytest.approx(math.sqrt(k))


def test_bootstrap_of_solved_problems_is_four_times_as_wide_as_the_paper_says():
    solved = np.arange(500) < 468
    interval = bootstrap(solved)
    ratio = (interval.high - interval.low) / 2 / paper_pass_at_k_half_width(468 / 500, 500, 16)
    assert ratio == pytest.approx(4, rel=0.05)
