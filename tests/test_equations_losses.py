"""The parts of the loss: clip, aggregation, KL, entropy. Numbers by hand, the slow twin, gradients, padding."""

import math

import pytest
import slow_twins
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guide_rl.equations.losses import (
    AGGREGATIONS,
    aggregation_weights,
    clip_binds,
    clipped_surrogate,
    entropy_NT,
    k3_kl_NT,
    weighted_sum,
)

RATIO_NT = torch.tensor([[0.75, 1.1, 1.25, 1.5]] * 3, dtype=torch.float64)
ADVANTAGES_N = torch.tensor([1.0, -1.0, -1.0])
CLIP_N = torch.tensor([True, True, False])
CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def test_the_clipped_surrogate_agrees_with_numbers_worked_out_by_hand():
    surrogate_NT = clipped_surrogate(RATIO_NT, ADVANTAGES_N, CLIP_N, **CLIP)
    assert surrogate_NT.tolist() == [
        [0.75, 1.1, 1.25, 1.3],  # min(0.75, 0.8), within, within, min(1.5, 1.3)
        [-0.8, -1.1, -1.25, -1.5],  # min(-0.75, -0.8), within, within, min(-1.5, -1.3)
        [-0.75, -1.1, -1.25, -1.5],  # not clipped: w A
    ]


def test_the_clip_binds_exactly_where_it_takes_the_gradient_away():
    ratio_NT = RATIO_NT.clone().requires_grad_()
    clipped_surrogate(ratio_NT, ADVANTAGES_N, CLIP_N, **CLIP).sum().backward()
    binds_NT = clip_binds(RATIO_NT, ADVANTAGES_N, CLIP_N, **CLIP)
    assert binds_NT.tolist() == [[False, False, False, True], [True, False, False, False], [False] * 4]
    assert torch.equal(ratio_NT.grad, torch.where(binds_NT, 0.0, ADVANTAGES_N[:, None].double()))


def test_zero_advantages_never_count_as_clipped():
    binds_NT = clip_binds(RATIO_NT, torch.zeros(3), CLIP_N, **CLIP)
    assert not binds_NT.any()


def test_the_surrogate_keeps_the_dtype_of_the_ratio():
    surrogate_NT = clipped_surrogate(RATIO_NT.float(), ADVANTAGES_N.double(), CLIP_N, **CLIP)
    assert surrogate_NT.dtype == torch.float32


