"""Progress, regression, distillation, capability: numbers by hand, plain-Python twins, exact identities, unbiased draws."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guide_rl.equations.gains import Gains, NetReward, absolute_k, gain_trials, gains, guided_gains, net_reward
from guide_rl.equations.pass_at_k import pass_at_k, pass_at_k_curves

#           U, one of 3 samples | U, none | U, none | S | S | U, two of 3, still wrong
BEFORE = [0, 0, 0, 1, 1, 0]
SAMPLES = [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1]]
AFTER = [1, 1, 0, 1, 0, 0]


def gains_by_loops(before, samples, after) -> dict[str, int]:
    """Equations 1 and 2 as they are printed."""
    unsolved = [i for i in range(len(before)) if not before[i]]
    solved = [i for i in range(len(before)) if before[i]]
    return {
        "unsolved": len(unsolved),
        "progress": sum(1 for i in unsolved if after[i]),
        "regression": sum(1 for j in solved if not after[j]),
        "distillation": sum(1 for i in unsolved if any(y for y in samples[i]) and after[i]),
        "capability": sum(1 for i in unsolved if all(not y for y in samples[i]) and after[i]),
    }


@st.composite
def outcomes(draw):
    """Before [P], k samples [P, k], after [P]."""
    problems, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    booleans = st.lists(st.booleans(), min_size=problems, max_size=problems)
    samples = st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=problems, max_size=problems)
    return draw(booleans), draw(samples), draw(booleans)


def test_gains_agree_with_numbers_worked_out_by_hand():
    assert net_reward(BEFORE, AFTER) == NetReward(unsolved=4, progress=2, regression=1)
    assert net_reward(BEFORE, AFTER).net == 1
    assert gains(BEFORE, SAMPLES, AFTER) == Gains(unsolved=4, progress=2, regression=1, distillation=1, capability=1)


@given(outcomes())
def test_gains_equal_the_printed_equations_and_their_identities(outcome):
    before, samples, after = outcome
    result = gains(before, samples, after)
    assert vars(result) == gains_by_loops(before, samples, after)
    assert result.progress == result.distillation + result.capability
    assert result.net == sum(after) - sum(before)
    assert vars(net_reward(before, after)).items() <= vars(result).items()


@given(outcomes(), st.randoms(use_true_random=False))
def test_capability_gain_falls_with_k_and_ignores_the_order_of_samples(outcome, random):
    before, samples, after = outcome
    capability = [gains(before, [row[:k] for row in samples], after).capability for k in range(1, len(samples[0]) + 1)]
    assert capability == sorted(capability, reverse=True)
    assert gains(before, [random.sample(row, len(row)) for row in samples], after).capability == capability[-1]


def test_absolute_k_is_the_first_with_little_growth():
    # growth: 0.2/0.4 = 50 %, 0.06/0.6 = 10 %, 0.006/0.66 = 0.91 %, 0
    curve = [0.4, 0.6, 0.66, 0.666, 0.666]
    assert absolute_k(curve) == 4
    assert absolute_k(curve, epsilon=0.009) == 5
    assert absolute_k(curve, epsilon=0.11) == 3
    assert absolute_k(curve, epsilon=0.6) == 2
    assert absolute_k(curve[:3]) is None


def test_absolute_k_needs_growth_below_epsilon_not_at_it():
    assert absolute_k([0.5, 0.75, 0.75], epsilon=0.5) == 3


def test_absolute_k_passes_over_the_zeros_before_the_first_success():
    assert absolute_k([0.0, 0.0, 0.1, 0.2, 0.201]) == 5
    assert absolute_k([0.0, 0.0, 0.0]) is None
    assert absolute_k([0.3]) is None


@given(st.lists(st.integers(0, 10), min_size=1, max_size=8), st.floats(0.001, 0.3))
def test_absolute_k_equals_its_definition(counts, epsilon):
    curve = [statistics.fmean(pass_at_k(10, c, k) for c in counts) for k in range(1, 11)]
    small = [k for k in range(2, 11) if curve[k - 2] > 0 and (curve[k - 1] - curve[k - 2]) / curve[k - 2] < epsilon]
    assert absolute_k(curve, epsilon) == (min(small) if small else None)


def pools(problems: int, runs: int, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy runs before, samples before, greedy runs after, of problems of all difficulties."""
    rng = np.random.default_rng(seed)
    difficulty_P1 = rng.beta(0.3, 0.6, (problems, 1))
    shapes = (problems, runs), (problems, samples), (problems, runs + 1)
    return tuple(
        rng.random(shape) < np.minimum(1, difficulty_P1 + lift) for shape, lift in zip(shapes, (0, 0, 0.2), strict=True)
    )


