"""Importance ratios, reshaping and their diagnostics: numbers by hand, gradients, padding, empty rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_twins import percentile as slow_percentile

from guide_rl.equations.ratios import (
    GUIDED_RATIOS,
    NEEDS,
    RESHAPED_AS,
    RESHAPINGS,
    Logprobs,
    guidance_reliance,
    numerator,
    plain_ratio,
    ratio_diagnostics,
    reshape,
    row_percentile,
)

MASK_NT = torch.tensor([[True, True, False]])


def log_NT(*probabilities: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log().requires_grad_(grad)


def example() -> Logprobs:
    """Two real tokens and a padded one, whose log-prob of 0.0 is -inf."""
    return Logprobs(
        new_plain_NT=log_NT(0.3, 0.2, 0.0, grad=True),
        old_NT=log_NT(0.6, 0.1, 0.0),
        old_plain_NT=log_NT(0.2, 0.2, 0.0),
        new_guided_NT=log_NT(0.9, 0.1, 0.0, grad=True),
    )


# name: (ratios, gradients with respect to the numerator's log-probs), cap 1.5
BY_HAND = {
    "sampling": ([0.5, 2.0], [0.5, 2.0]),  # 0.3/0.6, 0.2/0.1; d exp(l - old) / dl is the ratio itself
    "plain": ([1.5, 1.0], [1.5, 1.0]),  # 0.3/0.2, 0.2/0.2
    "in_context": ([1.5, 1.0], [1.5, 1.0]),  # 0.9/0.6, 0.1/0.1
    "none": ([1.0, 1.0], [1.0, 1.0]),
    "truncated": ([0.5, 1.5], [0.5, 1.5]),  # min(2.0, 1.5): the gradient stays, unlike under a clip
}


@pytest.mark.parametrize("name", GUIDED_RATIOS)
def test_guided_ratios_and_their_gradients_agree_with_numbers_worked_out_by_hand(name):
    logprobs = example()
    ratio_NT = GUIDED_RATIOS[name](logprobs, MASK_NT, cap=1.5)
    ratio_NT.sum().backward()
    values, gradients = BY_HAND[name]
    assert ratio_NT.tolist() == [[pytest.approx(values[0]), pytest.approx(values[1]), 1.0]]
    carrier = logprobs.new_guided_NT if name == "in_context" else logprobs.new_plain_NT
    assert numerator(name, logprobs) is carrier
    assert carrier.grad.tolist() == [[pytest.approx(gradients[0]), pytest.approx(gradients[1]), 0.0]]


def test_the_ratio_none_is_exactly_one():
    ratio_NT = GUIDED_RATIOS["none"](example(), MASK_NT, cap=0.5)
    assert ratio_NT.tolist() == [[1.0, 1.0, 1.0]]


def test_plain_rows_have_the_formula_of_the_paper_ratio():
    assert plain_ratio(example(), MASK_NT).tolist() == [[pytest.approx(0.5), pytest.approx(2.0), 1.0]]


@pytest.mark.parametrize("name", GUIDED_RATIOS)
def test_a_ratio_reads_the_fields_in_needs_and_no_others(name):
    given_fields = {field: getattr(example(), field) for field in NEEDS[name]}
    poison = torch.full((1, 3), torch.nan)
    alone = Logprobs(**{"new_plain_NT": poison, "old_NT": poison, **given_fields})
    assert torch.equal(GUIDED_RATIOS[name](alone, MASK_NT, cap=1.5), GUIDED_RATIOS[name](example(), MASK_NT, cap=1.5))


@pytest.mark.parametrize(("name", "field"), [("plain", "old_plain_NT"), ("in_context", "new_guided_NT")])
def test_a_missing_log_prob_is_an_error_that_names_it(name, field):
    bare = Logprobs(log_NT(0.5), log_NT(0.5))
    with pytest.raises(ValueError, match=field):
        GUIDED_RATIOS[name](bare, torch.tensor([[True]]), cap=1.0)


def reshaped(ratios, how, reshape_as, percentile=90.0, constant=1.0):
    """Reshape a row whose numerator's log-probs are the logs of its ratios; returns values and gradients."""
    logprobs_NT = torch.tensor([ratios], dtype=torch.float64).log().requires_grad_()
    mask_NT = torch.ones_like(logprobs_NT, dtype=torch.bool)
    result_NT = reshape(
        logprobs_NT.exp(),
        logprobs_NT,
        mask_NT,
        how=how,
        reshape_as=reshape_as,
        constant=constant,
        percentile=percentile,
    )
    result_NT.sum().backward()
    return result_NT[0].tolist(), logprobs_NT.grad[0].tolist()


