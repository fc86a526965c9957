"""Group-relative advantages: numbers by hand, the slow twin, exact zeros."""

import math

import pytest
import slow_twins
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guide_rl.equations.advantages import BASELINES, group_advantages

# Two plain failures, one guided success, one guided failure.
# mean 1/4; squared deviations 1/16 + 1/16 + 9/16 + 1/16 = 3/4; sample variance 3/4 / 3 = 1/4; std 1/2.
REWARDS_G = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
GUIDED_G = torch.tensor([False, False, True, True])
BY_HAND = {
    "joint": [-1 / 4, -1 / 4, 3 / 4, -1 / 4],
    "plain": [0, 0, 1, 0],  # the plain mean is 0
    "leave_one_out": [-1 / 3, -1 / 3, 1, -1 / 3],  # a failure's others hold one success in three
}


@pytest.mark.parametrize("baseline", BASELINES)
def test_advantages_agree_with_numbers_worked_out_by_hand(baseline):
    centred = group_advantages(REWARDS_G, GUIDED_G, baseline=baseline, normalize_std=False)
    normalized = group_advantages(REWARDS_G, GUIDED_G, baseline=baseline)
    assert centred.tolist() == pytest.approx(BY_HAND[baseline], abs=1e-15)
    assert normalized.tolist() == pytest.approx([a / (0.5 + 1e-6) for a in BY_HAND[baseline]], abs=1e-15)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("normalize_std", [True, False])
@given(
    rows=st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=1, max_size=9).filter(
        lambda rows: not all(guided for _, guided in rows)
    )
)
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_advantages_equal_the_slow_twin(baseline, normalize_std, rows):
    rewards, guided = [list(column) for column in zip(*rows, strict=True)]
    found = group_advantages(
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(guided),
        baseline=baseline,
        normalize_std=normalize_std,
    )
    expected = slow_twins.advantages(rewards, guided, baseline, normalize_std)
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(rewards=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=16))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_joint_advantages_sum_to_zero_with_unit_deviation(rewards):
    found = group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.zeros(len(rewards), dtype=torch.bool))
    assert found.sum().item() == pytest.approx(0, abs=1e-9)
    if len(set(rewards)) > 1:
        assert found.std().item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -0.7, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize_std", [True, False])
def test_equal_rewards_give_exactly_zero(baseline, reward, dtype, normalize_std):
    rewards_G = torch.full((7,), reward, dtype=dtype)
    guided_G = torch.tensor([False] * 3 + [True] * 4)
    found = group_advantages(rewards_G, guided_G, baseline=baseline, normalize_std=normalize_std)
    assert found.tolist() == [0.0] * 7


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_group_of_one_gets_zero(baseline):
    assert group_advantages(torch.tensor([0.3]), torch.tensor([False]), baseline=baseline).tolist() == [0.0]


def test_the_deviation_is_that_of_the_joint_group_even_where_all_plain_rows_failed():
    found = group_advantages(REWARDS_G, GUIDED_G, baseline="plain")
    assert torch.isfinite(found).all()
    assert found[3] == 0  # a guided failure beside plain failures is not pushed down


@pytest.mark.parametrize(
    ("rewards_G", "dtype"),
    [
        (torch.tensor([0.0, 1.0], dtype=torch.float32), torch.float32),
        (torch.tensor([0.0, 1.0], dtype=torch.float64), torch.float64),
        (torch.tensor([0, 1]), torch.float32),
        (torch.tensor([False, True]), torch.float32),
    ],
)
def test_advantages_have_the_dtype_of_floating_rewards(rewards_G, dtype):
    found = group_advantages(rewards_G, torch.tensor([False, False]))
    assert found.dtype == dtype
    # std of (0, 1) is sqrt(1/2), so A = -+ (1/2) / sqrt(1/2) = -+ sqrt(1/2)
    assert found.tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=1e-5)


def test_equal_rewards_have_the_dtype_of_floating_rewards():
    assert group_advantages(torch.tensor([1, 1]), torch.tensor([False, False])).dtype == torch.float32


@pytest.mark.parametrize("rewards", [[0.0, 1.0], [1.0, 1.0]])
def test_the_plain_baseline_refuses_a_group_without_plain_rollouts(rewards):
    with pytest.raises(ValueError, match="at least one plain rollout"):
        group_advantages(torch.tensor(rewards), torch.tensor([True, True]), baseline="plain")


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_an_error(reward):
    with pytest.raises(ValueError, match="not finite"):
        group_advantages(torch.tensor([0.0, reward]), torch.tensor([False, False]))


@pytest.mark.parametrize(("rewards_shape", "guided_shape"), [((2,), (3,)), ((0,), (0,)), ((1, 2), (1, 2))])
def test_wrong_shapes_are_an_error(rewards_shape, guided_shape):
    with pytest.raises(ValueError, match="of one length"):
        group_advantages(torch.zeros(rewards_shape), torch.zeros(guided_shape, dtype=torch.bool))