# Two groups of scale 2: rollouts of 1 and 3 tokens; rollouts of 2 and 0 tokens. max_tokens 10.
LENGTHS_N = torch.tensor([1, 3, 2, 0])
WEIGHTS_BY_HAND = {
    "sequence_mean": [1 / 4, 1 / 12, 1 / 8, 0],  # 1 / (2 * 2 * 1), 1 / (2 * 2 * 3), 1 / (2 * 2 * 2)
    "token_mean": [1 / 6, 1 / 6, 1 / 6, 0],  # 1 + 3 + 2 tokens
    "constant": [1 / 40, 1 / 40, 1 / 40, 0],  # 1 / (2 * 2 * 10)
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregation_weights_agree_with_numbers_worked_out_by_hand(aggregation):
    weights_N = aggregation_weights(aggregation, LENGTHS_N, torch.tensor([2, 2, 2, 2]), groups=2, max_tokens=10)
    assert weights_N.tolist() == pytest.approx(WEIGHTS_BY_HAND[aggregation], abs=1e-15)
    assert weights_N.dtype == torch.float64


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_mini_batch_without_real_tokens_weighs_nothing(aggregation):
    weights_N = aggregation_weights(aggregation, torch.tensor([0, 0]), torch.tensor([2, 2]), groups=1, max_tokens=10)
    assert weights_N.tolist() == [0.0, 0.0]


def test_a_mini_batch_without_groups_is_an_error():
    empty = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="skip it"):
        aggregation_weights("sequence_mean", empty, empty, groups=0, max_tokens=10)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@given(
    groups=st.lists(
        st.lists(st.lists(st.floats(-5, 5), max_size=4), min_size=1, max_size=4), min_size=1, max_size=3
    ).filter(lambda groups: any(row for rows in groups for row in rows)),
    by_size=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_the_weighted_sum_equals_the_nested_means_of_the_slow_twin(aggregation, groups, by_size):
    scales = [len(rows) if by_size else 2 for rows in groups]
    rows = [row for group in groups for row in group]
    values_NT = torch.full((len(rows), 5), torch.nan, dtype=torch.float64)
    for n, row in enumerate(rows):
        values_NT[n, : len(row)] = torch.tensor(row, dtype=torch.float64)
    mask_NT = ~values_NT.isnan()
    scales_N = torch.tensor([scale for scale, group in zip(scales, groups, strict=True) for _ in group])
    weights_N = aggregation_weights(aggregation, mask_NT.sum(1), scales_N, groups=len(groups), max_tokens=9)
    found = weighted_sum(values_NT, mask_NT, weights_N).item()
    assert found == pytest.approx(slow_twins.aggregate(groups, aggregation, scales, 9), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_padding_adds_nothing_to_a_weighted_sum_or_its_gradient(poison):
    values_NT = torch.tensor([[1.0, poison], [poison, 3.0]], requires_grad=True)
    mask_NT = torch.tensor([[True, False], [False, True]])
    total = weighted_sum(values_NT, mask_NT, torch.tensor([0.5, 2.0], dtype=torch.float64))
    total.backward()
    assert total.item() == 6.5  # 0.5 * 1 + 2 * 3
    assert total.dtype == torch.float32
    assert values_NT.grad.tolist() == [[0.5, 0.0], [0.0, 2.0]]


def test_the_kl_estimate_agrees_with_numbers_worked_out_by_hand():
    new_NT = torch.tensor([[0.5, 0.25, 0.3, 0.0]], dtype=torch.float64).log().requires_grad_()
    ref_NT = torch.tensor([[0.25, 0.5, 0.3, 0.0]], dtype=torch.float64).log()
    kl_NT = k3_kl_NT(new_NT, ref_NT, torch.tensor([[True, True, True, False]]))
    kl_NT.sum().backward()
    ln2 = math.log(2)
    # d = log ref - log new = -ln 2, ln 2, 0: exp(d) - d - 1; padding gives 0
    assert kl_NT[0].tolist() == pytest.approx([0.5 + ln2 - 1, 2 - ln2 - 1, 0, 0])
    # d/dnew (exp(ref - new) - (ref - new) - 1) = 1 - exp(d)
    assert new_NT.grad[0].tolist() == pytest.approx([0.5, -1, 0, 0])


def test_the_kl_estimate_is_unbiased_under_the_policy():
    policy_V, reference_V = torch.tensor([[0.5, 0.3, 0.2]]).double(), torch.tensor([[0.2, 0.2, 0.6]]).double()
    kl_V = k3_kl_NT(policy_V.log(), reference_V.log(), torch.ones(1, 3, dtype=torch.bool))
    exact = (policy_V * (policy_V / reference_V).log()).sum().item()
    assert (policy_V * kl_V).sum().item() == pytest.approx(exact)


def test_the_kl_estimate_is_never_negative_and_passes_gradcheck():
    generator = torch.Generator().manual_seed(0)
    new_NT = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ref_NT = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mask_NT = torch.rand(3, 4, generator=generator) < 0.7
    assert (k3_kl_NT(new_NT, ref_NT, mask_NT) >= 0).all()
    assert torch.autograd.gradcheck(lambda new: k3_kl_NT(new, ref_NT, mask_NT), new_NT)


def test_entropy_agrees_with_numbers_worked_out_by_hand():
    probabilities = torch.tensor([[[0.25] * 4, [0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    # log 4; 0.5 log 2 + 2 * 0.25 log 4 = 1.5 log 2; 0
    expected = [math.log(4), 1.5 * math.log(2), 0]
    assert entropy_NT(probabilities.log())[0].tolist() == pytest.approx(expected)
    assert entropy_NT(probabilities.log() + 1e5)[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert entropy_NT(torch.tensor([1e30, -1e30, 0.0])).item() == 0.0


def test_the_entropy_gradient_is_right_and_zero_at_impossible_tokens():
    generator = torch.Generator().manual_seed(0)
    logits_NTV = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy_NT, logits_NTV)
    masked = logits_NTV.detach().clone()
    masked[..., 3] = -torch.inf
    masked.requires_grad_()
    entropy_NT(masked).sum().backward()
    kept = logits_NTV.detach()[..., [0, 1, 2, 4]].clone().requires_grad_()
    entropy_NT(kept).sum().backward()
    assert masked.grad[..., 3].eq(0).all()
    assert torch.allclose(masked.grad[..., [0, 1, 2, 4]], kept.grad, atol=1e-14)