def test_reshaping_agrees_with_numbers_worked_out_by_hand():
    ratios = [2.0, 0.5, 1.0]
    # static, c = 1: f = 1/3, 1/1.5, 1/2; w f = 2/3, 1/3, 1/2; d(w f)/dlog pi = w d/dw w/(1 + w) = w / (1 + w)^2
    values, gradients = reshaped(ratios, "static", "surrogate")
    assert values == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert gradients == pytest.approx([2 / 9, 0.5 / 2.25, 1 / 4])
    values, gradients = reshaped(ratios, "static", "weight")
    assert values == pytest.approx([1 / 3, 2 / 3, 1 / 2])
    assert gradients == pytest.approx([1 / 3, 2 / 3, 1 / 2])
    # adaptive: ordered 0.5, 1, 2; P90 at rank 0.9 * 2 = 1.8, 1 + 0.8 * (2 - 1) = 1.8; f = 1/3.8, 1/2.3, 1/2.8
    values, gradients = reshaped(ratios, "adaptive", "surrogate")
    assert values == pytest.approx([2 / 3.8, 0.5 / 2.3, 1 / 2.8])
    assert gradients == pytest.approx([2 * 1.8 / 3.8**2, 0.5 * 1.8 / 2.3**2, 1.8 / 2.8**2])
    values, gradients = reshaped(ratios, "adaptive", "weight")
    assert values == pytest.approx([1 / 3.8, 1 / 2.3, 1 / 2.8])
    assert gradients == pytest.approx([1 / 3.8, 1 / 2.3, 1 / 2.8])
    # the constant and the percentile are knobs: c = 3; P50 = 1
    assert reshaped(ratios, "static", "surrogate", constant=3.0)[0] == pytest.approx([2 / 5, 0.5 / 3.5, 1 / 4])
    assert reshaped(ratios, "adaptive", "surrogate", percentile=50.0)[0] == pytest.approx([2 / 3, 1 / 3, 1 / 2])


@pytest.mark.parametrize("reshape_as", RESHAPED_AS)
def test_reshape_none_leaves_the_ratio_and_its_gradient(reshape_as):
    values, gradients = reshaped([2.0, 0.5], "none", reshape_as)
    assert values == pytest.approx([2.0, 0.5])
    assert gradients == pytest.approx([2.0, 0.5])


@pytest.mark.parametrize("how", ["static", "adaptive"])
def test_the_two_readings_part_at_small_ratios(how):
    ratios = [1e-9, 1e-3, 0.1, 1.0, 1.0]
    _, surrogate_gradients = reshaped(ratios, how, "surrogate")
    _, weight_gradients = reshaped(ratios, how, "weight")
    assert surrogate_gradients[:3] == sorted(surrogate_gradients[:3])
    assert surrogate_gradients[0] < 1e-8
    assert weight_gradients == sorted(weight_gradients, reverse=True)
    assert weight_gradients[0] == pytest.approx(1.0)


