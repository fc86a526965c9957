"""Unbiased pass@k: numbers by hand, brute force over all subsets, large n."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from guide_rl.equations.pass_at_k import mean_pass_at_k, pass_at_k


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


def test_pass_at_k_does_not_import_torch():
    code = "import sys, guide_rl.equations.pass_at_k; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