def expected_gains(before_PR, samples_PN, after_PR, k: int) -> dict[str, float]:
    """What trials are on average: every possible draw enumerated, problem by problem."""
    totals = dict.fromkeys(["unsolved", "progress", "regression", "net", "distillation", "capability"], 0.0)
    for before_R, samples_N, after_R in zip(before_PR, samples_PN, after_PR, strict=True):
        draws = list(itertools.product(before_R, itertools.combinations(samples_N, k), after_R))
        for before, samples, after in draws:
            counts = gains_by_loops([before], [samples], [after])
            counts["net"] = counts["progress"] - counts["regression"]
            for name, count in counts.items():
                totals[name] += count / len(draws)
    return totals


def test_trials_are_on_average_what_all_draws_are():
    before, samples, after = pools(problems=30, runs=3, samples=5)
    result = gain_trials(before, samples, after, k=2, trials=4_000)
    for name, expected in expected_gains(before, samples, after, k=2).items():
        estimate = getattr(result, name)
        assert estimate.standard_error < 0.05
        assert abs(estimate.mean - expected) < 4 * estimate.standard_error, name


def test_mean_and_standard_error_are_those_of_the_trials():
    result = gain_trials(*pools(200, 3, 8), k=4, trials=7, seed=5)
    assert (result.k, len(result.trials)) == (4, 7)
    for name in ("unsolved", "progress", "regression", "net", "distillation", "capability"):
        values = [getattr(trial, name) for trial in result.trials]
        mean = sum(values) / 7
        assert len(set(values)) > 1
        assert getattr(result, name).mean == pytest.approx(mean)
        variance_of_mean = sum((value - mean) ** 2 for value in values) / 6 / 7
        assert getattr(result, name).standard_error == pytest.approx(math.sqrt(variance_of_mean))


@given(outcomes(), st.integers(0, 100))
def test_every_trial_of_one_run_and_all_samples_is_the_equation_itself(outcome, seed):
    before, samples, after = outcome
    k = len(samples[0])
    result = gain_trials([[b] for b in before], samples, [[a] for a in after], k, trials=2, seed=seed)
    assert set(result.trials) == {gains(before, samples, after)}
    assert result.capability.standard_error == result.net.standard_error == 0


def test_samples_are_drawn_without_replacement():
    samples = np.eye(6, 4, dtype=bool)[[0, 1, 2, 3, 0, 1]]  # one correct of four: drawing all four never misses it
    result = gain_trials(np.zeros((6, 2)), samples, np.ones((6, 2)), k=4, trials=20)
    assert (result.capability.mean, result.distillation.mean) == (0, 6)


def test_seed_decides_the_trials_and_checkpoints_share_the_untrained_draws():
    before, samples, after = pools(300, 4, 16)
    result = gain_trials(before, samples, after, k=8, seed=1)
    assert result == gain_trials(before, samples, after, k=8, seed=1)
    assert result.trials != gain_trials(before, samples, after, k=8, seed=2).trials
    other = gain_trials(before, samples, ~after, k=8, seed=1)
    assert [t.unsolved for t in other.trials] == [t.unsolved for t in result.trials]
    everything = gain_trials(before, samples, np.ones((300, 9)), k=8, seed=1)
    nothing = gain_trials(before, samples, np.zeros((300, 1)), k=8, seed=1)
    for all_solved, none_solved, trial in zip(everything.trials, nothing.trials, result.trials, strict=True):
        assert all_solved.progress == all_solved.unsolved == trial.unsolved == none_solved.unsolved
        assert none_solved.regression == 300 - trial.unsolved


def test_trials_with_more_of_them_extend_those_with_fewer():
    arguments = (*pools(100, 4, 16), 8)
    assert gain_trials(*arguments, trials=5).trials == gain_trials(*arguments, trials=10).trials[:5]


def test_plain_curve_of_a_subset_is_measured_on_rollouts_that_did_not_classify():
    # One correct of three and k = 2: in C the correct one is the rollout that is left, in D it was among the k.
    plain = np.tile([True, False, False], (500, 1))
    result = guided_gains(plain, np.ones((500, 1)), np.zeros((500, 1)), k=2, ks=[1])
    assert (result.capability.plain_SK == 1).all()
    assert (result.distillation.plain_SK == 0).all()
    assert len(result.capability.plain_SK) == pytest.approx(500 / 3, rel=0.15)
    np.testing.assert_array_equal(result.capability.problems_P, ~result.distillation.problems_P)


def test_without_greedy_runs_one_more_sampled_rollout_decides_pass_at_1():
    # The correct one of three: pass@1 (neither subset), the one of k = 1 (D), or left over (C), each in a third.
    plain = np.tile([True, False, False], (900, 1))
    result = guided_gains(plain, np.ones((900, 1)), None, k=1, ks=[1])
    assert (result.capability.plain_SK == 1).all()
    assert (result.distillation.plain_SK == 0).all()
    assert result.capability.problems_P.sum() == pytest.approx(300, rel=0.15)
    assert result.distillation.problems_P.sum() == pytest.approx(300, rel=0.15)
    assert not (result.capability.problems_P & result.distillation.problems_P).any()