@pytest.mark.parametrize("how", RESHAPINGS)
@pytest.mark.parametrize("reshape_as", RESHAPED_AS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_reshaping_ignores_padding_and_survives_empty_rows(how, reshape_as, poison):
    knobs = {"how": how, "reshape_as": reshape_as, "constant": 1.0, "percentile": 80.0}
    mask_NT = torch.tensor([[True, False, True], [False, False, False]])
    logprobs_NT = torch.tensor([[-0.3, poison, 0.4], [poison, poison, poison]]).requires_grad_()
    ratio_NT = torch.tensor([[0.5, poison, 2.0], [poison, poison, poison]]).requires_grad_()
    result_NT = reshape(ratio_NT, logprobs_NT, mask_NT, **knobs)
    result_NT[mask_NT].sum().backward()

    alone_NT = torch.tensor([[-0.3, 0.4]]).requires_grad_()
    ratio_alone_NT = torch.tensor([[0.5, 2.0]]).requires_grad_()
    expected_NT = reshape(ratio_alone_NT, alone_NT, torch.ones(1, 2, dtype=torch.bool), **knobs)
    expected_NT.sum().backward()
    assert torch.equal(result_NT[mask_NT], expected_NT[0])
    for found, expected in [(logprobs_NT, alone_NT), (ratio_NT, ratio_alone_NT)]:
        gradient_NT = torch.zeros_like(mask_NT, dtype=torch.float32) if found.grad is None else found.grad
        expected_gradient_NT = torch.zeros(1, 2) if expected.grad is None else expected.grad
        assert torch.equal(gradient_NT[mask_NT], expected_gradient_NT[0])
        assert gradient_NT[~mask_NT].tolist() == [0.0] * 4
    if how != "none":
        assert torch.isfinite(result_NT).all()


@given(
    rows=st.lists(st.lists(st.floats(1e-3, 1e3), max_size=6), min_size=1, max_size=4),
    percent=st.floats(0, 100),
    width=st.integers(6, 8),
)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_row_percentiles_equal_the_slow_twin_and_numpy(rows, percent, width):
    values_NT = torch.full((len(rows), width), torch.nan, dtype=torch.float64)
    for n, row in enumerate(rows):
        values_NT[n, width - len(row) :] = torch.tensor(row, dtype=torch.float64)
    found = row_percentile(values_NT, ~values_NT.isnan(), percent)
    assert found.shape == (len(rows), 1)
    assert found[:, 0].tolist() == pytest.approx([slow_percentile(row, percent) if row else 1.0 for row in rows])
    assert found[:, 0].tolist() == pytest.approx([np.percentile(row, percent) if row else 1.0 for row in rows])


def test_ratio_diagnostics_agree_with_numbers_worked_out_by_hand():
    ratio_NT = torch.tensor([[1.0, 2.0, torch.nan], [1.0, torch.nan, torch.nan]])
    found = ratio_diagnostics(ratio_NT, ~ratio_NT.isnan())
    assert found is not None
    assert found.mean == pytest.approx(4 / 3)
    assert found.p90 == pytest.approx(1.8)  # ordered 1, 1, 2; rank 1.8
    assert found.effective_sample_size == pytest.approx(16 / 18)  # (1 + 1 + 2)^2 / (3 * (1 + 1 + 4))


def test_effective_sample_size_is_one_for_equal_ratios_and_one_in_n_for_a_single_weight():
    for ratios, expected in [([0.3] * 5, 1.0), ([1e-9, 1e-9, 1e-9, 7.0], 1 / 4)]:
        ratio_NT = torch.tensor([ratios])
        found = ratio_diagnostics(ratio_NT, torch.ones_like(ratio_NT, dtype=torch.bool))
        assert found is not None
        assert found.effective_sample_size == pytest.approx(expected)


def test_guidance_reliance_is_the_mean_log_ratio_over_real_tokens():
    guided_NT, plain_NT = log_NT(0.8, 0.5, 0.0), log_NT(0.2, 0.5, 0.7)
    # log(0.8/0.2) = log 4 and log 1 = 0: mean log 2; the third token is padding
    assert guidance_reliance(guided_NT, plain_NT, MASK_NT) == pytest.approx(math.log(2))


def test_diagnostics_of_no_tokens_are_none():
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert ratio_diagnostics(torch.ones(2, 3), nothing) is None
    assert guidance_reliance(torch.ones(2, 3), torch.ones(2, 3), nothing) is None


@pytest.mark.parametrize("reshape_as", ["surrogate", "weight"])
def test_adaptive_reshaping_stays_finite_where_all_ratios_underflow(reshape_as):
    new_NT = torch.tensor([[-300.0, -250.0, -400.0]], requires_grad=True)
    mask_NT = torch.ones(1, 3, dtype=torch.bool)
    ratio_NT = plain_ratio(Logprobs(new_NT, torch.zeros(1, 3)), mask_NT)
    assert (ratio_NT == 0).all()
    shaped_NT = reshape(ratio_NT, new_NT, mask_NT, how="adaptive", reshape_as=reshape_as, constant=1.0, percentile=90.0)
    shaped_NT.sum().backward()
    assert shaped_NT.isfinite().all()
    assert new_NT.grad.isfinite().all()


def test_small_ratios_are_neither_raised_by_the_cap_nor_by_the_smallest_percentile():
    new_NT = log_NT(1e-5, 1e-6, 2e-6)
    mask_NT = torch.ones(1, 3, dtype=torch.bool)
    logprobs = Logprobs(new_NT, torch.zeros(1, 3, dtype=torch.float64))
    truncated = GUIDED_RATIOS["truncated"](logprobs, mask_NT, cap=2.0)
    assert truncated[0].tolist() == pytest.approx([1e-5, 1e-6, 2e-6])
    # ordered 1e-6, 2e-6, 1e-5: P50 = 2e-6
    values, _ = reshaped([1e-5, 1e-6, 2e-6], "adaptive", "surrogate", percentile=50.0)
    assert values == pytest.approx([10 / 12, 1 / 3, 1 / 2])