def test_subsets_and_curves_agree_with_numbers_worked_out_by_hand():
    # solved | C | C | D; all rollouts of a plain row are alike, so the draw does not matter
    plain = [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    greedy = [[1], [0], [0], [0]]
    guided = [[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    result = guided_gains(plain, guided, greedy, k=2, ks=[1, 2])
    assert result.ks == (1, 2)
    assert result.capability.problems_P.tolist() == [False, True, True, False]
    assert result.capability.plain_SK.tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(result.capability.guided_SK, [[1 / 3, 2 / 3], [0, 0]])  # C(2,2)/C(3,2) misses
    assert result.distillation.problems_P.tolist() == [False, False, False, True]
    assert result.distillation.plain_SK.tolist() == [[1, 1]]
    np.testing.assert_allclose(result.distillation.guided_SK, [[2 / 3, 1]])


@pytest.mark.parametrize("greedy", [True, False])
def test_selection_does_not_bias_the_plain_curve(greedy):
    rng = np.random.default_rng(0)
    rates_P = rng.beta(0.3, 1.5, 20_000)
    plain_PN, guided_PM = rng.random((20_000, 16)) < rates_P[:, None], rng.random((20_000, 8)) < rates_P[:, None]
    greedy_PR = rng.random((20_000, 2)) < rates_P[:, None] if greedy else None
    result = guided_gains(plain_PN, guided_PM, greedy_PR, k=8, ks=[1, 4], seed=3)
    for subset in (result.capability, result.distillation):
        true_SK = 1 - (1 - rates_P[subset.problems_P, None]) ** [1, 4]
        noise_K = (subset.plain_SK - true_SK).std(0) / math.sqrt(len(true_SK))
        assert (abs(subset.plain_SK.mean(0) - true_SK.mean(0)) < 4 * noise_K).all()
        noise_K = (subset.guided_SK - true_SK).std(0) / math.sqrt(len(true_SK))
        assert (abs(subset.guided_SK.mean(0) - true_SK.mean(0)) < 4 * noise_K).all()
    all_rollouts = pass_at_k_curves(plain_PN[result.capability.problems_P], [1]).mean()
    assert all_rollouts < 0.6 * rates_P[result.capability.problems_P].mean()  # what the split is for


def test_seed_decides_the_split():
    before, samples, _ = pools(100, 3, 16)
    curves = [guided_gains(samples, samples, before, 8, [1, 8], seed=seed).capability.plain_SK for seed in (1, 1, 2)]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert curves[0].shape != curves[2].shape or (curves[0] != curves[2]).any()


ONES = np.ones((2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: net_reward([1, 0], [1]), "{'before_P': 2, 'after_P': 1}"),
        (lambda: net_reward([0.5], [1]), "before_P must be a list of booleans"),
        (lambda: net_reward([], []), "before_P and after_P must hold at least one problem"),
        (lambda: gains([1], [1], [1]), "samples_PK must be a list of booleans of the same length for each problem"),
        (lambda: gains([1, 1], [[1], [1, 0]], [1, 1]), "samples_PK must be"),
        (lambda: gains([1, 1], np.zeros((2, 0)), [1, 1]), "samples_PK must hold at least one problem and one rollout"),
        (lambda: absolute_k([]), "pass@1, pass@2"),
        (lambda: absolute_k([0.5, 1.5]), "between 0 and 1"),
        (lambda: absolute_k([0.5, math.nan]), "between 0 and 1"),
        (lambda: absolute_k([0.5], epsilon=0), "epsilon must be above 0"),
        (
            lambda: gain_trials(ONES, ONES, ONES, k=5),
            "k must be between 1 and the 4 rollouts .* before_samples_PN, not 5",
        ),
        (lambda: gain_trials(ONES, ONES, ONES, k=0), "k must be between 1"),
        (lambda: gain_trials(ONES, ONES, ONES, k=1, trials=1), "trials must be at least 2"),
        (lambda: gain_trials(ONES, ONES[:1], ONES, k=1), "same problems"),
        (lambda: gain_trials(ONES[:, :0], ONES, ONES, k=1), "before_greedy_PR must hold at least one"),
        (
            lambda: guided_gains(ONES, ONES, ONES, k=2, ks=[1, 3]),
            "the 2 rollouts .* plain_PN less the 2 that classify, not 3",
        ),
        (
            lambda: guided_gains(ONES, ONES, None, k=2, ks=[2]),
            "the 1 rollouts .* plain_PN less the 3 that classify, not 2",
        ),
        (lambda: guided_gains(ONES, ONES[:, :1], ONES, k=2, ks=[2]), "guided_PM, not 2"),
        (lambda: guided_gains(ONES, ONES, None, k=4, ks=[1]), "the 0 rollouts"),
        (lambda: guided_gains(ONES, ONES, ONES, k=0, ks=[1]), "k must be between"),
        (lambda: guided_gains(ONES, ONES, ONES, k=1, ks=[0, 1]), "k must be between"),
        (lambda: guided_gains(ONES, ONES, ONES, k=1, ks=[]), "ks must hold at least one k"),
        (lambda: guided_gains(ONES, ONES[:1], ONES, k=1, ks=[1]), "same problems"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
